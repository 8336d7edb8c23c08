"""How many threads this process may use."""

from __future__ import annotations

import os


def cpu_count(configured: int = 0) -> int:
    """`configured`, or if that is 0 the processors that this process may run on.

    Ray sets ``OMP_NUM_THREADS`` for the CPUs that it granted to an actor, which then counts.
    """
    granted = os.environ.get("OMP_NUM_THREADS", "")
    if configured:
        return configured
    if granted.isdigit() and int(granted) > 0:
        return int(granted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
