"""Join the ranker's and the retriever's scores: a conditional logit with NIL as one more choice.

A candidate's utility is ``ranker * r + retrieval * s`` with its two scores r and s, NIL's is `nil`;
the probabilities are their softmax (McFadden 1974). The three weights are fitted on development
data by maximum likelihood, so the scale of the scores, their temperature, is fitted with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bioelx_ray.config_ranking import CalibrationConfig
from bioelx_ray.ranking.scoring import Values

_LEAST_RETRIEVAL = 1e-3
"""Of a standard deviation. Above 0, so that without the ranker the retriever's order remains."""
_NIL_BOUND = 50.0
_ERRORS_NEEDED = 2.0
"""Standard errors that a ranker must gain, to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Of the ranker's score, of the retriever's, and the utility of NIL."""

    ranker: float
    retrieval: float
    nil: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A development mention: its candidates' scores and which of them are gold, each [n].

    No gold among them means that NIL is right, whatever the knowledge base has. Mentions of one
    `group`, as a rule a document, are never split between fitting and testing.
    """

    ranker: Values
    retrieval: Values
    gold: NDArray[np.bool_]
    group: str


def probabilities(weights: Weights, ranker: Values, retrieval: Values) -> Values:
    """The probability of each candidate, float64 [n]; what is left to 1 is NIL's."""
    utilities = np.append(weights.ranker * ranker + weights.retrieval * retrieval, weights.nil)
    shares = np.exp(utilities - utilities.max())
    return np.asarray(shares[:-1] / shares.sum(), dtype=np.float64)


def fit_weights(judged: Sequence[Judged], *, ridge: float, use_ranker: bool = True) -> Weights:
    """The likeliest weights, both scores' at least 0; the ranker's 0 unless it is used.

    `ridge` is the penalty on half the squared weight of the ranker's score, which is taken in
    standard deviations, so that it means the same for every model.
    """
    table = _table(judged)
    scale = np.array([_spread(table.ranker, table.there), _spread(table.retrieval, table.there), 1])
    inputs = np.stack([table.ranker, table.retrieval, table.nil], axis=2) / scale
    bounds = [
        (0.0, None if use_ranker else 0.0),
        (_LEAST_RETRIEVAL, None),
        (-_NIL_BOUND, _NIL_BOUND),
    ]
    found = minimize(
        partial(_loss, inputs=inputs, there=table.there, right=table.right, ridge=ridge),
        x0=np.array([0.0, 1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
    )
    ranker, retrieval, nil = (found.x / scale).tolist()
    return Weights(ranker=ranker, retrieval=retrieval, nil=nil)


def held_out(
    judged: Sequence[Judged], *, config: CalibrationConfig, use_ranker: bool
) -> list[Values]:
    """Each mention's probabilities under weights fitted without its part of the groups."""
    of_part = parts(judged, config.folds)
    result: list[Values] = [np.empty(0)] * len(judged)
    for part in sorted(set(of_part)):
        rest = [item for item, number in zip(judged, of_part, strict=True) if number != part]
        weights = fit_weights(rest, ridge=config.ridge, use_ranker=use_ranker)
        for row, number in enumerate(of_part):
            if number == part:
                item = judged[row]
                result[row] = probabilities(weights, item.ranker, item.retrieval)
    return result


def ranker_helps(
    judged: Sequence[Judged], *, with_it: Sequence[Values], without: Sequence[Values]
) -> bool:
    """Whether the ranker's score makes held-out answers likelier, beyond chance.

    The mean gain of log-likelihood must exceed its standard error twice, over groups, and Recall@1
    must not fall: a ranker that knows nothing is left out, however little its weight.
    """
    gains = log_likelihoods(judged, with_it) - log_likelihoods(judged, without)
    groups = np.unique([item.group for item in judged], return_inverse=True)[1]
    sums = np.bincount(groups, weights=gains)
    # the total's standard error, from independent groups
    error = float(np.sqrt(np.square(sums - sums.mean()).sum()))
    likelier = sums.sum() > _ERRORS_NEEDED * error
    return bool(likelier and hits(judged, with_it).mean() >= hits(judged, without).mean())


def log_likelihoods(judged: Sequence[Judged], found: Sequence[Values]) -> Values:
    """The logarithm of the probability of what is right, float64 [mentions]."""
    chances = [
        p[item.gold].sum() if item.gold.any() else 1 - p.sum()
        for item, p in zip(judged, found, strict=True)
    ]
    return np.asarray(np.log(np.maximum(chances, 1e-12)), dtype=np.float64)


def hits(judged: Sequence[Judged], found: Sequence[Values]) -> Values:
    """1.0 for each mention whose likeliest candidate is gold, else 0.0. Their mean is Recall@1."""
    first = [
        bool(len(p)) and bool(item.gold[int(p.argmax())])
        for item, p in zip(judged, found, strict=True)
    ]
    return np.array(first, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """All mentions in columns, NIL behind the widest one's candidates: each [mentions, columns]."""

    ranker: Values
    retrieval: Values
    nil: Values
    there: NDArray[np.bool_]
    right: NDArray[np.bool_]


def _table(judged: Sequence[Judged]) -> _Table:
    width = max((len(item.gold) for item in judged), default=0) + 1
    ranker, retrieval, nil = (np.zeros((len(judged), width)) for _ in range(3))
    there, right = (np.zeros((len(judged), width), dtype=np.bool_) for _ in range(2))
    nil[:, -1], there[:, -1] = 1.0, True
    for row, item in enumerate(judged):
        n = len(item.gold)
        ranker[row, :n], retrieval[row, :n] = item.ranker, item.retrieval
        there[row, :n], right[row, :n] = True, item.gold
        right[row, -1] = not item.gold.any()
    return _Table(ranker=ranker, retrieval=retrieval, nil=nil, there=there, right=right)


def _spread(scores: Values, there: NDArray[np.bool_]) -> float:
    found = float(scores[there].std()) if there.any() else 0.0
    return found or 1.0


def _loss(
    weights: Values,
    *,
    inputs: NDArray[np.float64],
    there: NDArray[np.bool_],
    right: NDArray[np.bool_],
    ridge: float,
) -> tuple[float, Values]:
    """The negative log-likelihood with the ridge, and its gradient."""
    utilities = inputs @ weights
    total, share = _softmax(utilities, there)
    gold, gold_share = _softmax(utilities, right)
    loss = float((total - gold).sum()) + ridge / 2 * float(weights[0] ** 2)
    gradient = np.einsum("mc,mcw->w", share - gold_share, inputs)
    gradient[0] += ridge * weights[0]
    return loss, gradient


def _softmax(utilities: Values, among: NDArray[np.bool_]) -> tuple[Values, Values]:
    """The logarithm of the sum of exponentials [mentions], and each choice's share of it."""
    masked = np.where(among, utilities, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    shares = np.exp(masked - top)
    sums = shares.sum(axis=1, keepdims=True)
    return (np.log(sums) + top)[:, 0], shares / sums


def parts(judged: Sequence[Judged], folds: int) -> list[int]:
    """The part of each mention: its group's place in the order of appearance, dealt out."""
    places: dict[str, int] = {}
    return [places.setdefault(item.group, len(places)) % folds for item in judged]
