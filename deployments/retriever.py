"""The retriever as a deployment: index, encoder and knowledge base behind one thread.

The event loop only waits. One thread does the work in the order of arrival: the encoder already
uses every core of the replica, and neither tokenizers nor knowledge base need to be thread-safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pyarrow as pa

from bioelx_ray.records import Candidate, Concept, Mention
from bioelx_ray.retrieval.filters import Filter
from bioelx_ray.tables import from_table, to_table
from deployments.problems import where
from deployments.schemas import ModelOut
from deployments.stage import Stage

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Candidates of all mentions, `counts[i]` rows for mention i, and their concepts, each once."""

    candidates: pa.Table
    counts: list[int]
    concepts: pa.Table
    model: ModelOut
    seconds: float

    def per_mention(self) -> list[tuple[Candidate, ...]]:
        """The candidates, a tuple a mention."""
        rows = iter(from_table(self.candidates, Candidate))
        return [tuple(next(rows) for _ in range(count)) for count in self.counts]

    def by_id(self) -> dict[str, Concept]:
        """The concepts of the candidates."""
        return {concept.id: concept for concept in from_table(self.concepts, Concept)}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFilter:
    """Values of a filter that do not occur in the index, by place, and those that do."""

    key: Literal["kb", "types"]
    places: list[int]
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Mentions (an Arrow table) and how to search. `deadline` is in seconds since the epoch."""

    mentions: pa.Table
    k: int
    deadline: float
    vocabularies: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)


class RetrieverDeployment:
    """Serve runs one a replica. `open_stage` is called in it, once."""

    def __init__(self, open_stage: Callable[[], Stage]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retrieval")
        self._stage = self._thread.submit(open_stage).result()

    async def retrieve(self, query: Query) -> Retrieved | UnknownFilter:
        """Candidates for all mentions, or which filter names what the index does not hold.

        Raises:
            TimeoutError: the deadline passed before the work began.
        """
        return await self._run(lambda: retrieve(self._stage, query))

    async def concept(self, curie: str) -> Concept | None:
        """A concept of the knowledge base."""
        kb = self._stage.kb
        return await self._run(lambda: kb.concept(curie) if curie in kb else None)

    async def describe(self) -> dict[str, Any]:
        """The model, and what the filters may name."""
        stage = self._stage
        return {
            "model": stage.model,
            "vocabularies": list(stage.vocabularies),
            "types": list(stage.types),
            "languages": list(stage.kb.langs),
        }

    async def canary(self) -> bool:
        """Whether a query with a known answer gets one."""
        stage, gold = self._stage, self._stage.canary
        (found,) = await self._run(lambda: stage.retriever.retrieve([gold.mention], k=stage.depth))
        return any(candidate.concept_id in gold.concept_ids for candidate in found)

    async def ping(self) -> None:
        """Answer at once, however much work waits."""

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - Serve logs messages, and one may quote the text
            raise RuntimeError(f"retrieval failed: {where(error)}") from None


def retrieve(stage: Stage, query: Query) -> Retrieved | UnknownFilter:
    """See `RetrieverDeployment.retrieve`."""
    if time.time() >= query.deadline:
        raise TimeoutError("the request's time was over before its mentions were searched")
    if unknown := _unknown(stage, query):
        return unknown
    start = time.perf_counter()
    found = _search(stage, query)
    rows = [candidate for candidates in found for candidate in candidates]
    ids = dict.fromkeys(candidate.concept_id for candidate in rows)
    return Retrieved(
        candidates=to_table(rows, Candidate),
        counts=[len(candidates) for candidates in found],
        concepts=to_table((stage.kb.concept(i) for i in ids), Concept),
        model=stage.model,
        seconds=time.perf_counter() - start,
    )


def _search(stage: Stage, query: Query) -> list[tuple[Candidate, ...]]:
    mentions = from_table(query.mentions, Mention)
    if not mentions:
        return []
    k = max(stage.depth, query.k)
    found = stage.retriever.retrieve(mentions, k=k, where=_where(query))
    return [candidates[: query.k] for candidates in found]


def _where(query: Query) -> Filter | None:
    where = Filter(
        vocabularies=frozenset(query.vocabularies), semantic_types=frozenset(query.types)
    )
    return None if where == Filter() else where


def _unknown(stage: Stage, query: Query) -> UnknownFilter | None:
    checks: tuple[tuple[Literal["kb", "types"], list[str], tuple[str, ...]], ...] = (
        ("kb", query.vocabularies, stage.vocabularies),
        ("types", query.types, stage.types),
    )
    for key, asked, known in checks:
        if places := [i for i, value in enumerate(asked) if value not in known]:
            return UnknownFilter(key=key, places=places, known=known)
    return None
