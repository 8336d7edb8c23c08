"""Wall time and memory of a whole harvest, from sources to a published knowledge base.

    python -m tests.benchmarks.mrconso META/MRCONSO.RRF --rows 16e6
    python -m tests.benchmarks.harvest_cost META --workers 2

Memory is the proportional set size of all processes together (files that are only mapped count
too), sampled ten times a second. The arguments are those of `bioelx harvest`, without `--out`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def pss(pid: int) -> int:
    """The proportional set size in bytes of a process and all below it."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(pss(int(child)) for child in children.read_text().split())
    except (OSError, ProcessLookupError):
        return total
    return total


def main() -> None:
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        command = [sys.executable, "-m", "bioelx_ray.cli", "harvest", *sys.argv[1:]]
        begin, peak, steps = time.monotonic(), 0, []
        harvest = subprocess.Popen(
            [*command, "--out", f"{scratch}/kb"], stderr=subprocess.PIPE, text=True
        )
        with (Path(scratch) / "log").open("w") as log:
            reader = subprocess.Popen(["cat"], stdin=harvest.stderr, stdout=log)
            while harvest.poll() is None:
                peak = max(peak, pss(harvest.pid))
                time.sleep(0.1)
                told = (Path(scratch) / "log").read_text().splitlines()
                if len(told) > len(steps):
                    steps += [(time.monotonic() - begin, line) for line in told[len(steps) :]]
            reader.wait()
        wall = time.monotonic() - begin
        for at, line in steps:
            sys.stdout.write(f"{at:7.1f} s  {line}\n")
        if harvest.returncode:
            raise SystemExit(harvest.returncode)
        size = sum(path.stat().st_size for path in Path(scratch, "kb").iterdir())
    figures = f"{wall:.1f} s, peak {peak / 2**30:.2f} GiB in all processes, {size / 1e9:.2f} GB"
    sys.stdout.write(f"{figures} written\n")


if __name__ == "__main__":
    main()
