"""Seconds and private memory that opening an index takes, in a fresh process.

    python -m tests.benchmarks.index_opening INDEX

Imports and the first verification of the checksums are done before and timed on their own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.retrieval.opened import open_index


def private_mib() -> float:
    """Private memory of this process, from the kernel's account of its mappings."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kib = sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))
    return kib / 1024


def main() -> None:
    path = Path(sys.argv[1])
    start = time.perf_counter()
    open_artifact(path, "index")
    verified = time.perf_counter() - start
    before = private_mib()
    start = time.perf_counter()
    index = open_index(path)
    opened = time.perf_counter() - start
    print(  # noqa: T201
        f"{path}: {len(index.forms):,} forms; verified in {verified:.3f} s, opened in "
        f"{opened:.3f} s, private memory +{private_mib() - before:.1f} MiB"
    )


if __name__ == "__main__":
    main()
