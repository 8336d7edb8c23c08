"""Plain tables of aliases: TSV, CSV (also gzipped) and Parquet.

Columns: `concept_id` (a CURIE), `lang` (BCP 47) and `text`; if wanted `source`, `preferred` (true
or false), `semantic_types` and `xrefs` (each joined by ``|``) and `definition`. UTF-8. A TSV has no
quoting, so that a quotation mark is a character like any other; CSV follows RFC 4180.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.readers.rows import Row, read_rows, reject_row
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.text import language_tag, unusable
from bioelx_ray.records import Alias, Concept

REQUIRED = ("concept_id", "lang", "text")
OPTIONAL = ("source", "preferred", "semantic_types", "definition", "xrefs")

_FLAGS = {"": False, "false": False, "0": False, "true": True, "1": True}
_SURROGATE = re.compile("[\ud800-\udfff]")


class _BadRow(ValueError):
    """A row that cannot be used. Its text is the reason."""


@dataclass(slots=True)
class _Draft:
    """What the rows of one concept have said so far."""

    id: str
    alias: Alias
    definition: str | None = None
    semantic_types: dict[str, None] = field(default_factory=dict)
    xrefs: dict[str, None] = field(default_factory=dict)

    def concept(self) -> Concept:
        return Concept(
            id=self.id,
            name=self.alias.text,
            semantic_types=tuple(self.semantic_types),
            definition=self.definition,
            xrefs=tuple(self.xrefs),
        )


def read_table(
    path: Path, *, origin: str | None = None, rejects: Rejects
) -> Iterator[Concept | Alias]:
    """The aliases of a table in its order, then its concepts in the order of their first row.

    A concept is named by its preferred alias, else by its first English one, else by its first.
    Its definition is the first; its types and xrefs are those of all its rows.

    Args:
        path: the table.
        origin: how `rejects` call the file; its path if left out.
        rejects: takes the rows that cannot be used.

    Raises:
        InputError: at the first step of the iterator, where the file is not UTF-8, its columns are
            not those above, or it cannot be read.
    """
    origin = origin or str(path)
    columns, rows = read_rows(path, origin=origin, rejects=rejects)
    _check_columns(path, columns)
    stem = path.name.partition(".")[0]
    drafts: dict[str, _Draft] = {}
    tags: dict[str, str | None] = {}
    for row in rows:
        try:
            alias = _alias(row, tags, default_source=stem)
            _gather(alias, row.values, drafts)
        except _BadRow as error:
            reject_row(row, str(error), origin=origin, rejects=rejects)
        else:
            yield alias
    for draft in drafts.values():
        yield draft.concept()


def _check_columns(path: Path, columns: list[str]) -> None:
    known = f"known are {', '.join(REQUIRED + OPTIONAL)}; the first three must be there"
    if unknown := [name for name in columns if name not in REQUIRED + OPTIONAL]:
        raise InputError(f"{path}: unknown column {', '.join(map(repr, unknown))}; {known}")
    if missing := [name for name in REQUIRED if name not in columns]:
        raise InputError(f"{path}: no column {', '.join(missing)}; {known}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: a column is there twice: {', '.join(columns)}")


def _alias(row: Row, tags: dict[str, str | None], *, default_source: str) -> Alias:
    values = row.values
    if not row.raw.isascii() and _SURROGATE.search(row.raw):
        raise _BadRow("row is not UTF-8")
    concept_id = curie(values["concept_id"])
    if concept_id is None:
        raise _BadRow("concept_id is no CURIE (prefix:local)")
    text = values["text"].strip()
    if reason := unusable(text):
        raise _BadRow(reason)
    preferred = _FLAGS.get(values.get("preferred", "").lower())
    if preferred is None:
        raise _BadRow("preferred is neither true nor false")
    return Alias(
        concept_id=concept_id,
        text=text,
        lang=_tag(values["lang"], tags),
        source=values.get("source") or default_source,
        preferred=preferred,
    )


def _tag(code: str, tags: dict[str, str | None]) -> str:
    """The language tag; `tags` remembers those of earlier rows."""
    if code not in tags:
        try:
            tags[code] = language_tag(code)
        except InputError:
            tags[code] = None
    tag = tags[code]
    if tag is None:
        raise _BadRow("lang is no BCP 47 tag")
    return tag


def _gather(alias: Alias, values: dict[str, str], drafts: dict[str, _Draft]) -> None:
    xrefs = [curie(xref) for xref in _parts(values.get("xrefs"))]
    if None in xrefs:
        raise _BadRow("an xref is no CURIE (prefix:local)")
    draft = drafts.get(alias.concept_id)
    if draft is None:
        draft = drafts[alias.concept_id] = _Draft(alias.concept_id, alias)
    elif _rank(alias) < _rank(draft.alias):
        draft.alias = alias
    draft.definition = draft.definition or values.get("definition", "").strip() or None
    draft.semantic_types.update(dict.fromkeys(_parts(values.get("semantic_types"))))
    draft.xrefs.update(dict.fromkeys(filter(None, xrefs)))


def _rank(alias: Alias) -> tuple[bool, bool]:
    """Lower names a concept better. Of several preferred aliases the English one does."""
    return (not alias.preferred, alias.lang.partition("-")[0] != "en")


def _parts(joined: str | None) -> list[str]:
    return [part for raw in joined.split("|") if (part := raw.strip())] if joined else []
