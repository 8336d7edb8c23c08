"""Both stages in one process. READ THIS FIRST.

linker = Linker(open_retriever(Path("index")), PassThroughRanker())
linker.link([mention_in("Patient mit Herzinfarkt", 12, 23, lang="de")])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import EncoderConfig, RankingConfig, RetrievalConfig, RetrieverName
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.ranking.ranker import PassThroughRanker, Ranker
from bioelx_ray.records import Link, Mention
from bioelx_ray.retrieval import retriever as stage_one
from bioelx_ray.retrieval.encoder import open_encoder
from bioelx_ray.retrieval.opened import open_index
from bioelx_ray.retrieval.retriever import Filter, Retriever

__all__ = ["Linker", "PassThroughRanker", "open_ranker", "open_retriever", "retriever_name"]


class Linker:
    """Stage 1 proposes, stage 2 decides."""

    def __init__(self, retriever: Retriever, ranker: Ranker) -> None:
        self.retriever = retriever
        self.ranker = ranker

    def link(
        self, mentions: Sequence[Mention], *, k: int = 64, where: Filter | None = None
    ) -> list[Link]:
        """One link a mention, in their order, each with at most `k` candidates.

        Raises:
            InputError: a value of `where` does not occur in the index.
        """
        return self.ranker.rank(mentions, self.retriever.retrieve(mentions, k=k, where=where))


def open_retriever(
    index: Path,
    *,
    encoder: EncoderConfig | None = None,
    retrieval: RetrievalConfig | None = None,
) -> Retriever:
    """The retriever that is configured over an index, its encoder loaded.

    Without an encoder's settings the encoder is the one that the index was built with.

    Raises:
        ArtifactError: the index is missing, damaged, or was built with another encoder.
        EncoderError: the encoder cannot be loaded.
    """
    settings = encoder or EncoderConfig()
    opened = open_index(index, threads=settings.threads)
    if encoder is None:
        settings = EncoderConfig(**opened.artifact.manifest.config["encoder_settings"])
    name: RetrieverName = (retrieval or RetrievalConfig()).retriever
    if name == "lexical":
        return stage_one.lexical(opened)
    make = stage_one.dense if name == "dense" else stage_one.hybrid
    return make(opened, open_encoder(settings))


def open_ranker(config: RankingConfig, kb: KnowledgeBase, *, retriever: str) -> Ranker:
    """The ranker that is configured, its engine opened; without an engine retrieval decides.

    `retriever` is what `retriever_name` says of the one that proposes.

    Raises:
        ConfigError: there is no such template, or a key is not set.
        EngineError: the engine cannot be opened.
        ArtifactError: the calibration is missing, damaged, or was fitted to other scores.
    """
    if config.engine is None:
        return PassThroughRanker(config)
    from bioelx_ray.ranking.llm_ranker import open_llm_ranker

    return open_llm_ranker(config, kb, retriever=retriever)


def retriever_name(index: Path, retrieval: RetrievalConfig | None = None) -> str:
    """Names what scores the candidates: a kind of retriever over vectors of an encoder.

    Raises:
        ArtifactError: the index is missing or damaged.
    """
    encoder = open_artifact(index, "index").manifest.inputs["encoder"]
    return f"{(retrieval or RetrievalConfig()).retriever} {encoder}"
