"""Stage 1 as a replica holds it, opened from its artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from bioelx_ray.artifacts import Manifest, open_artifact
from bioelx_ray.config import EncoderConfig, RetrievalConfig
from bioelx_ray.errors import ArtifactMismatch
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.records import Alias, GoldMention, Mention
from bioelx_ray.tables import from_table
from deployments.schemas import KbOut, ModelOut

if TYPE_CHECKING:  # its module loads FAISS and torch, which the gateway does without
    from bioelx_ray.retrieval.retriever import Retriever


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Retriever and knowledge base. `vocabularies` and `types` are what filters may name.

    `depth` is how many candidates a mention are searched, however few are asked for: what comes
    first must not depend on how much comes after it. `canary` is a query with a known answer.
    """

    retriever: Retriever
    kb: KnowledgeBase
    depth: int
    canary: GoldMention
    model: ModelOut
    vocabularies: tuple[str, ...]
    types: tuple[str, ...]


def open_stage(
    index: Path, kb: Path, *, encoder: EncoderConfig | None, retrieval: RetrievalConfig
) -> Stage:
    """Open index, encoder and knowledge base.

    Raises:
        ArtifactError: one is missing or damaged, or the index was made from another knowledge base.
    """
    from bioelx_ray.linker import open_retriever  # loads FAISS and torch

    known = KnowledgeBase.open(kb)
    built = open_artifact(index, "index").manifest
    _check_pair(index, kb, wanted=built.inputs.get("kb"), found=known.artifact.manifest.fingerprint)
    vocabularies, types = _filters(known)
    return Stage(
        retriever=open_retriever(index, encoder=encoder, retrieval=retrieval),
        kb=known,
        depth=retrieval.top_k,
        canary=_canary(known),
        model=_model(built, known.artifact.manifest),
        vocabularies=vocabularies,
        types=types,
    )


def _check_pair(index: Path, kb: Path, *, wanted: str | None, found: str) -> None:
    if wanted != found:
        raise ArtifactMismatch(
            f"{index} was made from the knowledge base {wanted}, {kb} is {found}: give the one "
            "that it was made from, or build the index again"
        )


def _canary(kb: KnowledgeBase) -> GoldMention:
    (alias,) = from_table(kb.aliases.slice(0, 1), Alias)
    mention = Mention(text=alias.text, lang=alias.lang)
    return GoldMention(mention=mention, concept_ids=frozenset({alias.concept_id}))


def _model(index: Manifest, kb: Manifest) -> ModelOut:
    # a file's source is named by its path, which is no client's business
    sources = [KbOut(id=Path(source.name).name, version=source.version) for source in kb.sources]
    return ModelOut(encoder=index.inputs["encoder"], index_version=index.fingerprint, kb=sources)


def _filters(kb: KnowledgeBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The vocabularies and semantic types of the concepts, in alphabetical order."""
    ids, types = kb.concepts.column("id"), kb.concepts.column("semantic_types")
    prefixes = pc.unique(pc.list_element(pc.split_pattern(ids, ":", max_splits=1), 0))
    present = pc.unique(pc.list_flatten(types))
    return tuple(sorted(prefixes.to_pylist())), tuple(sorted(present.to_pylist()))
