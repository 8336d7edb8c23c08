"""Recall@k and MRR from the ranks of the first gold concept, with intervals and a paired test.

Plain functions over arrays. A rank counts distinct concepts from 1; 0 means not found.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
Groups = NDArray[np.int64]
Values = NDArray[np.float64]

SAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of left - right over mentions, and the two-sided p value of no difference."""

    mean: float
    p_value: float


def first_gold_rank(concept_ids: Iterable[str], gold: Container[str]) -> int:
    """The rank of the first gold id among the distinct ids, from 1; 0 where there is none."""
    for rank, concept_id in enumerate(dict.fromkeys(concept_ids), start=1):
        if concept_id in gold:
            return rank
    return 0


def hits_at(ranks: Ranks, k: int) -> Values:
    """1.0 for each mention with gold among its first `k`, else 0.0. Their mean is Recall@k."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def reciprocal_ranks(ranks: Ranks) -> Values:
    """1 / rank of each mention, 0.0 where the gold was not found. Their mean is MRR."""
    found = ranks > 0
    return np.where(found, 1.0 / np.where(found, ranks, 1), 0.0)


def group_by_document(documents: Sequence[str | None]) -> Groups:
    """The number of each mention's document, from 0. A mention without one is its own group."""
    numbers: dict[object, int] = {}
    keys = (index if name is None else name for index, name in enumerate(documents))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resampled_means(
    values: Values, groups: Groups, *, seed: int = 0, samples: int = SAMPLES
) -> Values:
    """Bootstrap means of the columns of `values` ``[n, columns]`` as ``[samples, columns]``.

    Whole groups are drawn with replacement, since mentions of a document depend on each other. A
    draw is how often each group came up, so a sample costs a product and not a copy. Columns see
    the same draws. Without mentions, all are NaN.
    """
    if not len(values):
        return np.full((samples, values.shape[1]), np.nan)
    sizes = np.bincount(groups)
    sums = np.stack([np.bincount(groups, weights=column) for column in values.T], axis=1)
    count = len(sizes)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    return np.asarray(drawn @ sums / (drawn @ sizes)[:, None], dtype=np.float64)


def percentile_interval(means: Values, *, level: float = 0.95) -> tuple[Values, Values]:
    """The lower and upper bound of each column of ``[samples, columns]``."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return low, high


def paired_test(
    left: Values, right: Values, groups: Groups, *, seed: int = 0, samples: int = SAMPLES
) -> Difference:
    """Compare two runs over the same mentions by a permutation test that swaps whole groups.

    If the runs are alike, exchanging them in a document is as likely as not; p is the share of
    random exchanges with a difference at least as large, the observed one counted among them.

    Raises:
        ValueError: the arrays differ in length, or are empty.
    """
    if not len(left) or not len(left) == len(right) == len(groups):
        raise ValueError(f"lengths {len(left)}, {len(right)}, {len(groups)}: give the same, not 0")
    sums = np.bincount(groups, weights=left - right)
    moving = sums[sums != 0]  # exchanging equal results changes nothing
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, len(moving)))
    observed = abs(float(moving.sum()))
    # float sums of the same numbers in another order may differ in the last digits
    as_large = int(np.count_nonzero(np.abs(signs @ moving) >= observed * (1 - 1e-9)))
    return Difference(mean=float(sums.sum()) / len(left), p_value=(as_large + 1) / (samples + 1))
