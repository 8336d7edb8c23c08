"""Mappings between vocabularies: SSSOM/TSV, and Disease Ontology's table of xrefs.

SSSOM (https://mapping-commons.github.io/sssom/) states a mapping a row. Leading lines that begin
with ``#`` hold metadata in YAML; without them a file ``NAME.sssom.yml`` beside ``NAME.sssom.tsv``
may.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from bioelx_ray.errors import InputError
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.readers.quoted import missing_columns, read_quoted
from bioelx_ray.kb.readers.rows import reject_row
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.files import read_lines
from bioelx_ray.records import IdMapping, MappingKind

_KINDS: dict[str, MappingKind] = {
    "skos:exactMatch": "exact",
    "owl:equivalentClass": "exact",
    "owl:sameAs": "exact",
    "skos:closeMatch": "close",
    "skos:broadMatch": "broad",
    "rdfs:subClassOf": "broad",
    "skos:narrowMatch": "narrow",
    "sssom:superClassOf": "narrow",
    "skos:relatedMatch": "related",
    "oboInOwl:hasDbXref": "xref",
    "oio:hasDbXref": "xref",
}
_BUILT_IN = frozenset({"owl", "rdf", "rdfs", "semapv", "skos", "sssom", "xsd", "linkml"})
_NO_TERM = "sssom:NoTermFound"
_LITERAL = "rdfs literal"
_TABLE_SUFFIX = re.compile(r"\.tsv(\.gz)?$")


class _BadRow(ValueError):
    """A row that cannot be used. Its text is the reason."""


def read_sssom(
    path: Path, *, origin: str, rejects: Rejects, skipped: Counter[str] | None = None
) -> Iterator[IdMapping]:
    """The mappings of an SSSOM file, in its order.

    The source is ``sssom:`` and the subject's prefix. Left out are negated mappings, those to no
    term or to a literal, and those with a predicate that says nothing of sameness or width, such
    as ``semapv:crossSpeciesExactMatch`` (a mouse's phenotype is not a human's). Labels are not
    read: they go stale.

    Args:
        path: the file; a name that ends in ``.gz`` is unpacked.
        origin: how `rejects` call the file.
        rejects: takes the rows that cannot be used, among them those with a prefix that the
            file's `curie_map`, where there is one, does not declare, as the format demands.
        skipped: takes the number of sound rows left out for each reason.

    Raises:
        InputError: at the first step of the iterator, where the file cannot be read, lacks a
            column, or has metadata that are no YAML.
    """
    skipped = Counter() if skipped is None else skipped
    table = read_quoted(path, origin=origin, rejects=rejects)
    _need(path, table.columns, ("subject_id", "predicate_id", "object_id"))
    metadata = _metadata(path, table.comments)
    prefixes = _declared(metadata)
    # Where all subjects or all objects are of one type, the metadata say so instead of the rows.
    all_literal = _LITERAL in (metadata.get("subject_type"), metadata.get("object_type"))
    for row in table.rows:
        if reason := "literal" if all_literal else _left_out(row.values):
            skipped[reason] += 1
            continue
        try:
            yield _mapping(row.values, prefixes)
        except _BadRow as error:
            reject_row(row, str(error), origin=origin, rejects=rejects)


def sssom_header(path: Path) -> tuple[str, str]:
    """Licence and version of a set of mappings as its metadata state them; empty where not.

    Raises:
        InputError: the file cannot be read, or its metadata are no YAML.
    """
    lines = takewhile(lambda line: line.startswith(b"#"), read_lines(path))
    comments = [line[1:].decode("utf-8", "replace").rstrip("\r\n") for line in lines]
    metadata = _metadata(path, comments)
    return str(metadata.get("license", "")), str(metadata.get("mapping_set_version", ""))


def read_xrefs(path: Path, *, origin: str, rejects: Rejects) -> Iterator[IdMapping]:
    """The mappings of a table with the columns `id` and `xref`, in its order, all of kind xref.

    The source is ``xref:`` and the prefix of the id. Disease Ontology has such a table,
    ``allXREFinDO.tsv``.

    Raises:
        InputError: at the first step of the iterator, where the file cannot be read or lacks a
            column.
    """
    table = read_quoted(path, origin=origin, rejects=rejects)
    _need(path, table.columns, ("id", "xref"))
    for row in table.rows:
        subject, object_ = curie(row.values["id"]), curie(row.values["xref"])
        if subject is None or object_ is None:
            reason = "id or xref is no CURIE (prefix:local)"
            reject_row(row, reason, origin=origin, rejects=rejects)
        else:
            source = f"xref:{subject.partition(':')[0]}"
            yield IdMapping(subject_id=subject, object_id=object_, kind="xref", source=source)


def _need(path: Path, columns: list[str], wanted: tuple[str, ...]) -> None:
    if missing := missing_columns(columns, wanted):
        raise InputError(f"{path}: no column {missing}; found {', '.join(columns)}")


def _metadata(path: Path, comments: list[str]) -> dict[str, Any]:
    """The metadata as strings, lists and mappings; those beside the file if it has none."""
    beside = path.with_name(_TABLE_SUFFIX.sub(".yml", path.name))
    if comments:
        place, text = path, "\n".join(comments)
    elif beside.name != path.name and beside.is_file():
        place, text = beside, b"".join(read_lines(beside)).decode("utf-8", "replace")
    else:
        return {}
    try:
        # Not the safe loader, which makes numbers of versions and dates of days.
        metadata = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{place}: its metadata are no YAML ({error})") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{place}: its metadata are no YAML mapping of names to values")
    return metadata


def _declared(metadata: dict[str, Any]) -> frozenset[str] | None:
    """The prefixes that may be used; None where none are declared."""
    declared = metadata.get("curie_map")
    return _BUILT_IN | declared.keys() if isinstance(declared, dict) else None


def _left_out(values: dict[str, str]) -> str | None:
    """Why a sound row gives no mapping, or None."""
    if values.get("predicate_modifier"):
        return "negated"
    if _NO_TERM in (values["subject_id"], values["object_id"]):
        return "no term found"
    if _LITERAL in (values.get("subject_type"), values.get("object_type")):
        return "literal"
    if values["predicate_id"] not in ("", *_KINDS):
        return "another predicate"
    return None


def _mapping(values: dict[str, str], prefixes: frozenset[str] | None) -> IdMapping:
    subject = _identifier(values["subject_id"], prefixes)
    object_ = _identifier(values["object_id"], prefixes)
    if not values["predicate_id"]:
        raise _BadRow("predicate_id is empty")
    return IdMapping(
        subject_id=subject,
        object_id=object_,
        kind=_KINDS[values["predicate_id"]],
        source=f"sssom:{subject.partition(':')[0]}",
    )


def _identifier(text: str, prefixes: frozenset[str] | None) -> str:
    found = curie(text)
    if found is None:
        raise _BadRow("subject_id or object_id is no CURIE (prefix:local)")
    if prefixes is not None and text.partition(":")[0] not in prefixes:
        raise _BadRow("subject_id or object_id has a prefix that curie_map does not declare")
    return found
