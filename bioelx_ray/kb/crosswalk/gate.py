"""Which links between ids are right, and which concepts they join.

The evidence of a link adds up to log odds (Fellegi and Sunter 1969: a weight an observation, the
logarithm of how much oftener it is seen on right links than on wrong ones). Then a link competes
with those of the same id into the same vocabulary, since an id has at most one match there: among
all choices that give no id two matches in a vocabulary, each as probable as the product of its
links' odds, how often is the link chosen? Belief propagation answers it, exactly where the rival
links form no cycle (monomer-dimer model; Bayati et al. 2007, doi:10.1145/1250790.1250809).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.kb.crosswalk.evidence import Links

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

ACCEPT = 0.6
"""A link of at least this probability merges."""

PRIOR_EXACT, PRIOR_XREF = 3.5, 2.6
"""Log odds that a link is right before anything is known of it."""

# By level of agreement, from "no common language" on; measured with tests.benchmarks.gate_quality
# on its tuning half.
LEVEL_ODDS = np.array([0.0, -2.3, -1.2, -0.8, 0.2, 2.5, 3.2])
REPEATED_ODDS = 1.5
PREFERRED_ODDS = 2.0
THIRD_ODDS = 2.0
CLASH_ODDS = -1.5
MOST_THIRDS = 2
TYPE_ODDS = (-2.0, 2.0)
"""The least and the most that types count: their odds suppose what is rarely so, independence."""

AGAINST = -1.0
"""A link that is refused is dropped, not ambiguous, if its evidence comes to no more than this."""

ROUNDS = 60

PART = 1 << 16

REASONS = (
    "fits alone",
    "fits best of several",
    "no other concept has the id",
    "names, types or other links disagree",
    "another id fits better",
    "several ids fit alike",
    "joins two ids of one vocabulary",
)
ALONE, BEST, UNSHARED, DISAGREES, BEATEN, UNDECIDED, TWO_OF_ONE = range(len(REASONS))


@dataclass(frozen=True, slots=True)
class Verdict:
    """By link: its probability and the place of the reason in `REASONS`; by node: its component.

    A component is named by the smallest code in it.
    """

    probability: Floats
    reason: Codes
    component: NDArray[np.int32]


def judge(links: Links) -> Verdict:
    """Decide on all links."""
    slots = _slots(links)
    believed = compete(log_odds(links), slots)
    odds = log_odds(links, believed)
    probability = np.round(compete(odds, slots), 6)
    accepted = probability >= ACCEPT
    reason = np.where(_contested(slots), np.int8(BEST), np.int8(ALONE))
    against = odds - _prior(links) <= AGAINST
    reason[~accepted] = _refusals(against, probability, slots)[~accepted]
    component, refused = _join(links, probability)
    reason[refused] = TWO_OF_ONE
    shared = _holds_several(links, component)
    joined = (reason <= BEST) & ~shared[component[links.a]]
    reason[joined] = UNSHARED
    return Verdict(probability=probability, reason=reason, component=component)


def log_odds(links: Links, believed: Floats | None = None) -> Floats:
    """The log odds of each link by its own evidence, float64 [n].

    Without `believed`, the probability of each link, only what the link's own ends say counts.
    """
    odds = (
        _prior(links)
        + REPEATED_ODDS * links.repeated
        + PREFERRED_ODDS * links.preferred
        + THIRD_ODDS * np.minimum(links.thirds, MOST_THIRDS)
        + CLASH_ODDS * np.minimum(links.clashes, MOST_THIRDS)
    )
    compared = links.compared
    said = LEVEL_ODDS[compared.level + 1] + np.clip(compared.types.astype(np.float64), *TYPE_ODDS)
    own = compared.via < 0
    sure = np.where(own, 1.0, 0.0 if believed is None else believed[compared.via])
    # Where the link to the other concept is wrong, the comparison says nothing: odds of 1.
    said = np.log(sure * np.exp(said) + (1 - sure))
    # The best word counts, for a concept that was linked wrongly agrees with none. But where the
    # ends can be compared themselves, others do not explain their disagreement away.
    direct = np.zeros(len(odds), np.bool_)
    direct[compared.link[own]] = True
    heard = own | (sure >= ACCEPT) & ((said > 0) | ~direct[compared.link])
    best = np.full(len(odds), -np.inf)
    np.maximum.at(best, compared.link[heard], said[heard])
    return np.asarray(odds + np.where(np.isneginf(best), 0.0, best))


def _prior(links: Links) -> Floats:
    return np.where(links.exact, PRIOR_EXACT, PRIOR_XREF)


def _slots(links: Links) -> NDArray[np.int32]:
    """For each end of a link the number of its slot: an id and the vocabulary linked to, [2, n]."""
    width = np.int64(links.vocabulary.max(initial=0) + 1)
    at_a = links.a * width + links.vocabulary[links.b]
    at_b = links.b * width + links.vocabulary[links.a]
    _, slots = np.unique(np.concatenate([at_a, at_b]), return_inverse=True)
    return slots.reshape(2, -1).astype(np.int32)


def _contested(slots: NDArray[np.int32]) -> NDArray[np.bool_]:
    size = np.bincount(slots.ravel())
    return np.asarray((size[slots] > 1).any(axis=0))


def compete(odds: Floats, slots: NDArray[np.int32]) -> Floats:
    """The probability of each link, given that a slot holds one at most, float64 [n].

    Args:
        odds: log odds of each link by itself, [n].
        slots: the two slots of each link, [2, n].
    """
    weight = np.exp(np.clip(odds, -20, 20))
    probability = weight / (1 + weight)
    rivals = np.flatnonzero(_contested(slots))
    if len(rivals):
        probability[rivals] = _marginals(weight[rivals], slots[:, rivals])
    return np.asarray(probability)


def _marginals(weight: Floats, slots: NDArray[np.int32]) -> Floats:
    _, ends = np.unique(slots, return_inverse=True)
    ends = ends.reshape(slots.shape)
    free = np.ones(slots.shape)  # that an end is not taken by another link
    for _ in range(ROUNDS):
        asked = weight * free[::-1]  # by the link, of the slot at each end
        total = np.bincount(ends.ravel(), weights=asked.ravel())
        update = 1 / (1 + np.maximum(total[ends] - asked, 0))
        change = np.abs(update - free).max()
        free = (update + free) / 2 if change > 0.5 else update
        if change < 1e-7:
            break
    both = weight * free[0] * free[1]
    return np.asarray(both / (1 + both))


def _refusals(against: NDArray[np.bool_], probability: Floats, slots: NDArray[np.int32]) -> Codes:
    """The reason for each link, if it is refused."""
    best = np.zeros(int(slots.max(initial=-1)) + 1)
    for end in slots:
        np.maximum.at(best, end, probability)
    beaten = best[slots].max(axis=0) >= ACCEPT
    reason = np.where(beaten, np.int8(BEATEN), np.int8(UNDECIDED))
    reason[against] = DISAGREES
    return reason


def _join(links: Links, probability: Floats) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The component of each node, and the links refused since they join ids of one vocabulary."""
    nodes = len(links.vocabulary)
    accepted = np.flatnonzero(probability >= ACCEPT)
    # What only one id is linked to joins nothing, and must not take the place of what does.
    degree = np.bincount(np.concatenate([links.a[accepted], links.b[accepted]]), minlength=nodes)
    leaf = (degree == 1) & (links.trust < 0)
    last = leaf[links.a[accepted]] | leaf[links.b[accepted]]
    order = accepted[np.lexsort((-probability[accepted], last))]
    return _unite(links, order)


def _unite(links: Links, order: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    parent = array("i", range(len(links.vocabulary)))
    bits = [1 << v for v in range(int(links.vocabulary.max(initial=-1)) + 1)]
    mask = [bits[v] for v in links.vocabulary]  # one object a vocabulary, not one a node
    refused = array("q")
    for link, a, b in _ends(links, order):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a == b:
            continue
        if mask[a] & mask[b]:
            refused.append(link)
            continue
        a, b = min(a, b), max(a, b)
        parent[b] = a
        mask[a] |= mask[b]
    for node, above in enumerate(parent):  # a parent is smaller, so it is settled before
        parent[node] = parent[above]
    return np.array(parent, np.int32), np.array(refused, np.int64)


def _ends(links: Links, order: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Links with their ends, in an order; as Python's numbers, but never all of them at once."""
    for start in range(0, len(order), PART):
        part = order[start : start + PART]
        yield from zip(part.tolist(), links.a[part].tolist(), links.b[part].tolist(), strict=True)


def _holds_several(links: Links, component: NDArray[np.int32]) -> NDArray[np.bool_]:
    """By node as a component's name: whether the component holds several concepts of the kb."""
    concepts = component[links.trust >= 0]
    return np.bincount(concepts, minlength=len(component)) > 1
