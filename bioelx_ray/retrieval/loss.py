"""What alias training minimises.

``multi-similarity`` is SapBERT's: the loss of Wang et al. (CVPR 2019, arXiv 1904.06627) on cosines,
over the pairs that a triplet miner keeps. A triplet (anchor, positive, negative) is kept if
d(a, n) - d(a, p) <= margin, with the Euclidean distance d of unit vectors; a pair is kept if any of
its triplets is. Over the triplets that takes O(n^3) time and memory. But (a, p) is in a kept
triplet just if the negative nearest to a is in one with it, and (a, n) just if the positive
farthest from a is: two extremes of each row are all that is needed. The pairs are the same ones,
bit for bit, since rounding a difference keeps the order. An anchor without a positive or without a
negative is in no triplet.

The values and gradients are those of pytorch-metric-learning (0.9.98.dev1, which SapBERT names, and
2.9.0) in ``MultiSimilarityLoss(alpha, beta, base)`` with ``TripletMarginMiner(margin)``.

``info-nce`` averages, over the anchors that have a positive and then over the positives of each,
-log(exp(s(a, p) / t) / (exp(s(a, p) / t) + sum over the negatives n of exp(s(a, n) / t))): the form
of Khosla et al. (2020, arXiv 2004.11362, L_out) for several positives, less the other positives in
the denominator, which would drive aliases of one concept apart.

The rows of the pairwise matrices are worked off in blocks, each with its gradient, so that memory
does not grow with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bioelx_ray.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]
"""Embeddings floating [n, dim] and their concepts' numbers int64 [n] -> a scalar, differentiable.

Rows of equal numbers are positives of one another, never negatives. The order of the rows does not
matter. Without any pair the loss is 0, and so is its gradient; embeddings that are not finite make
it NaN. It is computed in float32 at least, whatever autocast says.
"""

_AT_ONCE = 1 << 22
"""Elements of a block of a pairwise matrix: 16 MiB in float32, of which a dozen are held."""
_WIDE = torch.float32
_LEAST = -80.0
"""Exponents below it count as it: exp of them is nothing beside 1, and slow where subnormal."""


class _Block(NamedTuple):
    """Some rows against all, [rows, n]: cosines, distances, and the kinds of pairs as masks."""

    cosines: Tensor
    distances: Tensor
    positive: Tensor
    negative: Tensor


class _Terms(NamedTuple):
    """Of a block: the sum of its rows' losses, its derivative by the cosines, and a count."""

    total: Tensor
    slope: Tensor
    counted: Tensor


def make_loss(config: LossConfig) -> Loss:
    """The loss that a section asks for."""
    return partial(_multi_similarity if config.name == "multi-similarity" else _info_nce, config)


def _multi_similarity(config: LossConfig, embeddings: Tensor, labels: Tensor) -> Tensor:
    total, kept = _over_blocks(embeddings, labels, partial(_similarity_terms, config))
    # The library takes a single triplet, that is one positive and one negative pair, for none.
    return total * (kept > 2) / max(1, len(labels))


def _similarity_terms(config: LossConfig, block: _Block) -> _Terms:
    positive, negative = _mined(block, config.margin)
    pull, pulled = _log_one_plus(config.alpha * (config.base - block.cosines), positive)
    push, pushed = _log_one_plus(config.beta * (block.cosines - config.base), negative)
    return _Terms(
        total=(pull / config.alpha + push / config.beta).sum(),
        slope=pushed - pulled,
        counted=positive.sum() + negative.sum(),
    )


def _mined(block: _Block, margin: float) -> tuple[Tensor, Tensor]:
    """The positive and the negative pairs that are in a triplet within the margin."""
    nearest = torch.where(block.negative, block.distances, torch.inf).amin(1, keepdim=True)
    farthest = torch.where(block.positive, block.distances, -torch.inf).amax(1, keepdim=True)
    return (
        block.positive & (nearest - block.distances <= margin),
        block.negative & (block.distances - farthest <= margin),
    )


def _log_one_plus(exponents: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + the sum of exp over those kept) by row [rows, 1], and its derivative [rows, n]."""
    peak = (exponents * kept).amax(1, keepdim=True).clamp(min=0)
    powers = (exponents - peak).clamp(_LEAST, 0).exp() * kept
    total = powers.sum(1, keepdim=True) + (-peak).exp()
    return peak + total.log(), powers / total


def _info_nce(config: LossConfig, embeddings: Tensor, labels: Tensor) -> Tensor:
    total, anchors = _over_blocks(embeddings, labels, partial(_contrastive_terms, config))
    return total / anchors.clamp(min=1)


def _contrastive_terms(config: LossConfig, block: _Block) -> _Terms:
    logits = block.cosines / config.temperature
    against, share = _log_sum(logits, block.negative)
    positives = block.positive.sum(1, keepdim=True)
    weights = block.positive / positives.clamp(min=1)
    pulled = torch.sigmoid(against - logits) * weights
    return _Terms(
        total=(functional.softplus(against - logits) * weights).sum(),
        slope=(pulled.sum(1, keepdim=True) * share - pulled) / config.temperature,
        counted=(positives > 0).sum(),
    )


def _log_sum(exponents: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """log(the sum of exp over those kept) by row, -inf without any, and its derivative."""
    least = torch.finfo(exponents.dtype).min
    peak = torch.where(kept, exponents, least).amax(1, keepdim=True)
    powers = (exponents - peak).clamp(_LEAST, 0).exp() * kept
    total = powers.sum(1, keepdim=True)
    return peak + total.log(), powers / total.clamp(min=1)


def _over_blocks(
    embeddings: Tensor, labels: Tensor, terms: Callable[[_Block], _Terms]
) -> tuple[Tensor, Tensor]:
    """The total, differentiable, and the count over all rows, worked off block by block."""
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = functional.normalize(embeddings.to(torch.promote_types(embeddings.dtype, _WIDE)))
        with torch.no_grad():
            total, gradient, count = _summed(unit, labels, terms)
        # What is added is 0, and has the known gradient. It is NaN where an embedding is not
        # finite: mining drops such rows, and a broken model would have the loss 0.
        return total + ((unit - unit.detach()) * gradient).sum(), count


def _summed(unit: Tensor, labels: Tensor, terms: Callable[[_Block], _Terms]) -> _Terms:
    gradient = torch.zeros_like(unit)
    total, count = unit.new_zeros(()), labels.new_zeros(())
    for start in range(0, len(unit), step := max(1, _AT_ONCE // max(1, len(unit)))):
        rows = slice(start, start + step)
        own = terms(_block(unit, labels, rows))
        # a cosine depends on both of its rows
        if step >= len(unit):
            gradient = (own.slope + own.slope.T) @ unit
        else:
            gradient[rows] += own.slope @ unit
            gradient += own.slope.T @ unit[rows]
        total, count = total + own.total, count + own.counted
    return _Terms(total, gradient, count)


def _block(unit: Tensor, labels: Tensor, rows: slice) -> _Block:
    own = unit[rows]
    positive = labels[rows, None] == labels
    negative = ~positive
    positive.diagonal(rows.start).fill_(False)
    return _Block(own @ unit.T, torch.cdist(own, unit), positive, negative)
