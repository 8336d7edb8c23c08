"""Times the reading of a Wikidata dump beside the tools that only unpack it, and other readers.

    python -m tests.benchmarks.harvest_wikidata --bytes 1e9 --directory DIRECTORY
        [--qwikidata PYTHON] [--other-bytes 4e9]

Dumps that the directory lacks are written there (`wikidata_dump`, synthetic). --qwikidata names the
Python of an environment with that package; --other-bytes the size of a second .json.gz, whose
memory is compared with the first one's. Each figure is of a process of its own: seconds by the
clock, seconds of processor time, peak resident memory. Both ratios are printed, since the clock
alone is unfair on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_ray.config import WikidataConfig
from bioelx_ray.kb.readers.wikidata import Seen, read_entities
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import plan_splits, read_chunks
from bioelx_ray.records import Alias, Concept
from tests.benchmarks import wikidata_baselines

SPLITS = 8
_SELF = [sys.executable, "-m", "tests.benchmarks.harvest_wikidata", "--read"]
_BASELINES = Path(wikidata_baselines.__file__)


@dataclass(frozen=True, slots=True)
class Run:
    """What a process took, and what it printed."""

    seconds: float
    processor: float
    mib: float
    printed: str


def timed(*command: str) -> Run:
    """Run a command to its end; what it unpacks is thrown away.

    Raises:
        SystemExit: it failed.
    """
    is_unpacker = command[0] in ("gzip", "bzip2")
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL if is_unpacker else subprocess.PIPE, text=True
    ) as process:
        printed = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed.strip())


def read(path: Path, part: int, parts: int) -> None:
    """Read every `parts`-th split, as a worker does, and print the digest of its aliases."""
    splits = plan_splits(path, split_bytes=-(-path.stat().st_size // SPLITS))
    items, names, checksum = wikidata_baselines.digest(
        named for split in splits[part::parts] for named in _named(read_chunks(split))
    )
    sys.stdout.write(f"{items} {names} {checksum}\n")


def _named(chunks) -> Iterator[wikidata_baselines.Named]:
    """The names of each item, whose concept comes before its aliases."""
    item, names = "", set()
    records = read_entities(
        chunks, origin="dump", rejects=Rejects(), config=WikidataConfig(), seen=Seen()
    )
    for record in records:
        if isinstance(record, Concept):
            if item:
                yield item, names
            item, names = record.id.partition(":")[2], set()
        elif isinstance(record, Alias):
            names.add(record.text)
    if item:
        yield item, names


def in_parallel(path: Path, parts: int) -> Run:
    """What `parts` processes take together, each with its share of the splits."""
    begin = time.perf_counter()
    processes = [
        subprocess.Popen([*_SELF, str(path), str(n), str(parts)], stdout=subprocess.DEVNULL)
        for n in range(parts)
    ]
    processor = mib = 0.0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit("a worker failed")
        processor += usage.ru_utime + usage.ru_stime
        mib += usage.ru_maxrss / 1024
    return Run(time.perf_counter() - begin, processor, mib, "")


def report(name: str, run: Run, base: Run | None = None, *, faster: bool = False) -> None:
    """Print a run, and its ratio to another (of `faster`, how many times as fast it is)."""
    line = f"{name:<34}{run.seconds:8.2f} s {run.processor:8.2f} s cpu {run.mib:7.0f} MiB"
    if base:
        ratios = run.seconds / base.seconds, run.processor / base.processor
        if faster:
            ratios = 1 / ratios[0], 1 / ratios[1]
        line += f"   x {ratios[0]:.2f} by the clock, x {ratios[1]:.2f} of processor time"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def compare_gzip(path: Path, qwikidata: str | None) -> Run:
    """The reader beside gzip, and other readers beside the reader."""
    unpacked = timed("gzip", "-dc", str(path))
    report("gzip -dc", unpacked)
    ours = timed(*_SELF, str(path), "0", "1")
    report("read .json.gz / gzip -dc", ours, unpacked)
    others = {"json": sys.executable} | ({"qwikidata": qwikidata} if qwikidata else {})
    for kind, python in others.items():
        keys = ",".join(WikidataConfig().properties)
        other = timed(python, str(_BASELINES), kind, str(path), keys)
        report(f"{kind} / read .json.gz", other, ours)
        if other.printed != ours.printed:
            raise SystemExit(f"{kind} found {other.printed}, the reader {ours.printed}")
    sys.stdout.write(f"all found the same: entities, aliases, checksum {ours.printed}\n")
    return ours


def compare_bzip2(path: Path) -> None:
    """The reader beside bzip2, and two of it beside one."""
    unpacked = timed("bzip2", "-dc", str(path))
    report("bzip2 -dc", unpacked)
    one = timed(*_SELF, str(path), "0", "1")
    report("read .json.bz2 / bzip2 -dc", one, unpacked)
    report("one process / two (faster)", in_parallel(path, 2), one, faster=True)


def dump_of(directory: Path, size: float, suffix: str) -> Path:
    """The dump of a size, written if it is not there."""
    path = directory / f"wikidata-{size:.0e}{suffix}"
    if not path.exists():
        # Not here: a process begins with the peak memory of the one that starts it.
        writer = [sys.executable, "-m", "tests.benchmarks.wikidata_dump", str(path)]
        subprocess.run([*writer, "--bytes", str(size)], check=True)
    return path


def main() -> None:
    """Compare, or with --read be one of the processes that are compared."""
    parser = argparse.ArgumentParser(description="Time the reading of a Wikidata dump.")
    parser.add_argument("--bytes", type=float, default=1e9, help="unpacked")
    parser.add_argument("--other-bytes", type=float, help="of a second file, to compare memory")
    parser.add_argument("--directory", type=Path, default=Path())
    parser.add_argument("--qwikidata", metavar="PYTHON")
    parser.add_argument("--read", nargs=3, metavar=("FILE", "PART", "PARTS"))
    options = parser.parse_args()
    if options.read:
        path, part, parts = options.read
        read(Path(path), int(part), int(parts))
        return
    first = compare_gzip(dump_of(options.directory, options.bytes, ".json.gz"), options.qwikidata)
    if options.other_bytes:
        path = dump_of(options.directory, options.other_bytes, ".json.gz")
        other = timed(*_SELF, str(path), "0", "1")
        report(f"read .json.gz of {options.other_bytes:.0e} bytes", other, first)
    compare_bzip2(dump_of(options.directory, options.bytes, ".json.bz2"))


if __name__ == "__main__":
    main()
