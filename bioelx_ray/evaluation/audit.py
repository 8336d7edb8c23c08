"""How much of a result is recall of forms that the knowledge base already holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from bioelx_ray.evaluation import report as reports
from bioelx_ray.evaluation.report import Outcome, Report
from bioelx_ray.evaluation.summary import summarise
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Mention

IsSeen = Callable[[Mention, frozenset[str]], bool]
"""Whether the mention's normalised text is an alias of one of the gold concepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A report taken apart. `share` is that of seen mentions by key, `mean` their mean over keys.

    Counts of both reports are those of mentions with gold in the knowledge base.
    """

    share: dict[str, float]
    seen: Report
    unseen: Report


def seen_in(kb: KnowledgeBase) -> IsSeen:
    """Whether a mention's form is that of an alias of a gold concept in this knowledge base."""

    @cache
    def forms(concept_id: str) -> frozenset[str]:
        aliases = kb.aliases_of(concept_id)
        return frozenset(normalise(alias.text, alias.lang) for alias in aliases)

    def is_seen(mention: Mention, gold: frozenset[str]) -> bool:
        form = normalise(mention.text, mention.lang)
        return any(form in forms(concept_id) for concept_id in gold)

    return is_seen


def audit(report: Report, is_seen: IsSeen) -> Audit:
    """Figures over seen and over unseen mentions, without retrieving again.

    349 of XL-BEL's 1,000 German pairs stand verbatim in WikiMed-DE-BEL: with a knowledge base
    that holds it, `unseen` is the figure about German.
    """
    seen: dict[str, list[Outcome]] = {}
    unseen: dict[str, list[Outcome]] = {}
    for row in report.rows:
        seen[row.key], unseen[row.key] = [], []
        for outcome in row.outcomes:
            part = seen if is_seen(outcome.gold.mention, outcome.gold.concept_ids) else unseen
            part[row.key].append(outcome)
    share = {row.key: len(seen[row.key]) / row.n_in_kb for row in report.rows if row.n_in_kb}
    share["mean"] = sum(share.values()) / len(share)
    return Audit(share=share, seen=_report(seen, report.k), unseen=_report(unseen, report.k))


def _report(outcomes: dict[str, list[Outcome]], k: int) -> Report:
    return summarise(outcomes, n={key: len(items) for key, items in outcomes.items()}, k=k)


def as_json(audit: Audit) -> dict[str, Any]:
    """The shares and both reports as JSON values."""
    return {
        "share_seen": audit.share,
        "seen": reports.as_json(audit.seen),
        "unseen": reports.as_json(audit.unseen),
    }
