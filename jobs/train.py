#!/usr/bin/env python
"""Alias training on Ray Train: pairs into an adapter, or into a model's directory.

::

    ray job submit --working-dir . -- python jobs/train.py /data/pairs --dev /data/dev \
        --config jobs/full.yaml --encoder /data/xlm-roberta-large --out /data/encoder

Pairs, `--dev`, `--work`, `--out` and a local encoder must lie on a volume that all nodes mount.

What Ray Train does: it starts the workers with their devices, makes them a process group, and
starts them anew if one is lost or, with ``--workers 1-4``, if nodes come or go. Its checkpoints are
not used. Ours are written once, in place, on the volume that the pairs are read from; Ray would
copy each of them again, knows no checksum, and takes over the last one that was reported, sound or
not. The loop finds the newest sound one by itself, so that a worker, a job or a whole cluster that
was lost makes no difference.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import ray
import torch
import typer
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from bioelx_ray.config import load_config
from bioelx_ray.console import results
from bioelx_ray.errors import ConfigError, TrainingError
from bioelx_ray.retrieval.tune import Form, Order, checked, run_name, tune
from bioelx_ray.retrieval.watch import Told
from jobs.session import run, session, shared

_FAILURES = 3
"""Losses of a worker that a run survives; nodes that are taken away on notice do not count."""
_WORKERS_ON_CPUS = 8
_PATIENCE_SECONDS = 7200
"""How long workers wait for one another: one of them may be making the token store."""


def main(  # noqa: PLR0913  # a command's options are its arguments
    pairs: Annotated[Path, typer.Argument(help="Made by `bioelx pairs`.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The directory to publish.")],
    dev: Annotated[
        Path | None, typer.Option("--dev", help="Held-out aliases that measure the progress.")
    ] = None,
    kb: Annotated[
        Path | None, typer.Option("--kb", help="What the pairs are from; for hard negatives.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in YAML.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Start from it; see encoder.model.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", help="2; 1-4 as nodes come and go; 0: no Ray Train."),
    ] = None,
    use_gpu: Annotated[
        bool | None, typer.Option("--use-gpu/--no-gpu", help="By default if there is one.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--form", help="auto: a directory if all of the model is trained.")
    ] = "auto",
    work: Annotated[
        Path | None, typer.Option("--work", help="Checkpoints, metrics; beside --out by default.")
    ] = None,
) -> None:
    """Train an encoder so that the aliases of a concept meet."""
    with session("train"):
        settings = load_config(config, {"encoder.model": encoder} if encoder else None)
        target = shared(out)
        order = Order(
            pairs=shared(pairs),
            out=target,
            work=shared(work) if work else target.with_name(f".{target.name}.train"),
            dev=shared(dev) if dev else None,
            kb=shared(kb) if kb else None,
            config=settings,
            form=form,
        )
        on_gpu = bool(_resource("GPU")) if use_gpu is None else use_gpu
        results.print(distribute(checked(order), workers=workers, on_gpu=on_gpu), highlight=False)


def distribute(order: Order, *, workers: str | None, on_gpu: bool) -> str:
    """Train with Ray Train, or in this process; give the line that sums it up."""
    number = _workers(workers, on_gpu=on_gpu)
    if number == 0:
        place = torch.device("cuda" if on_gpu else "cpu")
        return tune(order, device=place)
    most = max(number) if isinstance(number, tuple) else number
    cpus = max(1, int(_resource("CPU")) // most)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"order": replace(order, threads=cpus)},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=_PATIENCE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=number,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if on_gpu else {})},
        ),
        run_config=RunConfig(
            name=run_name(order),
            storage_path=str(order.work / "ray"),
            logging_config=LoggingConfig(log_level="WARNING"),
            failure_config=FailureConfig(max_failures=_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    outcome: dict[str, str] = trainer.fit().return_value
    if "error" in outcome:
        raise TrainingError(outcome["error"])
    return outcome["line"]


def _work(given: dict[str, Order]) -> dict[str, str]:
    """A worker. What trying again would not mend is told, not raised: Ray would try again."""

    def report(told: Told) -> None:
        if told.dev is not None or told.step == told.steps:
            figures = {"step": told.step, "loss": told.loss}
            ray.train.report(figures | {"pairs_per_second": told.pairs_per_second})

    try:
        line = tune(given["order"], device=get_device(), report=report)
    except TrainingError as error:
        return {"error": str(error)}
    return {"line": line}


def _workers(text: str | None, *, on_gpu: bool) -> int | tuple[int, int]:
    """How many workers; by default one a GPU, or without GPUs one a CPU up to eight."""
    if text is None:
        return int(_resource("GPU")) if on_gpu else min(_WORKERS_ON_CPUS, int(_resource("CPU")))
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match or (match[2] and not 0 < int(match[1]) <= int(match[2])):
        raise ConfigError(f"--workers {text}: expected a number such as 2, or a range such as 1-4")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def _resource(name: str) -> float:
    return float(ray.cluster_resources().get(name, 0))


if __name__ == "__main__":
    run(main)
