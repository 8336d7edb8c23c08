"""Wikidata's JSON taken apart, with every value's type checked.

The format: https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html. PHP writes an
empty mapping as ``[]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAPPING_RELATION = "P4390"

_ITEM = re.compile(r"Q[1-9]\d*", re.ASCII)


class BadShape(ValueError):
    """An entity that is not what the format says. Its text is the reason."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with a value, that is not deprecated.

    `value` is a string, or the id of an item. `relations` are the items of `MAPPING_RELATION`.
    """

    value: str
    preferred: bool
    relations: tuple[str, ...]


def item_id(value: object) -> str:
    """The id of an item."""
    if isinstance(value, str) and _ITEM.fullmatch(value):
        return value
    raise BadShape("id of an item is no Q and a number")


def texts(entity: dict[str, Any], part: str) -> Iterator[tuple[str, str]]:
    """Code and text of what an entity has under ``labels``, ``descriptions`` or ``aliases``."""
    for values in mapping(entity, part).values():
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, dict):
                raise BadShape(f"one of the {part} is no mapping")
            yield _string(value, "language"), _string(value, "value").strip()


def titles(entity: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Site and title of an entity's sitelinks."""
    for site, link in mapping(entity, "sitelinks").items():
        if not isinstance(link, dict):
            raise BadShape("one of the sitelinks is no mapping")
        yield site, _string(link, "title").strip()


def statements(entity: dict[str, Any], property_id: str) -> Iterator[Statement]:
    """The statements of a property. Unknown values, and that there is none, are left out."""
    rows = mapping(entity, "claims").get(property_id, [])
    if not isinstance(rows, list):
        raise BadShape("statements of a property are no list")
    for row in rows:
        if not isinstance(row, dict):
            raise BadShape("statement is no mapping")
        rank = row.get("rank", "normal")
        value = _value(row.get("mainsnak"))
        if rank != "deprecated" and value is not None:
            yield Statement(value, rank == "preferred", _relations(row))


def mapping(entity: dict[str, Any], part: str) -> dict[str, Any]:
    """A part that is a mapping, or an empty list, or is not there."""
    found = entity.get(part)
    if found is None or found == []:
        return {}
    if not isinstance(found, dict):
        raise BadShape(f"{part} are no mapping")
    return found


def _relations(statement: dict[str, Any]) -> tuple[str, ...]:
    snaks = mapping(statement, "qualifiers").get(MAPPING_RELATION, [])
    if not isinstance(snaks, list):
        raise BadShape("qualifiers of a property are no list")
    return tuple(value for snak in snaks if (value := _value(snak)) is not None)


def _value(snak: object) -> str | None:
    """The value of a snak, or None where it says that it is not known or that there is none."""
    if not isinstance(snak, dict):
        raise BadShape("snak is no mapping")
    if snak.get("snaktype") in ("novalue", "somevalue"):
        return None
    datavalue = snak.get("datavalue")
    value = datavalue.get("value") if isinstance(datavalue, dict) else None
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        # Older dumps give the number alone.
        number = value.get("numeric-id")
        return item_id(value.get("id", f"Q{number}" if isinstance(number, int) else None))
    raise BadShape("value of a statement is neither a string nor an item")


def _string(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise BadShape(f"a {key} is no string")
    return value
