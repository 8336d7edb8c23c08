"""The ranker that asks a language model, and joins its scores with the retriever's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bioelx_ray.artifacts import sha256_json
from bioelx_ray.config_ranking import RankingConfig
from bioelx_ray.errors import ConfigError
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.ranking.asking import Asked, ask_listwise, ask_pointwise
from bioelx_ray.ranking.calibration import Calibration, open_calibration
from bioelx_ray.ranking.engine import Engine, open_engine
from bioelx_ray.ranking.fusion import Weights
from bioelx_ray.ranking.loop import LoopThread
from bioelx_ray.ranking.prompt import Prompts
from bioelx_ray.ranking.scoring import Values, behind
from bioelx_ray.ranking.template import open_template
from bioelx_ray.records import Candidate, Link, Mention


class LlmRanker:
    """Stage 2 by an engine. Whatever texts say, a link is one of the candidates, or NIL.

    `retriever` names what scored the candidates, such as ``dense`` and the encoder's fingerprint:
    a calibration holds for it alone.

    Attributes:
        binding: what a calibration is fitted to, by role.
    """

    def __init__(
        self, engine: Engine, kb: KnowledgeBase, *, config: RankingConfig, retriever: str
    ) -> None:
        self._engine = engine
        self._config = config
        self._template = open_template(config.prompt.template)
        self._prompts = Prompts(self._template, kb, engine=engine, config=config.prompt)
        self._loop = LoopThread()
        self.binding = _binding(
            engine, config, template=self._template.version, retriever=retriever
        )
        self.calibration = _calibration(config, self.binding)

    def rank(
        self,
        mentions: Sequence[Mention],
        candidates: Sequence[tuple[Candidate, ...]],
        *,
        deadline: float | None = None,
    ) -> list[Link]:
        """See `Ranker.rank` and `rank_async`; for callers that have no event loop."""
        return self._loop.run(self.rank_async(mentions, candidates, deadline=deadline))

    async def rank_async(
        self,
        mentions: Sequence[Mention],
        candidates: Sequence[tuple[Candidate, ...]],
        *,
        deadline: float | None = None,
    ) -> list[Link]:
        """One link a mention, in their order; its candidates by score, ties by concept id.

        `deadline` is in seconds since the epoch. Cancelled, it stops the engine's work.

        Raises:
            EngineTimeout: the deadline passed.
            EngineError: the engine fails.
            InputError: the knowledge base lacks a candidate's concept.
        """
        evidence = await self.evidence_async(mentions, candidates, deadline=deadline)
        return [
            self._decide(mention, proposed, scores)
            for mention, proposed, scores in zip(mentions, candidates, evidence, strict=True)
        ]

    def evidence(
        self, mentions: Sequence[Mention], candidates: Sequence[tuple[Candidate, ...]]
    ) -> list[Values]:
        """See `evidence_async`; for callers that have no event loop."""
        return self._loop.run(self.evidence_async(mentions, candidates))

    async def evidence_async(
        self,
        mentions: Sequence[Mention],
        candidates: Sequence[tuple[Candidate, ...]],
        *,
        deadline: float | None = None,
    ) -> list[Values]:
        """The engine's scores of each mention's candidates, float64 [candidates], not yet fused.

        A score is the candidate's log-odds against NIL. Candidates beyond the configured depth have
        the least of their mention's scores.

        Raises:
            EngineError, InputError: see `rank_async`.
        """
        depth = self._config.scoring.depth
        pairs = list(zip(mentions, candidates, strict=True))
        rows = [row for row in _by_place(mentions) if pairs[row][1]]
        asked = [Asked(mention=pairs[row][0], candidates=pairs[row][1][:depth]) for row in rows]
        evidence = [np.zeros(len(proposed)) for proposed in candidates]
        for row, scores in zip(rows, await self._ask(asked, deadline), strict=True):
            known = np.arange(len(evidence[row])) < depth
            evidence[row][known] = scores
            evidence[row] = behind(evidence[row], known)
        return evidence

    def close(self) -> None:
        """See `close_async`; for callers that have no event loop."""
        self._loop.run(self.close_async())
        self._loop.stop()

    async def close_async(self) -> None:
        """Free the engine, in the event loop that it was used in."""
        await self._engine.close()

    async def _ask(self, asked: Sequence[Asked], deadline: float | None) -> list[Values]:
        if not asked:
            return []
        ask = partial(self._engine.logprobs, deadline=deadline)
        if self._template.body.kind == "pointwise":
            return await ask_pointwise(ask, self._prompts, asked)
        return await ask_listwise(ask, self._prompts, asked, config=self._config.scoring)

    def _decide(
        self, mention: Mention, candidates: tuple[Candidate, ...], evidence: Values
    ) -> Link:
        retrieval = np.array([c.score for c in candidates], dtype=np.float64)
        chances = self.calibration.chances(evidence, retrieval)
        ranked = [
            replace(candidate, score=chance, retrieval_score=candidate.score)
            for candidate, chance in zip(candidates, chances.tolist(), strict=True)
        ]
        ranked.sort(key=lambda c: (-c.score, c.concept_id))
        concept_id, score, reason = self._choose(ranked)
        return Link(
            mention=mention,
            concept_id=concept_id,
            score=score,
            candidates=tuple(ranked),
            decided_by="ranking",
            reason=reason,
            ranker=self._engine.identity,
            prompt=self._template.version,
            calibration=self.calibration.fingerprint,
        )

    def _choose(self, ranked: Sequence[Candidate]) -> tuple[str | None, float, str]:
        if not ranked:
            return None, 0.0, "no candidate"
        threshold = self._config.nil_threshold
        if threshold is None:
            threshold = self.calibration.nil_threshold
        best = ranked[0]
        if threshold is not None and best.score < threshold:
            reason = f"best score {best.score:.3f} is below the NIL threshold {threshold:.3f}"
            return None, best.score, reason
        return best.concept_id, best.score, ""


def open_llm_ranker(config: RankingConfig, kb: KnowledgeBase, *, retriever: str) -> LlmRanker:
    """The ranker of a configuration, its engine opened.

    Raises:
        ConfigError: no engine is configured, or there is no such template.
        EngineError: the engine cannot be opened.
        ArtifactError: the calibration is missing, damaged, or was fitted to other scores.
    """
    if config.engine is None:
        raise ConfigError("ranking.engine is not set: name one, or keep the retriever's order")
    return LlmRanker(open_engine(config.engine), kb, config=config, retriever=retriever)


def _binding(
    engine: Engine, config: RankingConfig, *, template: str, retriever: str
) -> Mapping[str, str]:
    settings = [config.prompt.model_dump(exclude={"template"}), config.scoring.model_dump()]
    return {
        "engine": engine.identity,
        "template": template,
        "scoring": f"sha256:{sha256_json(settings)}",
        "retriever": retriever,
    }


def _calibration(config: RankingConfig, binding: Mapping[str, str]) -> Calibration:
    if config.calibration is not None:
        return open_calibration(Path(config.calibration), binding=binding)
    weights = Weights(ranker=config.ranker_weight, retrieval=config.retrieval_weight)
    return Calibration(weights=weights)


def _by_place(mentions: Sequence[Mention]) -> list[int]:
    """Rows by document and place: their prompts begin alike, and an engine's cache is small."""

    def place(row: int) -> tuple[str, int, int]:
        mention = mentions[row]
        return mention.document_id or "", mention.start or 0, row

    return sorted(range(len(mentions)), key=place)
