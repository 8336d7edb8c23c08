"""STAGE 1. The protocol, and the retrievers over one index: dense, lexical and hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.kb.text import normalise, script
from bioelx_ray.records import Candidate, Mention
from bioelx_ray.retrieval.encoder import Encoder
from bioelx_ray.retrieval.filters import Filter
from bioelx_ray.retrieval.forms import Forms
from bioelx_ray.retrieval.opened import Index

__all__ = ["Filter", "FormRetriever", "Retriever", "dense", "hybrid", "lexical"]

_FORMS_PER_CANDIDATE = 4
"""Forms searched for each candidate wanted: a concept has 3 to 4 forms near a mention of it."""
_CONFIDENCE = 4

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Retriever(Protocol):
    """Proposes concepts for mentions."""

    def retrieve(
        self, mentions: Sequence[Mention], *, k: int, where: Filter | None = None
    ) -> list[tuple[Candidate, ...]]:
        """At most `k` candidates a mention, in the order and number of the mentions.

        Candidates of a mention are distinct concepts, best first, ties by concept id.

        Raises:
            InputError: a value of `where` does not occur in the index.
        """
        ...


class Proposer(Protocol):
    """Proposes forms for normalised queries."""

    def __call__(
        self, queries: Sequence[str], *, k: int, allowed: Mask | None
    ) -> tuple[Scores, Rows]:
        """Scores float32 [n, m] and rows of forms int64 [n, m], m >= k, -1 where there is none."""
        ...


def dense(index: Index, encoder: Encoder) -> FormRetriever:
    """Nearest vectors.

    Raises:
        ArtifactMismatch: the index was built with another encoder.
    """
    index.check_encoder(encoder)

    def propose(queries: Sequence[str], *, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        return index.dense.search(index.project(encoder.encode(queries)), k=k, allowed=allowed)

    return FormRetriever(index.forms, propose)


def lexical(index: Index) -> FormRetriever:
    """Most character n-grams in common."""

    def propose(queries: Sequence[str], *, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        scores, rows, _ = index.lexical.search(queries, k=k, allowed=allowed)
        return scores, rows

    return FormRetriever(index.forms, propose)


def hybrid(index: Index, encoder: Encoder) -> FormRetriever:
    """What either finds, by a sum of both scores whose weight depends on the mention's script.

    Raises:
        ArtifactMismatch: the index was built with another encoder.
    """
    index.check_encoder(encoder)

    def propose(queries: Sequence[str], *, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        vectors = index.project(encoder.encode(queries))
        pools = pool_scores(index, queries, vectors=vectors, k=k, allowed=allowed)
        weights = np.array([index.lexical_weight(script(query)) for query in queries])
        return fuse(*pools, weights=weights)

    return FormRetriever(index.forms, propose)


def pool_scores(
    index: Index,
    queries: Sequence[str],
    *,
    vectors: NDArray[np.float32],
    k: int,
    allowed: Mask | None = None,
) -> tuple[Rows, Scores, Scores]:
    """The forms that either side finds: rows int64 [n, m] and both exact scores, float32 [n, m].

    A form that both find stands once; -1 takes the second place.
    """
    dense_scores, dense_rows = index.dense.search(vectors, k=k, allowed=allowed)
    share = max(1, k // _FORMS_PER_CANDIDATE)
    lexical_scores, lexical_rows, of_dense = index.lexical.search(
        queries, k=share, allowed=allowed, also=dense_rows
    )
    for found, seen in zip(lexical_rows, dense_rows, strict=True):
        found[np.isin(found, seen)] = -1
    of_lexical = index.dense.scores_of(vectors, lexical_rows)
    return (
        np.concatenate([dense_rows, lexical_rows], axis=1),
        np.concatenate([dense_scores, of_lexical], axis=1),
        np.concatenate([of_dense, lexical_scores], axis=1),
    )


def fuse(
    rows: Rows, dense_scores: Scores, lexical_scores: Scores, *, weights: NDArray[np.floating]
) -> tuple[Scores, Rows]:
    """The mean of both scores, the lexical one weighted by `weights` [n]. Not sorted.

    The lexical score counts by its fourth power: nearly all n-grams in common mean a spelling of
    the same name, half of them often a sibling of the concept (*type 1*, *type 2*).
    """
    column = weights.astype(np.float32)[:, None]
    fused = (dense_scores + column * lexical_scores**_CONFIDENCE) / (1 + column)
    return fused.astype(np.float32), rows


class FormRetriever:
    """Turns proposed forms into candidates."""

    def __init__(self, forms: Forms, propose: Proposer) -> None:
        self._forms = forms
        self._propose = propose

    def retrieve(
        self, mentions: Sequence[Mention], *, k: int, where: Filter | None = None
    ) -> list[tuple[Candidate, ...]]:
        """See `Retriever.retrieve`."""
        allowed, aliases = (None, None) if where is None else self._forms.allowed(where)
        keys = [(normalise(m.text, m.lang), m.lang) for m in mentions]
        found: dict[tuple[str, str], tuple[Candidate, ...]] = dict.fromkeys(keys, ())
        left = [key for key in found if key[0]]
        depth = min(len(self._forms), k * _FORMS_PER_CANDIDATE)
        while left:
            queries = [query for query, _ in left]
            scores, rows = self._propose(queries, k=depth, allowed=allowed)
            chosen = self._candidates(
                scores, rows, langs=[lang for _, lang in left], k=k, ok=aliases
            )
            found.update(zip(left, chosen, strict=True))
            if depth == len(self._forms):
                break
            # many forms of few concepts: search deeper, as long as there are more to find
            full = np.count_nonzero(rows >= 0, axis=1) >= depth
            left = [
                key for key, more in zip(left, full, strict=True) if more and len(found[key]) < k
            ]
            depth = min(len(self._forms), depth * 4)
        return [found[key] for key in keys]

    def _candidates(
        self, scores: Scores, rows: Rows, *, langs: Sequence[str], k: int, ok: Mask | None
    ) -> list[tuple[Candidate, ...]]:
        """The best alias of each concept, the best concepts of each query.

        Of a concept's aliases with one form the one in the mention's language is shown, else a
        preferred one, else the first.
        """
        forms = self._forms
        query, place = np.nonzero(rows >= 0)
        row = rows[query, place]
        sizes = forms.starts[row + 1] - forms.starts[row]
        offset = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        alias = np.repeat(forms.starts[row], sizes) + offset
        query, score = np.repeat(query, sizes), np.repeat(scores[query, place], sizes)
        if ok is not None:
            query, score, alias = query[ok[alias]], score[ok[alias]], alias[ok[alias]]
        concept = forms.concept_of[alias]
        same = forms.in_language(alias, langs, query)
        best = np.lexsort((alias, ~forms.preferred[alias], ~same, concept, -score, query))
        key = query.astype(np.int64) * forms.concepts + concept
        _, first = np.unique(key[best], return_index=True)
        best = best[np.sort(first)]
        place_in_query = np.arange(len(best)) - np.searchsorted(query[best], query[best])
        best = best[place_in_query < k]
        return self._records(query[best], score[best], alias[best], n=len(rows))

    def _records(
        self, query: Rows, score: Scores, alias: Rows, *, n: int
    ) -> list[tuple[Candidate, ...]]:
        columns = self._forms.columns(alias)
        records = [
            Candidate(concept_id=c, alias=a, lang=lang, source=source, score=value)
            for c, a, lang, source, value in zip(*columns.values(), score.tolist(), strict=True)
        ]
        bounds = np.searchsorted(query, np.arange(n + 1))
        return [tuple(records[a:b]) for a, b in pairwise(bounds)]
