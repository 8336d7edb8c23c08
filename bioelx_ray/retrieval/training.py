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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from bioelx_ray.config import TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval.batches import Batch, Batches
from bioelx_ray.retrieval.collectives import place
from bioelx_ray.retrieval.keeping import Keeper
from bioelx_ray.retrieval.loss import make_loss
from bioelx_ray.retrieval.metrics_log import MetricsLog
from bioelx_ray.retrieval.mining import miner
from bioelx_ray.retrieval.schedule import evaluates_after, rate, saves_after, windows
from bioelx_ray.retrieval.step import backward
from bioelx_ray.retrieval.token_store import TokenStore
from bioelx_ray.retrieval.train_state import TrainState, run_name, seed_everything
from bioelx_ray.retrieval.watch import Pace, Told, Watch

__all__ = ["Told", "Trained", "Watch", "train"]

NAN_BATCH = "nan_batch.json"
_SKIPPED_AT_MOST = 25
"""Steps in a row that the scaler of fp16 may leave out; it halves its scale at each of them."""

_log = logging.getLogger(__name__)


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
        group: the workers; by default all where torch.distributed is initialised.
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
        rank, world = place(group)
        self.batches = Batches(store, config, rank=rank, world=world)
        self.state = TrainState(module, config)
        name = run_name(module, config, data=store.fingerprint)
        self.keeper = Keeper(self.state, name=name, workdir=workdir, watch=watch, group=group)
        self.loss = make_loss(config.loss)
        self.mine = miner(store, config=config, group=group) if config.negatives.every else None
        compiled: Any = torch.compile(module, dynamic=True) if config.compile else module
        self.forward: torch.nn.Module = compiled
        self.skipped = 0

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        standing = self.state.standing
        return standing.stopped or standing.step >= self.batches.steps

    def resume(self) -> None:
        """Go to the newest sound checkpoint, if there is one."""
        if (step := self.keeper.resume()) is not None:
            _log.info("going on at step %d of %d", step, self.batches.steps)

    def run(self) -> None:
        """Take the steps that are left."""
        begun, steps = self.state.standing.step, self.batches.steps
        with contextlib.ExitStack() as stack:
            if self.keeper.rank == 0:
                self.keeper.log = stack.enter_context(MetricsLog(self.workdir, after=begun))
            if self.watch.dev and self.state.standing.best is None:
                self.keeper.settle(evaluates=True, saves=False)
            pace = Pace()
            for first, end in windows(begun, steps, every=self.config.negatives.every):
                self._mine(first, end)
                pace.go_on()
                batches = self.batches.between(first, end, self.state.negatives)
                for batch in stack.enter_context(contextlib.closing(batches)):
                    figures = self._step(batch) | pace.lap(len(batch.rows))
                    self.keeper.write(batch.step + 1, figures)
                    self._after(batch, figures)
                    if self.is_over:
                        return
                    pace.go_on()

    def finish(self) -> Trained:
        """Take the best weights."""
        steps = self.state.standing.step
        standing = self.keeper.take_best()
        self.state.module.eval()
        step = steps if standing.best is None else standing.best
        return Trained(step=step, steps=steps, dev=standing.dev, stopped=standing.stopped)

    def _mine(self, first: int, end: int) -> None:
        """Mine for the steps from `first` to before `end`, unless a checkpoint brought it along."""
        if self.mine and first % self.config.negatives.every == 0:
            pairs = np.concatenate([self.batches.rows(step) for step in range(first, end)])
            _log.info("mining hard negatives for %d pairs at step %d", len(pairs), first)
            self.state.negatives = self.mine(self.state.module, pairs, first)

    def _step(self, batch: Batch) -> dict[str, float]:
        config, state = self.config, self.state
        state.module.train()
        seed_everything(config.seed, batch.step, rank=self.keeper.rank)
        done = backward(
            self.forward,
            batch.texts,
            batch.labels,
            loss=self._scaled,
            config=config,
            group=self.group,
        )
        loss = done.loss / state.scaler.get_scale()
        lr = config.lr * rate(batch.step, self.batches.steps, warmup=config.warmup)
        norm = state.update(lr)
        self.skipped = self.skipped + 1 if state.scaler.is_enabled() and not isfinite(norm) else 0
        if not isfinite(loss) or (not isfinite(norm) and not 0 < self.skipped < _SKIPPED_AT_MOST):
            self._stop_at(batch, loss=loss, norm=norm)
        return {
            "loss": loss,
            "lr": lr,
            "gradient_norm": norm,
            "tokens": done.tokens,
            "padded_tokens": done.padded_tokens,
        }

    def _scaled(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.state.scaler.scale(self.loss(embeddings, labels))
        return scaled

    def _stop_at(self, batch: Batch, *, loss: float, norm: float) -> NoReturn:
        path = self.workdir / NAN_BATCH
        if self.keeper.rank == 0:
            store, rows = self.batches.store, batch.rows
            said = self.watch.describe(rows) if self.watch.describe else [{} for _ in rows]
            ids = [[store.text(side).tolist() for side in store.sides[row]] for row in rows]
            pairs = [
                {"row": int(row), "ids": own, **what}
                for row, own, what in zip(rows, ids, said, strict=True)
            ]
            content = {"step": batch.step + 1, "loss": str(loss), "gradient_norm": str(norm)}
            with path.open("w", encoding="utf-8") as handle:
                json.dump(content | {"pairs": pairs}, handle, ensure_ascii=False, indent=1)
        raise TrainingError(
            f"step {batch.step + 1} has loss {loss} and a gradient of norm {norm}: its pairs are "
            f"in {path}; a lower train.lr, train.clip or train.precision fp32 may help"
        )

    def _after(self, batch: Batch, figures: Mapping[str, float]) -> None:
        state, steps = self.state, self.batches.steps
        state.standing = replace(state.standing, step=batch.step + 1)
        saved = self.keeper.settle(
            evaluates=bool(self.watch.dev) and evaluates_after(batch.step, steps, self.config),
            saves=saves_after(batch.step, steps, self.config),
            is_last=state.standing.step >= steps,
        )
        rate_now = figures["pairs_per_second"]
        left = (steps - batch.step - 1) * self.config.batch_pairs / rate_now
        self.watch.report(
            Told(
                step=batch.step + 1,
                steps=steps,
                seconds_left=left,
                dev=self.keeper.found,
                saved=saved,
                **{name: figures[name] for name in _TOLD},
            )
        )


_TOLD = ("loss", "lr", "gradient_norm", "pairs_per_second")
