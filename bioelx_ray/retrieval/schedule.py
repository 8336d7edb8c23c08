"""When a training does what, and how fast it learns. Steps count from 0."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from bioelx_ray.config import TrainConfig


def rate(step: int, steps: int, *, warmup: float) -> float:
    """The share of the learning rate for a step, above 0 and at most 1.

    It rises linearly over the share `warmup` of the steps, then falls linearly towards 0, which it
    would reach one step behind the last.
    """
    rising = ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)


def evaluates_after(step: int, steps: int, config: TrainConfig) -> bool:
    """Whether a step is followed by an evaluation; the last one always is."""
    return step + 1 == steps or (step + 1) % config.evaluate_every == 0


def saves_after(step: int, steps: int, config: TrainConfig) -> bool:
    """Whether a step is followed by a checkpoint; the last one always is."""
    return step + 1 == steps or (step + 1) % config.save_every == 0


def windows(step: int, steps: int, *, every: int) -> Iterator[tuple[int, int]]:
    """Spans of steps, each from its first to before its end, cut where `every` divides a step."""
    while step < steps:
        end = min(steps, (step // every + 1) * every) if every else steps
        yield step, end
        step = end
