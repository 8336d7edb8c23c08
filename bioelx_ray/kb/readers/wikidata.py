"""Wikidata's JSON dumps (https://www.wikidata.org/wiki/Wikidata:Database_download).

One JSON array with an entity a line, in JSON without white space. Few of the entities are
biomedical, so lines are chosen by their bytes and only the chosen ones are parsed. A broken line
that names none of the wanted properties is therefore passed over like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from bioelx_ray.config import IdProperty, WikidataConfig
from bioelx_ray.kb.readers.wikidata_ids import curie_of
from bioelx_ray.kb.readers.wikidata_langs import ANY_LANGUAGE, Languages
from bioelx_ray.kb.readers.wikidata_lines import Lines, wanted_properties
from bioelx_ray.kb.readers.wikidata_shape import (
    BadShape,
    item_id,
    mapping,
    statements,
    texts,
    titles,
)
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage
from bioelx_ray.records import Alias, Concept, IdMapping, MappingKind, Retired

SOURCE = "wikidata"
_INSTANCE_OF = "P31"
_MAX_TYPES = 8

# https://www.wikidata.org/wiki/Property:P4390: what the other vocabulary's concept is to the item.
_RELATIONS: dict[str, MappingKind] = {
    "Q39893449": "exact",
    "Q39893184": "close",
    "Q39894595": "broad",
    "Q39893967": "narrow",
    "Q39894604": "related",
}

_DISAMBIGUATION = re.compile(r"\s*(\([^()]*\)|（[^（）]*）)$")

Record = Concept | Alias | IdMapping | Retired


@dataclass(slots=True)
class Seen:
    """What was read: lines, entities taken, and ids that their vocabulary cannot have."""

    rows: int = 0
    entities: int = 0
    bad_ids: int = 0


def read_entities(
    chunks: Iterable[Chunk | Damage],
    *,
    origin: str,
    rejects: Rejects,
    config: WikidataConfig,
    seen: Seen,
) -> Iterator[Record]:
    """The biomedical entities of a dump, in its order: the concept, its aliases, its ids.

    An entity is biomedical if it has an id by one of the wanted properties; ids in qualifiers and
    references do not count, nor do deprecated ones. Each id becomes an `IdMapping` of the
    property's kind, unless the statement itself tells the relation (P4390). Of a redirect only
    `Retired` is given. Properties and lexemes are left out.

    A concept is called by its English label, else by the one for many languages, else by its
    first. Aliases have the sources ``wikidata:label`` (preferred), ``wikidata:alias`` and
    ``wikidata:sitelink``, whose titles lose what disambiguates them, ``(disease)``.

    Args:
        chunks: lines of the dump, and where it is damaged.
        origin: how `rejects` call the file.
        rejects: takes damage, and lines that are no JSON or not of the format.
        config: what to take.
        seen: counts.
    """
    reader = _Reader(config, seen)
    wanted = wanted_properties(config.properties)
    for chunk in chunks:
        if isinstance(chunk, Damage):
            rejects.add(origin, None, reason=chunk.reason, row=b"", offset=chunk.offset)
            continue
        lines = Lines(chunk.data, wanted)
        seen.rows += lines.count
        for place, line in lines.chosen():
            try:
                yield from reader.records(line)
            except BadShape as error:
                offset = chunk.offset_of(place)
                rejects.add(origin, None, reason=str(error), row=line, offset=offset)


class _Reader:
    """What is the same for all lines."""

    def __init__(self, config: WikidataConfig, seen: Seen) -> None:
        self._config = config
        self._seen = seen
        self._langs = Languages(config.langs)

    def records(self, line: bytes) -> list[Record]:
        """The records of a line. A list, so that an entity is taken as a whole or not at all."""
        entity = _parse(line)
        if "redirect" in entity:
            old = item_id(entity.get("entity") or entity.get("id"))
            new = item_id(entity["redirect"])
            return [Retired(id=_curie(old), replaced_by=_curie(new), source=SOURCE)]
        if entity.get("type", "item") != "item":
            return []
        concept_id = _curie(item_id(entity.get("id")))
        ids = self._ids(entity, concept_id)
        if not ids:
            return []
        records: list[Record] = [
            _concept(entity, concept_id),
            *self._aliases(entity, concept_id),
            *ids,
        ]
        self._seen.entities += 1
        return records

    def _ids(self, entity: dict[str, Any], concept_id: str) -> list[IdMapping]:
        claims = mapping(entity, "claims")
        return [
            id_
            for key, settings in self._config.properties.items()
            if key in claims
            for id_ in self._ids_of(entity, concept_id, (key, settings))
        ]

    def _ids_of(
        self, entity: dict[str, Any], concept_id: str, named: tuple[str, IdProperty]
    ) -> Iterator[IdMapping]:
        key, settings = named
        given: set[str] = set()
        # Preferred first, so that of equal ones a preferred one stays.
        for statement in sorted(statements(entity, key), key=lambda s: not s.preferred):
            object_id = curie_of(statement.value, settings.prefix)
            if object_id is None:
                self._seen.bad_ids += 1
            elif object_id not in given:
                given.add(object_id)
                told = (_RELATIONS[r] for r in statement.relations if r in _RELATIONS)
                yield IdMapping(
                    subject_id=concept_id,
                    object_id=object_id,
                    kind=next(told, settings.kind),
                    source=f"{SOURCE}:{key}",
                    preferred=statement.preferred,
                )

    def _aliases(self, entity: dict[str, Any], concept_id: str) -> Iterator[Alias]:
        given: set[tuple[str, str]] = set()
        for text, lang, kind in self._names(entity):
            if text and lang and (text, lang) not in given:
                given.add((text, lang))
                yield Alias(
                    concept_id=concept_id,
                    text=text,
                    lang=lang,
                    source=f"{SOURCE}:{kind}",
                    preferred=kind == "label",
                )

    def _names(self, entity: dict[str, Any]) -> Iterator[tuple[str, str | None, str]]:
        """Text, language (None if it is not wanted) and kind of all names."""
        for code, text in texts(entity, "labels"):
            yield text, self._langs.tag(code), "label"
        for code, text in texts(entity, "aliases"):
            yield text, self._langs.tag(code), "alias"
        if self._config.sitelinks:
            for site, title in titles(entity):
                name = _DISAMBIGUATION.sub("", title) or title
                yield name, self._langs.tag_of_site(site), "sitelink"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entity = orjson.loads(line.strip(b" \t\r\n,"))
    except orjson.JSONDecodeError as error:
        raise BadShape(_why(line)) from error
    if not isinstance(entity, dict):
        raise BadShape("entity is no mapping")
    return entity


def _why(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "line is not UTF-8"
    return "line is no JSON"


def _curie(item: str) -> str:
    return f"{SOURCE}:{item}"


def _concept(entity: dict[str, Any], concept_id: str) -> Concept:
    labels = dict(texts(entity, "labels"))
    names = (labels.get("en"), labels.get(ANY_LANGUAGE), next(iter(labels.values()), None))
    types = dict.fromkeys(item_id(s.value) for s in statements(entity, _INSTANCE_OF))
    return Concept(
        id=concept_id,
        name=next(filter(None, names), ""),
        semantic_types=tuple(_curie(type_) for type_ in islice(types, _MAX_TYPES)),
        definition=dict(texts(entity, "descriptions")).get("en") or None,
    )
