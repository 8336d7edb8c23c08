"""An inverted index of character n-grams: cosine of idf-weighted, binary vectors."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bioelx_ray.retrieval.ngrams import ngrams
from bioelx_ray.retrieval.threads import cpu_count

_FILES = ("ngrams", "starts", "forms", "weights")
_CHUNK = 32
"""Queries a multiplication: bounds the memory of their dense-ish rows to some 30 MB a thread."""


def write_lexical(forms: Sequence[str], directory: Path) -> int:
    """Index normalised forms into ``lexical.*.npy`` files; their number of distinct n-grams."""
    hashes, owners = ngrams(forms)
    known, columns = np.unique(hashes, return_inverse=True)
    pairs = np.unique(columns.astype(np.int64) * len(forms) + owners)
    columns, owners = np.divmod(pairs, max(len(forms), 1))
    frequency = np.bincount(columns, minlength=len(known))
    idf = _idf(frequency, len(forms))
    norms = np.sqrt(np.bincount(owners, weights=idf[columns] ** 2, minlength=len(forms)))
    arrays: tuple[NDArray[Any], ...] = (
        known,
        np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64),
        owners.astype(np.int32),
        (idf[columns] / np.maximum(norms[owners], 1e-9)).astype(np.float32),
    )
    for name, array in zip(_FILES, arrays, strict=True):
        np.save(_file(directory, name), array)
    return len(known)


def _file(directory: Path, name: str) -> Path:
    return directory / f"lexical.{name}.npy"


def _idf(frequency: NDArray[np.int64], forms: int) -> NDArray[np.float64]:
    idf: NDArray[np.float64] = np.log((forms + 1) / (frequency + 1))
    return np.maximum(idf, 1e-3)  # an n-gram of every form still tells that there is one


class LexicalIndex:
    """The opened, memory-mapped index. Its arrays are read at the first query."""

    def __init__(self, directory: Path, *, forms: int) -> None:
        self._directory = directory
        self._forms = forms

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(_file(self._directory, name), mmap_mode="r")
        return array

    @cached_property
    def _ngrams(self) -> NDArray[Any]:
        return self._array("ngrams")

    @cached_property
    def _matrix(self) -> sp.csr_matrix:
        shape = (len(self._ngrams), self._forms)
        parts = (self._array("weights"), self._array("forms"), self._array("starts"))
        return sp.csr_matrix(parts, shape=shape, copy=False)

    def search(
        self,
        queries: Sequence[str],
        *,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        also: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """The nearest forms of normalised queries.

        Args:
            queries: n normalised texts.
            k: how many forms a query.
            allowed: bool [forms]; forms that may be found (default: all).
            also: int [n, m]; forms whose scores are wanted besides (-1: none).

        Returns:
            scores float32 [n, k] and rows int64 [n, k], best first, ties by row, padded with 0
            and -1; and the scores of `also`, float32 [n, m].
        """
        weights = self._weights(queries)
        extra = np.full((len(queries), 0), -1, dtype=np.int64) if also is None else also
        found = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        asked = np.zeros(extra.shape, dtype=np.float32)

        def chunk(start: int) -> None:
            stop = min(start + _CHUNK, len(queries))
            product = weights[start:stop] @ self._matrix
            scratch = np.zeros(self._forms, dtype=np.float32)
            for at in range(start, stop):
                span = slice(product.indptr[at - start], product.indptr[at - start + 1])
                scores, forms = product.data[span], product.indices[span]
                scratch[forms] = scores
                asked[at] = np.where(extra[at] >= 0, scratch[extra[at]], 0)
                scratch[forms] = 0
                if allowed is not None:
                    keep = allowed[forms]
                    scores, forms = scores[keep], forms[keep]
                _best(scores, forms, into=(found[at], rows[at]))

        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(chunk, range(0, len(queries), _CHUNK)))
        return found, rows, asked

    def _weights(self, queries: Sequence[str]) -> sp.csr_matrix:
        """The queries' unit vectors; an unknown n-gram counts as the rarest in their length."""
        hashes, owners = ngrams(queries)
        pairs = np.unique(np.stack([owners.astype(np.uint64), hashes]), axis=1)
        owners, hashes = pairs[0].astype(np.int64), pairs[1]
        columns = np.searchsorted(self._ngrams, hashes)
        columns = np.minimum(columns, len(self._ngrams) - 1)
        known = self._ngrams[columns] == hashes
        starts = self._matrix.indptr
        idf = _idf(np.where(known, starts[columns + 1] - starts[columns], 0), self._forms)
        norms = np.sqrt(np.bincount(owners, weights=idf**2, minlength=len(queries)))
        values = (idf / np.maximum(norms[owners], 1e-9)).astype(np.float32)
        shape = (len(queries), len(self._ngrams))
        return sp.csr_matrix((values[known], (owners[known], columns[known])), shape=shape)


def _best(
    scores: NDArray[np.float32],
    forms: NDArray[np.int32],
    *,
    into: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    k = len(into[0])
    if len(scores) > k:
        # every form that ties with the last one stays in, so that ties go by row, not by chance
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= edge
        scores, forms = scores[keep], forms[keep]
    order = np.lexsort((forms, -scores))[:k]
    into[0][: len(order)] = scores[order]
    into[1][: len(order)] = forms[order]
