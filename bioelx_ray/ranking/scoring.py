"""Log-probabilities of answers -> scores. Plain functions over arrays; no text is read.

A candidate's score is the log-odds of the candidate against NIL: the logit of yes less that of no,
or of the candidate's letter less that of the letter for "none". NIL itself scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.errors import EngineError
from bioelx_ray.ranking.engine import Answered

Values = NDArray[np.float64]

LIMIT = 50.0
"""Largest score: what is further from even odds says no more (e^-50 is 2e-22)."""
_BOTTOM = -1e4


def grouped(answered: Answered, groups: Sequence[Sequence[str]]) -> Values:
    """The log-probability of each group of spellings, float64 [prompts, groups].

    `answered` holds the spellings of all groups one after another. Those that the model was heard
    on are added up. Where it was heard on none of a group, the group has the highest bound of its
    spellings: a missing answer is then never further from the others than the model said.

    Raises:
        EngineError: no spelling of a group is a single token of the model.
    """
    columns = []
    start = 0
    for spellings in groups:
        part = slice(start, start + len(spellings))
        start = part.stop
        columns.append(_one_group(answered.logprobs[:, part], answered.exact[:, part], spellings))
    return np.stack(columns, axis=1) if columns else np.empty((len(answered.logprobs), 0))


def _one_group(logprobs: Values, exact: NDArray[np.bool_], spellings: Sequence[str]) -> Values:
    if logprobs.size and np.isneginf(logprobs).all():
        raise EngineError(
            f"none of {', '.join(map(repr, spellings))} is a single token of the model: give other "
            "spellings in the template"
        )
    total = np.logaddexp.reduce(np.where(exact, logprobs, -np.inf), axis=1, initial=-np.inf)
    bound = np.where(exact, -np.inf, logprobs).max(axis=1, initial=-np.inf)
    found = np.where(np.isneginf(total), bound, total)
    # the difference of two infinities would be no number
    return np.asarray(np.maximum(found, _BOTTOM), dtype=np.float64)


def pointwise_scores(yes_no: Values) -> Values:
    """Scores float64 [prompts] from the log-probabilities of yes and no, float64 [prompts, 2]."""
    return _clipped(yes_no[:, 0] - yes_no[:, 1])


def rotations(options: int, wanted: int) -> list[list[int]]:
    """Orders of options, each the one before turned on: evenly spread, at most one an option.

    With as many orders as options each option stands once at each place, and what a model adds to
    a place cancels out.
    """
    count = min(options, wanted)
    shifts = [turn * options // count for turn in range(count)]
    return [[(place + shift) % options for place in range(options)] for shift in shifts]


def listwise_scores(letters: Values, orders: Sequence[Sequence[int]], *, bias: Values) -> Values:
    """Scores float64 [options - 1] of a list whose last option is "none".

    `letters` [orders, options] holds the log-probability of each letter under each order, and
    ``orders[i][place]`` the option that stood there. `bias` [options] is what the model adds to
    each place (Zhao et al. 2021, contextual calibration), zeros where that is not known.
    """
    given = letters - bias
    sums = np.zeros(letters.shape[1])
    for row, order in zip(given, orders, strict=True):
        sums[np.asarray(order)] += row
    mean = sums / len(orders)
    return _clipped(mean[:-1] - mean[-1])


def _clipped(scores: Values) -> Values:
    return np.asarray(np.clip(scores, -LIMIT, LIMIT), dtype=np.float64)


def behind(scores: Values, known: NDArray[np.bool_]) -> Values:
    """Scores with what is not `known` set to the least that is known, or to 0 if nothing is."""
    least = scores[known].min() if known.any() else 0.0
    return np.where(known, scores, least)
