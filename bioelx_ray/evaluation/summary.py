"""From the outcomes of single mentions to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from bioelx_ray.evaluation.metrics import (
    Groups,
    Values,
    group_by_document,
    hits_at,
    percentile_interval,
    reciprocal_ranks,
    resampled_means,
)
from bioelx_ray.evaluation.report import Estimate, Outcome, Report, Row

CUTOFFS = (1, 5, 64)


def summarise(outcomes: Mapping[str, Sequence[Outcome]], *, n: Mapping[str, int], k: int) -> Report:
    """The report of outcomes by key; `n` by key counts also the mentions without an outcome.

    Cutoffs over `k` are left out. The interval of the mean comes from the means of the rows' own
    bootstrap samples, taken as independent: parallel documents make it slightly too narrow. Each
    key has its own seed, so a row does not depend on what else is evaluated.
    """
    cutoffs = tuple(cutoff for cutoff in CUTOFFS if cutoff <= k)
    values = {key: _values(items, cutoffs) for key, items in outcomes.items()}
    samples = {
        key: resampled_means(values[key], document_groups(items), seed=crc32(key.encode()))
        for key, items in outcomes.items()
    }
    rows = tuple(
        _row(key, _means(values[key]), samples[key], cutoffs=cutoffs, n=n[key], outcomes=items)
        for key, items in outcomes.items()
    )
    filled = [key for key in values if len(values[key])] or list(values)
    mean = np.mean([_means(values[key]) for key in filled], axis=0)
    mean_samples = np.mean([samples[key] for key in filled], axis=0)
    every = [outcome for items in outcomes.values() for outcome in items]
    total = _row("mean", mean, mean_samples, cutoffs=cutoffs, n=sum(n.values()), outcomes=every)
    return Report(k=k, rows=rows, mean=total)


def document_groups(outcomes: Sequence[Outcome]) -> Groups:
    """The number of the document of each outcome's mention."""
    return group_by_document([outcome.gold.mention.document_id for outcome in outcomes])


def _values(outcomes: Sequence[Outcome], cutoffs: Sequence[int]) -> Values:
    """Hits at each cutoff, then the reciprocal rank, as ``[n, len(cutoffs) + 1]``."""
    ranks = np.array([outcome.rank for outcome in outcomes], dtype=np.int64)
    columns = [*(hits_at(ranks, cutoff) for cutoff in cutoffs), reciprocal_ranks(ranks)]
    return np.stack(columns, axis=1)


def _means(values: Values) -> Values:
    if not len(values):
        return np.full(values.shape[1], np.nan)
    return np.asarray(values.mean(axis=0), dtype=np.float64)


def _row(
    key: str,
    means: Values,
    samples: Values,
    *,
    cutoffs: Sequence[int],
    n: int,
    outcomes: Sequence[Outcome],
) -> Row:
    low, high = percentile_interval(samples)
    *recall, mrr = [
        Estimate(value=float(value), low=float(lower), high=float(upper))
        for value, lower, upper in zip(means, low, high, strict=True)
    ]
    return Row(
        key=key,
        n=n,
        n_in_kb=len(outcomes),
        recall=dict(zip(cutoffs, recall, strict=True)),
        mrr=mrr,
        outcomes=tuple(outcomes),
    )
