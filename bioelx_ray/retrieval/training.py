"""Alias training: the loop, in one process or in several that work on one batch together.

::

    store = open_store(pairs, tokens, prefix=prefix, home=work, progress=progress)
    trained = train(module, store, config=config, workdir=work / "run", watch=Watch(dev=dev))

A run is decided by its pairs, its first weights and its settings. It can be killed at any time: the
next call with the same work directory goes on at the newest sound checkpoint, with any number of
workers, and in the same process count ends with the same bits. A run that is over returns at once.

The work directory must be one that all workers see. It holds the checkpoints, ``metrics.jsonl``,
``curve.svg`` and, after numbers that are not finite, ``nan_batch.json``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from bioelx_ray.config import TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval import checkpoints
from bioelx_ray.retrieval.batches import Batch, Batches
from bioelx_ray.retrieval.curve import draw
from bioelx_ray.retrieval.loss import Loss, make_loss
from bioelx_ray.retrieval.metrics_log import METRICS, MetricsLog, read_metrics
from bioelx_ray.retrieval.schedule import evaluates_after, rate, saves_after
from bioelx_ray.retrieval.step import backward
from bioelx_ray.retrieval.token_store import TokenStore
from bioelx_ray.retrieval.train_state import Standing, TrainState, run_name, seed_everything

CURVE = "curve.svg"
NAN_BATCH = "nan_batch.json"
_SKIPPED_AT_MOST = 25
"""Steps in a row that the scaler of fp16 may leave out; it halves its scale at each of them."""

_log = logging.getLogger(__name__)

Develop = Callable[[torch.nn.Module], Mapping[str, float]]
"""Recall@1 by language, of a module in evaluation mode."""

Describe = Callable[[NDArray[np.int64]], list[dict[str, Any]]]
"""Rows of the pairs -> what they say, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A step that is done, as every worker is told of it. `step` counts from 1.

    `dev` is there after an evaluation, `saved` is true after a checkpoint.
    """

    step: int
    steps: int
    loss: float
    lr: float
    gradient_norm: float
    pairs_per_second: float
    seconds_left: float
    dev: Mapping[str, float] | None = None
    mean: float | None = None
    saved: bool = False


def _silent(_: Told) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is looked at: none of it changes what is learned, but for early stopping.

    `dev` is called on the first worker only, `report` on all of them after every step.
    """

    dev: Develop | None = None
    report: Callable[[Told], None] = _silent
    describe: Describe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training that is over. The module holds the weights of the best step.

    `step` is that step and `dev` its Recall@1 by language; without evaluations it is the last one.
    `steps` were taken in all, `stopped` before the last since nothing was gained any more.
    """

    step: int
    steps: int
    dev: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False


def train(
    module: torch.nn.Module,
    store: TokenStore,
    *,
    config: TrainConfig,
    workdir: Path,
    group: dist.ProcessGroup | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train those parameters of a module that want a gradient, in place.

    Args:
        module: see `torch_engine.Pooled`; the same weights on all workers, on their devices.
        store: the pairs.
        config: what to learn, and how.
        workdir: of this run alone.
        group: the workers; None for one process.
        watch: evaluation and reports.

    Raises:
        TrainingError: the loss or a gradient is not finite, the work directory is another run's, or
            the last checkpoint cannot be written.
    """
    loop = _Loop(module, store, config, workdir=workdir, group=group, watch=watch or Watch())
    loop.resume()
    if not loop.is_over:
        loop.run()
    return loop.finish()


class _Loop:
    """One run on one worker."""

    def __init__(
        self,
        module: torch.nn.Module,
        store: TokenStore,
        config: TrainConfig,
        *,
        workdir: Path,
        group: dist.ProcessGroup | None,
        watch: Watch,
    ) -> None:
        self.config, self.workdir, self.group, self.watch = config, workdir, group, watch
        self.rank = dist.get_rank(group) if group else 0
        world = dist.get_world_size(group) if group else 1
        self.name = self._agreed(run_name(module, config, data=store.fingerprint), "first weights")
        self.batches = Batches(store, config, rank=self.rank, world=world)
        self.state = TrainState(module, config)
        self.loss = make_loss(config.loss)
        compiled: Any = torch.compile(module, dynamic=True) if config.compile else module
        self.forward: torch.nn.Module = compiled
        self.log: MetricsLog | None = None
        self.skipped = 0

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        standing = self.state.standing
        return standing.stopped or standing.step >= self.batches.steps

    def resume(self) -> None:
        """Go to the newest sound checkpoint, if there is one."""
        found = checkpoints.newest(self.workdir) if self.rank == 0 else None
        step = self._from_first(found.step if found else None)
        if step is not None:
            self.state.unpack(found or self._loaded(step), self.name)
            _log.info("going on at step %d of %d", step, self.batches.steps)

    def run(self) -> None:
        """Take the steps that are left."""
        self.state.module.train()
        started = self.state.standing.step
        with contextlib.ExitStack() as stack:
            if self.rank == 0:
                self.log = stack.enter_context(MetricsLog(self.workdir, after=started))
            if self.watch.dev and self.state.standing.best is None:
                self._evaluate()
            pace = _Pace(self.batches.steps)
            stack.callback(batches := self.batches.after(started), None) if False else None
            for batch in batches:
                told = pace.told(batch, self._step(batch))
                self._after(batch.step, told)
                pace.go_on()
                if self.is_over:
                    break

    def _after(self, step: int, told: Told) -> None: ...
