"""A check of an engine's quality that needs no data of the user's: names in 26 languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.errors import EncoderError

MAX_LOSS = 0.005
"""Recall@1 that quantisation may cost; of 466 pairs, asked both ways, four answers."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class Probe(NamedTuple):
    """Names and, row by row, the English name of the same concept; no name occurs twice."""

    queries: tuple[str, ...]
    targets: tuple[str, ...]


def read_probe() -> Probe:
    """The pairs that ship with this package."""
    table = resources.files("bioelx_ray.retrieval") / "data" / "probe.tsv"
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    return Probe(tuple(row[1] for row in rows), tuple(row[2] for row in rows))


def recall_at_1(encode: Encode, probe: Probe) -> float:
    """Share of names whose nearest on the other side is their own, asked in both directions."""
    scores = encode(probe.queries) @ encode(probe.targets).T
    own = np.arange(len(scores))
    return float(np.mean([scores.argmax(axis=axis) == own for axis in (0, 1)]))


def check_loss(name: str, *, found: float, reference: float) -> None:
    """Refuse an engine whose Recall@1 is more than `MAX_LOSS` below fp32's.

    Raises:
        EncoderError: it is; both figures are in the message.
    """
    if reference - found > MAX_LOSS:
        raise EncoderError(
            f"{name} is too inexact: Recall@1 on the built-in probe {found:.2%}, fp32 has "
            f"{reference:.2%}, and at most {MAX_LOSS:.2%} may be lost; use engine torch"
        )
