"""A linear map of embeddings, fitted to the knowledge base's own aliases in closed form.

An encoder spreads the aliases of one concept along directions that say nothing about the concept:
language, script, spelling, word order. The aliases themselves show which: with the scatter within
concepts S_w and between them S_b, the map whitens S_w and weights each of its directions by
b / (b + 1), b being the between-concept variance there. That is the posterior mean of a concept's
place given one of its names, under two Gaussians (probabilistic linear discriminant analysis,
Ioffe 2006). No annotated text is used, and nothing is trained by gradient.

The directions of little weight are left out: what they would add to a score is lost in its noise,
and a shorter vector is cheaper to search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RIDGE = 0.3
"""Share of S_w's mean variance added to every direction, against directions seen too rarely."""
_KEPT = 0.95
"""Share of the projected vectors' squared length that the kept directions hold."""
_CONCEPTS_PER_DIMENSION = 5
"""Fewer concepts with two forms than this times the dimension, and S_w is not worth inverting."""

Matrix = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Projection:
    """``x -> unit((x - mean) @ matrix)``: `mean` float32 [dim], `matrix` float32 [dim, kept]."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def __call__(self, vectors: Matrix) -> NDArray[np.float32]:
        """Unit vectors float32 [n, kept] of vectors [n, dim]."""
        mapped = (vectors.astype(np.float32) - self.mean) @ self.matrix
        norms = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit: NDArray[np.float32] = mapped / np.maximum(norms, 1e-12)
        return unit


def identity(dim: int) -> Projection:
    """The map that leaves unit vectors as they are."""
    return Projection(np.zeros(dim, dtype=np.float32), np.eye(dim, dtype=np.float32))


def fit_projection(
    vectors: Matrix, *, forms: NDArray[np.int64], concepts: NDArray[np.int64]
) -> Projection | None:
    """Fit the map, or None where there are too few concepts with several forms.

    Args:
        vectors: [n, dim], a row a form.
        forms: int [m], rows of `vectors`.
        concepts: int [m], the concept that each of `forms` names. Pairs are distinct.
    """
    dim = vectors.shape[1]
    order = np.argsort(concepts, kind="stable")
    forms = forms[order]
    _, starts, sizes = np.unique(concepts[order], return_index=True, return_counts=True)
    if np.count_nonzero(sizes > 1) < _CONCEPTS_PER_DIMENSION * dim:
        return None
    within = _within(vectors, forms, starts=starts, sizes=sizes)
    mean = vectors.mean(axis=0, dtype=np.float64)
    total = _covariance(vectors, mean)
    ridge = _RIDGE * np.trace(within) / dim * np.eye(dim)
    values, basis = np.linalg.eigh(within + ridge)
    whiten = (basis * values**-0.5) @ basis.T
    between, directions = np.linalg.eigh(whiten @ (total - within) @ whiten)
    gains = np.maximum(between, 0) / (np.maximum(between, 0) + 1)
    order = np.argsort(-gains)
    matrix = (whiten @ (directions * gains))[:, order]
    matrix = matrix[:, : _kept(matrix, total)]
    return Projection(mean.astype(np.float32), matrix.astype(np.float32))


def _kept(matrix: NDArray[np.float64], covariance: NDArray[np.float64]) -> int:
    """How many first columns hold the wanted share of variance, in whole blocks of 32."""
    variances = np.einsum("ij,ik,kj->j", matrix, covariance, matrix)
    enough = 1 + int(np.searchsorted(np.cumsum(variances) / variances.sum(), _KEPT))
    return min(-(-enough // 32) * 32, int(matrix.shape[1]))


def _within(
    vectors: Matrix,
    forms: NDArray[np.int64],
    *,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean over concepts of the covariance of their forms: each concept counts alike."""
    dim = vectors.shape[1]
    scatter = np.zeros((dim, dim))
    several = np.flatnonzero(sizes > 1)
    for block in np.array_split(several, max(1, len(several) // 4096)):
        spans = [forms[starts[c] : starts[c] + sizes[c]] for c in block]
        rows = vectors[np.concatenate(spans)].astype(np.float64)
        group = np.repeat(np.arange(len(block)), sizes[block])
        begin = np.concatenate([[0], np.cumsum(sizes[block])[:-1]])
        means = np.add.reduceat(rows, begin) / sizes[block][:, None]
        scale = 1 / np.sqrt(sizes[block][group] - 1)
        rows = (rows - means[group]) * scale[:, None]
        scatter += rows.T @ rows
    return scatter / max(len(several), 1)


def _covariance(vectors: Matrix, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    dim = vectors.shape[1]
    scatter = np.zeros((dim, dim))
    for start in range(0, len(vectors), 65536):
        rows = vectors[start : start + 65536].astype(np.float64) - mean
        scatter += rows.T @ rows
    return scatter / max(len(vectors) - 1, 1)
