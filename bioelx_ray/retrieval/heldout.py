"""Questions that a knowledge base asks of itself, to choose what is fitted without annotated text.

A form is hidden, and its concept is to be found by its other forms. A *crossing* question hides
also the ones in the hidden form's own language, if the concept has forms in others: else a spelling
variant would answer nearly every question, and no cross-lingual one be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.kb.text import script
from bioelx_ray.retrieval.forms import FormTable

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Find `answers`, rows of forms, by the form `query`, as if `hidden` were not there."""

    query: int
    script: str
    answers: Rows
    hidden: Rows

    def shown(self) -> Question:
        """The same with nothing hidden: for a query that differs from its form."""
        answers = np.union1d(self.answers, self.hidden)
        return replace(self, answers=answers, hidden=self.hidden[:0])


_TRIED = 30_000
"""Forms looked at, at most: enough for every script that a hundredth of the forms are in."""


def questions(
    table: FormTable,
    *,
    per_script: int,
    seed: int,
    crossing: bool,
    among: NDArray[np.bool_] | None = None,
) -> list[Question]:
    """At most so many questions a script of the hidden form, drawn at random.

    With `crossing` every second one is a crossing question. `among`, bool [concepts], limits the
    concepts that are asked for.
    """
    forms, concepts = table.pairs()
    order = np.lexsort((forms, concepts))
    forms, concepts = forms[order], concepts[order]
    langs = np.array(table.languages())
    bounds = np.searchsorted(concepts, np.arange(len(table.concepts) + 1))
    asked: dict[str, int] = {}
    drawn: list[Question] = []
    wanted = np.arange(len(forms)) if among is None else np.flatnonzero(among[concepts])
    for at in np.random.default_rng(seed).permutation(wanted)[:_TRIED]:
        own = forms[bounds[concepts[at]] : bounds[concepts[at] + 1]]
        hard = crossing and len(drawn) % 2 == 0
        question = _question(forms[at], own=own, langs=langs, table=table, hard=hard)
        if question and asked.get(question.script, 0) < per_script:
            asked[question.script] = asked.get(question.script, 0) + 1
            drawn.append(question)
    return drawn


def _question(
    query: np.int64, *, own: Rows, langs: NDArray[np.str_], table: FormTable, hard: bool
) -> Question | None:
    answers = own[own != query]
    if hard and len(foreign := answers[langs[answers] != langs[query]]):
        answers = foreign
    if not len(answers):
        return None
    form = table.forms[query]
    return Question(
        query=int(query), script=script(form), answers=answers, hidden=np.setdiff1d(own, answers)
    )


def reciprocal_ranks(
    asked: Sequence[Question], rows: Rows, scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """1 / rank of the first answer among the proposed forms, 0 where it is not among them.

    Args:
        asked: n questions.
        rows: int64 [n, m], proposed forms in any order, -1 for none.
        scores: float32 [n, m].
    """
    ranks = np.zeros(len(asked))
    for at, question in enumerate(asked):
        usable = (rows[at] >= 0) & ~np.isin(rows[at], question.hidden)
        right = usable & np.isin(rows[at], question.answers)
        if right.any():
            best = scores[at][right].max()
            ranks[at] = 1 / (1 + np.count_nonzero(scores[at][usable & ~right] > best))
    return ranks
