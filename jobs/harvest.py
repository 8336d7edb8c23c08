#!/usr/bin/env python
"""Sources into a knowledge base on Ray: what `bioelx harvest` does, with all cores of a cluster.

::

    ray job submit --working-dir . -- python jobs/harvest.py hpo /data/d.json.bz2 --out /data/kb

Ray Data reads the splits, a worker a split; one worker merges. Sources, `--work` and `--out` must
lie on a volume that all nodes mount.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated

import ray
import typer

from bioelx_ray.artifacts import Artifact
from bioelx_ray.config import HarvestConfig, load_config
from bioelx_ray.console import results, showing_progress
from bioelx_ray.kb.harvest import Plan, merge_parts, parts_beside, plan, run_task, summary
from bioelx_ray.kb.packaged import parse_sources
from bioelx_ray.kb.sources import SourceSpec
from jobs.session import run, session, shared


def main(
    sources: Annotated[list[str], typer.Argument(help="As `bioelx harvest` takes them.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The directory to publish.")],
    work: Annotated[
        Path | None, typer.Option("--work", help="Keep what is read there, for later updates.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in YAML.")] = None,
) -> None:
    """Build a knowledge base from sources; of sources that differ the earlier wins."""
    with session("harvest"):
        settings = load_config(config).harvest
        target = shared(out)
        specs = [_shared(spec) for source in sources for spec in parse_sources(source)]
        home = shared(work) if work else parts_beside(target)
        planned = plan(specs, settings)
        read_all(planned, home, settings)
        merging = ray.remote(merge_parts).remote(target, specs, planned, work=home, config=settings)
        built: Artifact = ray.get(merging)
        if work is None:
            shutil.rmtree(home, ignore_errors=True)
        results.print(summary(built), highlight=False, markup=False, soft_wrap=True)


def read_all(planned: Plan, work: Path, config: HarvestConfig) -> None:
    """Do all tasks with Ray Data; those that are done cost nothing."""
    tasks = planned.tasks

    def read(row: dict[str, int]) -> dict[str, int]:
        task = tasks[row["id"]]
        run_task(task, work, config)
        return {"bytes": task.reading.size}

    ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts bytes
    done = 0
    with showing_progress() as progress:
        for row in ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(read).iter_rows():
            done += row["bytes"]
            progress("read", done, planned.stored_bytes)


def _shared(spec: SourceSpec) -> SourceSpec:
    return dataclasses.replace(spec, path=shared(spec.path))


if __name__ == "__main__":
    run(main)
