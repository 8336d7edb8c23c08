"""How a training is looked at: what it tells, what it asks, and how fast it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
    saved: bool = False


def _silent(_: Told) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is looked at: none of it changes what is learned, but for early stopping.

    Both are called on all workers at the same steps, `report` after every one; of what `dev` finds
    the first worker's counts.
    """

    dev: Develop | None = None
    report: Callable[[Told], None] = _silent
    describe: Describe | None = None


_RECENT = 50
"""Steps over which a rate is measured."""


class Pace:
    """How fast steps are taken, evaluations and checkpoints not counted."""

    def __init__(self) -> None:
        self._laps: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._begun = time.monotonic()

    def lap(self, pairs: int) -> dict[str, float]:
        """The seconds of a step that has just ended, and the rate of the last ones."""
        seconds = time.monotonic() - self._begun
        self._laps.append((pairs, seconds))
        pairs_in_all, all_seconds = map(sum, zip(*self._laps, strict=True))
        return {"pairs_per_second": pairs_in_all / all_seconds, "seconds": seconds}

    def go_on(self) -> None:
        """The next step begins."""
        self._begun = time.monotonic()
