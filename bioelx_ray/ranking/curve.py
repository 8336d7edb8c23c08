"""Whether probabilities mean something: a monotone correction, calibration error, a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from bioelx_ray.errors import InputError
from bioelx_ray.ranking.scoring import Values

BINS = 15
_LEAST = 1e-12

Curve = tuple[tuple[float, float], ...]
"""Points (given, corrected) in log-odds, both rising. None of them: nothing is corrected."""

Hits = NDArray[np.bool_]


def fit_curve(chances: Values, right: Hits) -> Curve:
    """Isotonic regression of what came true on what was promised, each [n] (Zadrozny, Elkan 2002).

    A step becomes the point at its middle, in log-odds. A step's share is drawn a little towards
    one half, so that none is 0 or 1.
    """
    if not len(chances):
        return ()
    order = np.argsort(chances, kind="stable")
    given = _log_odds(chances[order])
    found = isotonic_regression(right[order].astype(np.float64)).x
    levels, starts = np.unique(found, return_index=True)
    middles = [float(part.mean()) for part in np.split(given, starts[1:])]
    drawn = (levels * len(chances) + 0.5) / (len(chances) + 1)
    points = zip(middles, logit(drawn).tolist(), strict=True)
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if not kept or x > kept[-1][0]:  # equal promises on both sides of a step
            kept.append((x, y))
    return tuple(kept)


def corrected(chances: Values, curve: Curve) -> Values:
    """Probabilities on a curve, float64 [n], in the order of what was given.

    Between two points the line in log-odds; beyond the ends the shift at the end.
    """
    if not curve:
        return chances
    x, y = np.array(curve).T
    given = _log_odds(chances)
    shifts = np.interp(given, x, y - x)
    return np.asarray(expit(given + shifts), dtype=np.float64)


def calibration_error(chances: Values, right: Hits) -> float:
    """The expected calibration error over 15 bins of equal width (Guo et al. 2017), 0 for none."""
    if not len(chances):
        return 0.0
    bins = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=chances - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(chances))


def threshold_for(precision: float, chances: Values, right: Hits, *, least: int) -> float:
    """The lowest score from which on links are right often enough.

    Raises:
        InputError: no threshold reaches the precision with at least `least` links.
    """
    order = np.argsort(-chances, kind="stable")
    scores = chances[order]
    counts = np.arange(1, len(scores) + 1)
    reached = np.cumsum(right[order]) / counts
    whole = np.append(scores[1:] != scores[:-1], True)  # equal scores pass or fail together
    usable = whole & (counts >= least)
    good = np.flatnonzero(usable & (reached >= precision))
    if not len(good):
        best = f"{reached[usable].max():.3f}" if usable.any() else "none"
        raise InputError(
            f"no NIL threshold reaches precision {precision} with {least} or more of "
            f"{len(scores)} links; the highest is {best}: ask for less, or give more data"
        )
    return float(scores[good[-1]])


def _log_odds(chances: Values) -> Values:
    # float64 holds probabilities down to 1e-308 but none between 1 - 1e-16 and 1
    return np.asarray(logit(np.clip(chances, 1e-300, 1 - _LEAST)), dtype=np.float64)
