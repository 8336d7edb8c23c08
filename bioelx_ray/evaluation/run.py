"""Measure a retriever on gold mentions, and compare two measurements."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.metrics import (
    Difference,
    Values,
    first_gold_rank,
    hits_at,
    paired_test,
)
from bioelx_ray.evaluation.report import Outcome, Report, Row
from bioelx_ray.evaluation.summary import document_groups, summarise
from bioelx_ray.records import GoldMention, Mention
from bioelx_ray.retrieval.retriever import Retriever

Progress = Callable[[int, int], None]
"""Called with how many mentions are done, and how many there are."""


def evaluate(
    retriever: Retriever,
    gold: Mapping[str, Sequence[GoldMention]],
    *,
    known: Container[str],
    k: int = 64,
    batch: int = 256,
    progress: Progress | None = None,
) -> Report:
    """Recall@1, @5, @64 and MRR by key, over mentions with a gold concept in the knowledge base.

    `known` are the ids in the knowledge base; a mention counts if one of its gold ids is there.
    Mentions that are alike in every field are retrieved once and counted as often as they occur.

    Raises:
        InputError: no gold mention has a known concept, so there is nothing to measure.
    """
    asked = {
        key: [item for item in items if any(gold_id in known for gold_id in item.concept_ids)]
        for key, items in gold.items()
    }
    mentions = list(dict.fromkeys(item.mention for items in asked.values() for item in items))
    if not mentions:
        raise InputError(
            f"none of {sum(map(len, gold.values()))} gold mentions has a concept that is in the "
            "knowledge base: do both write their ids alike, as in umls:C0027051?"
        )
    found: dict[Mention, list[str]] = {}
    for start in range(0, len(mentions), batch):
        found |= _retrieve(retriever, mentions[start : start + batch], k=k)
        if progress:
            progress(len(found), len(mentions))
    outcomes = {key: [_outcome(item, found) for item in items] for key, items in asked.items()}
    return summarise(outcomes, n={key: len(items) for key, items in gold.items()}, k=k)


def _retrieve(
    retriever: Retriever, mentions: Sequence[Mention], *, k: int
) -> dict[Mention, list[str]]:
    proposed = retriever.retrieve(mentions, k=k)
    return {
        mention: [candidate.concept_id for candidate in candidates]
        for mention, candidates in zip(mentions, proposed, strict=True)
    }


def _outcome(gold: GoldMention, found: Mapping[Mention, Sequence[str]]) -> Outcome:
    return Outcome(gold=gold, rank=first_gold_rank(found[gold.mention], gold.concept_ids))


def compare(left: Report, right: Report, *, cutoff: int = 1) -> dict[str, Difference]:
    """Recall@`cutoff` of `left` less that of `right`, by key and, last, for the ``mean``.

    Rows without mentions are left out.

    Raises:
        InputError: the reports are not over the same mentions, or asked for less than `cutoff`.
    """
    if cutoff > min(left.k, right.k):
        raise InputError(f"Recall@{cutoff} of reports with k={left.k} and k={right.k}")
    pairs = [pair for pair in zip(left.rows, right.rows, strict=False) if pair[0].outcomes]
    if not pairs or _mentions(left) != _mentions(right):
        raise InputError("the reports do not cover the same mentions: evaluate both on one suite")
    result = {one.key: _difference([(one, other)], cutoff) for one, other in pairs}
    return {**result, "mean": _difference(pairs, cutoff)}


def _mentions(report: Report) -> list[tuple[str, list[GoldMention]]]:
    return [(row.key, [outcome.gold for outcome in row.outcomes]) for row in report.rows]


def _difference(pairs: Sequence[tuple[Row, Row]], cutoff: int) -> Difference:
    outcomes = [outcome for row, _ in pairs for outcome in row.outcomes]
    # Weights under which the mean over all mentions is the unweighted mean over rows.
    weights = np.concatenate(
        [np.full(row.n_in_kb, len(outcomes) / row.n_in_kb / len(pairs)) for row, _ in pairs]
    )
    left, right = (
        weights * np.concatenate([_hits(pair[side], cutoff) for pair in pairs]) for side in (0, 1)
    )
    return paired_test(left, right, document_groups(outcomes))


def _hits(row: Row, cutoff: int) -> Values:
    ranks = np.array([outcome.rank for outcome in row.outcomes], dtype=np.int64)
    return hits_at(ranks, cutoff)
