"""What training all of a model changed, as an adapter of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.adapter import A, B, folded
from bioelx_ray.retrieval.torch_engine import Pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """An adapter's tensors, and `lost`: the share of the matrices' change that they leave out.

    0 is nothing, 1 all, in the Frobenius norm over all changed matrices.
    """

    tensors: dict[str, Tensor]
    lost: float


def compress(full: Pooled, base: Pooled, *, rank: int) -> Compressed:
    """The difference of a trained module to its base, each matrix in its best rank `rank`.

    By Eckart and Young no other matrix of that rank is nearer. Vectors (biases, layer norms) and a
    head that the base lacks are taken whole.

    Raises:
        EncoderError: the modules have other parameters, or shapes, or nothing differs.
    """
    old = dict(base.named_parameters())
    new = dict(folded(full).named_parameters())
    if unlike := sorted(
        name
        for name in (old.keys() | new.keys()) - {"head.weight"}
        if name not in old or name not in new or old[name].shape != new[name].shape
    ):
        raise EncoderError(f"the modules differ in more than values: {unlike[0]}")
    tensors: dict[str, Tensor] = {}
    lost = total = 0.0
    for name, parameter in new.items():
        before = old.get(name)
        if before is not None and (torch.equal(parameter, before) or "pooler" in name):
            continue
        if before is None or parameter.ndim != 2:
            tensors[name] = parameter.detach().cpu()
            continue
        change = (parameter - before).detach().cpu().double()
        a, b = factors(change, rank)
        tensors |= {name + A: a.float(), name + B: b.float()}
        lost += float((change - b @ a).square().sum())
        total += float(change.square().sum())
    if not tensors:
        raise EncoderError("the trained module does not differ from its base")
    return Compressed(tensors=tensors, lost=(lost / total) ** 0.5 if total else 0.0)


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, columns] and b [rows, rank] of which b a is nearest to a matrix, in float64.

    Both have a share of the singular values, so that neither is small where half precision ends.
    """
    if matrix.shape[0] < matrix.shape[1]:
        a, b = factors(matrix.T, rank)
        return b.T, a.T
    # of the small square, not of the matrix: an embedding table has 250,000 rows
    squares, directions = torch.linalg.eigh(matrix.T @ matrix)
    kept = directions[:, -rank:].flip(1)
    root = squares[-rank:].flip(0).clamp(min=1e-30).pow(0.25)
    return (kept * root).T, (matrix @ kept) / root
