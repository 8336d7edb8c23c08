"""What a training does beside its steps: it evaluates, writes its log, and saves.

All workers do it together; only the first one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval import checkpoints
from bioelx_ray.retrieval.collectives import place
from bioelx_ray.retrieval.curve import draw
from bioelx_ray.retrieval.metrics_log import METRICS, MetricsLog, read_metrics
from bioelx_ray.retrieval.train_state import Standing, TrainState
from bioelx_ray.retrieval.watch import Watch

CURVE = "curve.svg"

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Keeper:
    """Of one worker. `name` is the run's, `log` the first worker's while steps are taken.

    `found` is what the last call of `settle` found, None if it did not evaluate.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        name: str,
        workdir: Path,
        watch: Watch,
        group: dist.ProcessGroup | None,
    ) -> None:
        self.state, self.name, self.workdir, self.watch = state, name, workdir, watch
        self.rank, self.world = place(group)
        self._group = group
        self.log: MetricsLog | None = None
        self.found: Mapping[str, float] | None = None

    def resume(self) -> int | None:
        """Go to the newest sound checkpoint and give its step, None if there is none.

        Raises:
            TrainingError: the workers differ in what they are to do, or in what they see.
        """
        if len(set(self._from_all(self.name))) > 1:
            raise TrainingError("the workers start from other weights, pairs or settings")
        found = checkpoints.newest(self.workdir) if self.rank == 0 else None
        step = self._from_first(found.step if found else None)
        if step is None:
            return None
        found = found or checkpoints.load(self.workdir, step)
        blind = [rank for rank, there in enumerate(self._from_all(found is not None)) if not there]
        if found is None or blind:
            raise TrainingError(
                f"{self.workdir}: the workers {blind} do not see the checkpoint of step {step}, "
                "the first does: the work directory must be on a volume that all mount"
            )
        self.state.unpack(found, self.name)
        return step

    def settle(self, *, evaluates: bool, saves: bool, is_last: bool = False) -> bool:
        """Evaluate and save where it is time to; give whether there is a checkpoint now.

        The best weights so far are always saved, for the end; where they cannot be, the former
        best ones stay the best.

        Raises:
            TrainingError: the run is over, and its end cannot be saved.
        """
        state = self.state
        before = state.standing
        self.found = None
        if evaluates:
            self.found, state.standing = self._from_first(self._evaluated())
        is_best = evaluates and state.standing.best == before.step
        is_over = is_last or state.standing.stopped
        if not (saves or is_best or is_over):
            return False
        saved = self._from_first(self.rank == 0 and self._save())
        if not saved and is_over:
            raise TrainingError(
                f"{self.workdir}: the last checkpoint cannot be written: make room and start the "
                "training again; it goes on at the one before"
            )
        if not saved and is_best:
            state.standing = before
        return saved

    def take_best(self) -> Standing:
        """Take the weights of the best step, where they are not lost; draw the curve."""
        standing = self.state.standing
        if standing.best is not None and standing.best != standing.step:
            if found := checkpoints.load(self.workdir, standing.best):
                self.state.take_weights(found.state["weights"])
            else:
                _log.warning(
                    "the best weights, of step %d, are lost: these are of step %d",
                    standing.best,
                    standing.step,
                )
                standing = replace(standing, best=standing.step, dev={})
        self._draw()
        return standing

    def write(self, step: int, figures: Mapping[str, object]) -> None:
        """Write a line of the log."""
        if self.log:
            self.log.write(step, figures)

    def _evaluated(self) -> tuple[Mapping[str, float], Standing]:
        """What an evaluation finds, and the standing after it."""
        state, dev = self.state, self.watch.dev
        before = state.standing
        state.module.eval()
        with torch.no_grad():
            by_lang = dict(dev(state.module)) if dev else {}
        mean = sum(by_lang.values()) / max(1, len(by_lang))
        self.write(before.step, {"dev": by_lang, "mean": mean})
        self._draw()
        if before.mean is None or mean > before.mean:
            return by_lang, replace(before, best=before.step, mean=mean, dev=by_lang, stale=0)
        stale = before.stale + 1
        patience = state.config.patience
        return by_lang, replace(before, stale=stale, stopped=bool(patience) and stale >= patience)

    def _save(self) -> bool:
        standing = self.state.standing
        try:
            checkpoints.save(
                self.workdir, standing.step, self.state.pack(self.name), best=standing.best
            )
        except OSError as error:
            _log.warning("no checkpoint at step %d: %s", standing.step, error)
            return False
        return True

    def _draw(self) -> None:
        if self.rank == 0:
            draw(self.workdir / CURVE, read_metrics(self.workdir / METRICS))

    def _from_all(self, value: _Value) -> list[_Value]:
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value, group=self._group)
        return values

    def _from_first(self, value: _Value) -> _Value:
        """What the first worker passes; a barrier."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        return box[0]
