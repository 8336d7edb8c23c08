"""Sources into a knowledge base: plan, read in parts, merge.

::

    plan(specs)  ->  tasks          what one worker reads: a split of a dump, or a small file
    run_task     ->  parts          on disk, each whole or not there (`parts`)
    merge_parts  ->  kb             joined, de-duplicated, sorted (`merge`)

Tasks are independent, and a task that is done is not done again: so one process, several, and Ray
(`jobs/harvest.py`) give the same bytes, interrupted or not.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from bioelx_ray.artifacts import (
    Artifact,
    Manifest,
    code_version,
    file_fingerprint,
    locked,
    publish,
    sha256_json,
)
from bioelx_ray.config import HarvestConfig
from bioelx_ray.errors import InputError, TooManyRejects
from bioelx_ray.kb import parts
from bioelx_ray.kb.merge import SourceParts, merge
from bioelx_ray.kb.parts import Figures, PartWriter, read_figures
from bioelx_ray.kb.readers.reading import Reading, groups, plan_readings, read
from bioelx_ray.kb.rejects import Rejects, load_rejects
from bioelx_ray.kb.sources import SourceSpec
from bioelx_ray.kb.stored.pieces import TRUNCATED

Progress = Callable[[str, int, int], None]
"""Told the step, and how much of it is done and in all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one worker reads. Its parts lie in ``work/home``, numbered from `number`-00000."""

    source: str
    home: str
    number: int
    reading: Reading

    def part(self, work: Path, index: int) -> Path:
        """The directory of its part number `index`."""
        return work / self.home / f"{self.number:05}-{index:05}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that must be read, in order, and the fingerprint of each source's bytes by its name."""

    tasks: list[Task]
    inputs: dict[str, str]

    @property
    def stored_bytes(self) -> int:
        """The size of what is read, as stored."""
        return sum(task.reading.size for task in self.tasks)


def build_kb(
    target: Path,
    sources: Sequence[SourceSpec],
    *,
    config: HarvestConfig | None = None,
    workers: int = 1,
    work: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Artifact:
    """Read the sources with `workers` processes, merge them and publish them as `target`.

    Of sources that differ about a concept the earlier wins. What is read is kept beside the target
    until it is published, so that an interrupted build goes on; with `work` it is kept there for
    good, and a later build reads only sources that are new or have changed. On an error nothing new
    stands under `target`, and what stood there before still does.

    Raises:
        TooManyRejects: a source has more bad rows than the share; they are listed in
            ``<target>.rejects.jsonl``.
        InputError: no source, one given twice, or one that cannot be read or holds nothing.
        ArtifactError: the disk is full, or cannot be written.
    """
    settings = config or HarvestConfig()
    home = work or parts_beside(target)
    planned = plan(sources, settings)
    with locked(target), locked(work) if work else nullcontext():
        run_tasks(planned, home, config=settings, workers=workers, progress=progress)
        built = merge_parts(target, sources, planned, work=home, config=settings, progress=progress)
        if work is None:
            shutil.rmtree(home, ignore_errors=True)
    return built


def parts_beside(target: Path) -> Path:
    """Where what is read is kept until the knowledge base is published."""
    return target.with_name(f".{target.name}.parts")


def plan(sources: Sequence[SourceSpec], config: HarvestConfig) -> Plan:
    """The tasks of some sources.

    Raises:
        InputError: no source, one given twice, or one that cannot be read.
    """
    if not sources:
        raise InputError("no source to build a knowledge base from; name at least one")
    names = Counter(spec.source.name for spec in sources)
    if twice := [name for name, n in names.items() if n > 1]:
        raise InputError(f"source given twice: {', '.join(twice)}; name each once")
    tasks, inputs = [], {}
    for spec in sources:
        prints = [file_fingerprint(path) for path in spec.files]
        inputs[spec.source.name] = prints[0] if len(prints) == 1 else sha256_json(prints)
        made_by = [parts.FORMAT, code_version(), spec.kind, spec.source.name, prints]
        home = sha256_json([*made_by, config.model_dump(include=_READING_SETTINGS)])[:24]
        tasks += [
            Task(source=spec.source.name, home=home, number=number, reading=reading)
            for number, reading in enumerate(plan_readings(spec, split_bytes=config.split_bytes))
        ]
    return Plan(tasks=tasks, inputs=inputs)


_READING_SETTINGS = {"wikidata", "umls", "machine_translations", "split_bytes"}


def run_tasks(
    planned: Plan, work: Path, *, config: HarvestConfig, workers: int, progress: Progress
) -> None:
    """Do the tasks that are not done yet.

    Raises:
        InputError: a source cannot be read, or a worker was killed.
        ArtifactError: `work` cannot be written.
    """
    done = 0
    for task in _finished(planned, work, config=config, workers=workers):
        done += task.reading.size
        progress("read", done, planned.stored_bytes)


def _finished(planned: Plan, work: Path, *, config: HarvestConfig, workers: int) -> Iterator[Task]:
    if workers == 1:
        for task in planned.tasks:
            run_task(task, work, config)
            yield task
        return
    # spawned: a fork of a process with threads (Arrow's, DuckDB's) can hang
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        running = {pool.submit(run_task, task, work, config): task for task in planned.tasks}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BrokenProcessPool as error:
            raise InputError(
                "a worker was killed, perhaps for want of memory; run again, with fewer workers: "
                "what is finished is kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for good."""

    def wait() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    Thread(target=wait, name="parent", daemon=True).start()


def run_task(task: Task, work: Path, config: HarvestConfig) -> None:
    """Write the parts of a task that are not there yet.

    Raises:
        InputError: the source cannot be read.
        ArtifactError: `work` cannot be written.
    """
    index, figures = 0, Figures(last=False)
    while (done := read_figures(task.part(work, index))) is not None:
        index, figures = index + 1, done
    if figures.last and index:
        return
    for group in groups(task.reading, resume_at=figures.end, limit=config.split_bytes):
        with PartWriter(task.part(work, index)) as writer:
            records = read(
                task.reading, group, origin=task.source, rejects=writer.rejects, config=config
            )
            writer.add_all(records)
            group.tell(writer.figures)
        index += 1


def merge_parts(
    target: Path,
    sources: Sequence[SourceSpec],
    planned: Plan,
    *,
    work: Path,
    config: HarvestConfig,
    progress: Progress = lambda *_: None,
) -> Artifact:
    """Merge what `run_task` has written, and publish it.

    Raises:
        TooManyRejects: a source has more bad rows than the share.
        InputError: a source holds nothing.
        ArtifactError: a part is missing, or the disk is full.
    """
    aside = target.with_name(f"{target.name}.rejects.jsonl")
    aside.unlink(missing_ok=True)  # an earlier build's would be taken for this one's
    rejects = Rejects()
    inputs = [_source_parts(spec, planned, work) for spec in sources]
    for spec, source in zip(sources, inputs, strict=True):
        _check(spec, source, rejects, config=config, aside=aside)
    if not any(map(_records, inputs)):
        names = ", ".join(source.name for source in inputs)
        raise InputError(f"{names}: holds nothing; expected at least one concept with a name")
    manifest = Manifest(
        kind="kb",
        code_version=code_version(),
        config=config.model_dump(mode="json", exclude={"memory_mib", "split_bytes"}),
        inputs=planned.inputs,
        sources=[spec.source for spec in sources],
    )
    with publish(target, manifest) as draft:
        counts = merge(inputs, draft, config=config, progress=progress)
        manifest.counts = {**counts, **_reading_counts(inputs)}
        if len(rejects):
            rejects.write(draft)
    return Artifact(path=target, manifest=manifest)


def _source_parts(spec: SourceSpec, planned: Plan, work: Path) -> SourceParts:
    found: list[Path] = []
    figures: list[Figures] = []
    for task in planned.tasks:
        if task.source != spec.source.name:
            continue
        last = False
        index = 0
        while not last:
            part = task.part(work, index)
            read_ = read_figures(part)
            if read_ is None:
                raise InputError(f"{part} is missing: read {task.source} again")
            found.append(part)
            figures.append(read_)
            last, index = read_.last, index + 1
    return SourceParts(name=spec.source.name, parts=found, figures=figures)


def _check(
    spec: SourceSpec, source: SourceParts, rejects: Rejects, *, config: HarvestConfig, aside: Path
) -> None:
    """Refuse a source of which too much is bad, or nothing good."""
    for part, figures in zip(source.parts, source.figures, strict=True):
        rejects.take_over(spec.source.name, load_rejects(part), figures.rejected)
    rows = sum(figures.rows for figures in source.figures)
    size = sum(path.stat().st_size for path in spec.files)
    lost = sum(figures.lost_bytes for figures in source.figures)
    if lost > config.max_reject_share * size:
        rejects.write_file(aside)
        raise TooManyRejects(
            f"{source.name}: {lost:,} of {size:,} bytes cannot be unpacked; see {aside}. Fetch the "
            "file again, or allow a larger share of rejects"
        )
    bad = rejects.count(source.name)
    rejects.check(source.name, total=max(rows, bad), max_share=config.max_reject_share, aside=aside)
    if TRUNCATED in rejects.by_reason(source.name):
        raise InputError(
            f"{source.name} ends too early: nothing tells how much is missing. Fetch it again"
        )
    if (rows or (spec.kind in _MUST_GIVE and size)) and not _found(spec, source):
        raise InputError(
            f"{source.name}: holds nothing that can be used, of {rows:,} rows; look at the file, "
            "and at the settings of the harvest"
        )
    aliases = sum(figures.aliases for figures in source.figures)
    _log.info("read %s: %d aliases, %d rejects", source.name, aliases, rejects.count(source.name))


def _found(spec: SourceSpec, source: SourceParts) -> int:
    """Records of the kind that the source is there for."""
    if spec.kind in ("sssom", "xrefs"):
        return _records(source)
    return sum(figures.aliases for figures in source.figures)


_MUST_GIVE = ("obo", "wikidata", "umls")
"""Kinds of which a file that is not empty has rows; a table may be its header alone."""


def _records(source: SourceParts) -> int:
    return sum(figures.records for figures in source.figures)


def _reading_counts(inputs: Sequence[SourceParts]) -> dict[str, dict[str, int]]:
    totals: dict[str, Counter[str]] = {
        name: Counter() for name in ("rejected", "dropped", "left_out")
    }
    for source in inputs:
        for figures in source.figures:
            for name, total in totals.items():
                total.update(getattr(figures, name))
    return {name: dict(sorted(total.items())) for name, total in totals.items()}


def summary(built: Artifact) -> str:
    """What was built, in a line."""
    counts = built.manifest.counts
    return (
        f"{built.path}: {counts['concepts']:,} concepts, {counts['aliases']:,} aliases in "
        f"{len(counts['languages'])} languages; {counts['unified']:,} concepts joined, "
        f"{sum(counts['dropped'].values()):,} texts that are no names left out, "
        f"{sum(counts['rejected'].values()):,} rows rejected"
    )
