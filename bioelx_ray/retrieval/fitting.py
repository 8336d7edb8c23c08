"""What an index fits to its own knowledge base: the projection's use, and the hybrid's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.retrieval.encoder import Encoder
from bioelx_ray.retrieval.forms import FormTable
from bioelx_ray.retrieval.heldout import Question, questions, reciprocal_ranks
from bioelx_ray.retrieval.index import exact_search
from bioelx_ray.retrieval.opened import OTHER_SCRIPTS, Index
from bioelx_ray.retrieval.projection import Projection, fit_projection, identity
from bioelx_ray.retrieval.retriever import fuse, pool_scores

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_HELD_OUT = 0.2
"""Share of the concepts that a projection on trial is not fitted to."""
_DEPTH = 256
_FEWEST = 100
"""Questions of a script, under which it takes the weight of all scripts together."""


def choose_projection(
    vectors: NDArray[np.float16], table: FormTable, *, seed: int
) -> tuple[Projection, dict[str, object]]:
    """The fitted projection where it helps on concepts that it was not fitted to, else none.

    Returns:
        The projection, and for the manifest whether it is fitted and the mean reciprocal rank on
        held-out forms without and with it.
    """
    plain = identity(vectors.shape[1])
    held_out = np.random.default_rng(seed).random(len(table.concepts)) < _HELD_OUT
    asked = questions(table, per_script=400, seed=seed, crossing=True, among=held_out)
    forms, concepts = table.pairs()
    rest = ~held_out[concepts]
    trial = fit_projection(vectors, forms=forms[rest], concepts=concepts[rest])
    if trial is None or not asked:
        return plain, {"fitted": False, "reason": "too few concepts with several forms"}
    before, after = (_mean_rank(vectors, asked, by=by) for by in (plain, trial))
    figures: dict[str, object] = {
        "questions": len(asked),
        "mrr_without": round(before, 4),
        "mrr_with": round(after, 4),
    }
    fitted = fit_projection(vectors, forms=forms, concepts=concepts) if after > before else None
    chosen = fitted or plain
    return chosen, {"fitted": fitted is not None, "dimensions": chosen.matrix.shape[1], **figures}


def _mean_rank(vectors: NDArray[np.float16], asked: Sequence[Question], *, by: Projection) -> float:
    queries = by(vectors[[question.query for question in asked]])
    scores, rows = exact_search((by(block) for block in _blocks(vectors)), queries, k=_DEPTH)
    return float(reciprocal_ranks(asked, rows, scores).mean())


def _blocks(vectors: NDArray[np.float16]) -> list[NDArray[np.float16]]:
    return [vectors[start : start + 65536] for start in range(0, len(vectors), 65536)]


def fit_fusion(
    index: Index, table: FormTable, encoder: Encoder, *, seed: int
) -> tuple[dict[str, float], dict[str, object]]:
    """The lexical weight of each script, by mean reciprocal rank on held-out and misspelt forms.

    A mention is seldom unlike all forms: as many questions are asked with a form that lacks a
    letter as with one that is hidden.

    Returns:
        Weights by script, with `OTHER_SCRIPTS` for those that have too few questions; and for the
        manifest the rank with the weight 0 and with the chosen one.
    """
    held_out = questions(table, per_script=400, seed=seed + 1, crossing=False)
    if len(held_out) < _FEWEST:
        return {OTHER_SCRIPTS: 0.0}, {"questions": len(held_out)}
    rng = np.random.default_rng(seed)
    asked = held_out + [question.shown() for question in held_out]
    forms = [table.forms[question.query] for question in held_out]
    queries = forms + [_misspelt(form, rng) for form in forms]
    vectors = index.project(encoder.encode(queries))
    pools = pool_scores(index, queries, vectors=vectors, k=min(_DEPTH, len(table.forms)))
    ranks = np.stack(
        [
            reciprocal_ranks(asked, pools[0], fuse(*pools, weights=np.full(len(asked), w))[0])
            for w in WEIGHTS
        ]
    )
    return _best_weights(ranks, scripts=np.array([question.script for question in asked]))


def _misspelt(form: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(form)))
    return form[:at] + form[at + 1 :] if len(form) > 2 else form


def _best_weights(
    ranks: NDArray[np.float64], *, scripts: NDArray[np.str_]
) -> tuple[dict[str, float], dict[str, object]]:
    """By script, from reciprocal ranks [weights, questions]."""
    groups = {OTHER_SCRIPTS: np.ones(len(scripts), dtype=np.bool_)}
    names, counts = np.unique(scripts, return_counts=True)
    groups |= {str(name): scripts == name for name in names[counts >= _FEWEST]}
    means = {name: ranks[:, mask].mean(axis=1) for name, mask in groups.items()}
    weights = {name: WEIGHTS[int(np.argmax(mean))] for name, mean in means.items()}
    figures: dict[str, object] = {
        name: {
            "questions": int(groups[name].sum()),
            "mrr_dense": round(float(mean[0]), 4),
            "mrr": round(float(mean.max()), 4),
        }
        for name, mean in means.items()
    }
    return weights, figures
