"""Stage 1's protocol: mentions in, candidates out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bioelx_ray.records import Candidate, Mention


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which part of the knowledge base may be proposed. An empty field allows everything.

    `vocabularies` are CURIE prefixes (``hp``), `langs` the aliases' languages, `sources` the
    aliases' sources, `semantic_types` those of the concepts. Fields are joined by *and*, the
    values of one by *or*.
    """

    vocabularies: frozenset[str] = frozenset()
    langs: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    semantic_types: frozenset[str] = frozenset()


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
