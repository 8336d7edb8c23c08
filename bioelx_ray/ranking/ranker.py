"""Stage 2's protocol: mentions and their candidates in, links out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bioelx_ray.config import RankingConfig
from bioelx_ray.records import Candidate, Link, Mention


class Ranker(Protocol):
    """Decides between candidates, or for NIL."""

    def rank(
        self, mentions: Sequence[Mention], candidates: Sequence[tuple[Candidate, ...]]
    ) -> list[Link]:
        """One link a mention, in the order of the mentions; its candidates best first."""
        ...


class PassThroughRanker:
    """Keeps the retriever's order: the first candidate, or NIL below the threshold."""

    def __init__(self, config: RankingConfig | None = None) -> None:
        self._threshold = (config or RankingConfig()).nil_threshold

    def rank(
        self, mentions: Sequence[Mention], candidates: Sequence[tuple[Candidate, ...]]
    ) -> list[Link]:
        """See `Ranker.rank`."""
        return [self._decide(m, c) for m, c in zip(mentions, candidates, strict=True)]

    def _decide(self, mention: Mention, candidates: tuple[Candidate, ...]) -> Link:
        concept_id: str | None = None
        score, reason = 0.0, "no candidate"
        if candidates:
            best = candidates[0]
            concept_id, score, reason = best.concept_id, best.score, ""
            if self._threshold is not None and score < self._threshold:
                concept_id = None
                reason = f"best score {score:.3f} is below the NIL threshold {self._threshold:.3f}"
        return Link(
            mention=mention,
            concept_id=concept_id,
            score=score,
            candidates=candidates,
            decided_by="retrieval",
            reason=reason,
        )
