"""Which part of the knowledge base may be proposed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """An empty field allows everything. Fields are joined by *and*, the values of one by *or*.

    `vocabularies` are CURIE prefixes (``hp``), `langs` the aliases' languages, `sources` the
    aliases' sources, `semantic_types` those of the concepts.
    """

    vocabularies: frozenset[str] = frozenset()
    langs: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    semantic_types: frozenset[str] = frozenset()
