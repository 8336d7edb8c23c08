"""What people see: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# eighty columns, what a pipe is taken for, would break ids in two
results = Console(width=None if sys.stdout.isatty() else 120)
messages = Console(stderr=True)


class Report:
    """Shows steps on a terminal; elsewhere writes a line a step, so that logs stay short."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._tasks: dict[str, int] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        """So much of a step is done."""
        if self._bars is None:
            tenths = 10 * done // max(total, 1)
            if self._tasks.get(step) != tenths:
                self._tasks[step] = tenths
                messages.print(f"{step} {done:,}/{total:,}", highlight=False)
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total)
        self._bars.update(self._bars.task_ids[self._tasks[step]], completed=done, total=total)


@contextlib.contextmanager
def showing_progress() -> Iterator[Report]:
    """A `Report` to tell of steps, while the block runs."""
    if not messages.is_terminal or os.environ.get("CI"):
        yield Report(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=messages) as bars:
        yield Report(bars)
