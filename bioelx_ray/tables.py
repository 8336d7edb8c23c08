"""The records as Arrow tables: the same columns, the same order.

Used on disk (knowledge base, links) and between processes. A test holds records and schemas
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import pyarrow as pa

from bioelx_ray.records import (
    Alias,
    Candidate,
    Concept,
    IdMapping,
    Mention,
    Retired,
    SynonymPair,
)

Record = TypeVar("Record", Concept, Alias, IdMapping, Retired, SynonymPair, Mention, Candidate)

_STRINGS = pa.list_(pa.string())

SCHEMAS: dict[type[Any], pa.Schema] = {
    Concept: pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("semantic_types", _STRINGS, nullable=False),
            pa.field("definition", pa.string()),
            pa.field("xrefs", _STRINGS, nullable=False),
        ]
    ),
    Alias: pa.schema(
        [
            pa.field("concept_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("lang", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("preferred", pa.bool_(), nullable=False),
            pa.field("ambiguous", pa.bool_(), nullable=False),
            pa.field("also", _STRINGS, nullable=False),
        ]
    ),
    IdMapping: pa.schema(
        [
            pa.field("subject_id", pa.string(), nullable=False),
            pa.field("object_id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("preferred", pa.bool_(), nullable=False),
        ]
    ),
    Retired: pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("replaced_by", pa.string()),
            pa.field("source", pa.string(), nullable=False),
        ]
    ),
    SynonymPair: pa.schema(
        [
            pa.field("concept_id", pa.string(), nullable=False),
            pa.field("left", pa.string(), nullable=False),
            pa.field("right", pa.string(), nullable=False),
            pa.field("left_lang", pa.string(), nullable=False),
            pa.field("right_lang", pa.string(), nullable=False),
        ]
    ),
    Mention: pa.schema(
        [
            pa.field("text", pa.string(), nullable=False),
            pa.field("lang", pa.string(), nullable=False),
            pa.field("left", pa.string(), nullable=False),
            pa.field("right", pa.string(), nullable=False),
            pa.field("document_id", pa.string()),
            pa.field("start", pa.int64()),
            pa.field("end", pa.int64()),
        ]
    ),
    Candidate: pa.schema(
        [
            pa.field("concept_id", pa.string(), nullable=False),
            pa.field("alias", pa.string(), nullable=False),
            pa.field("lang", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("retrieval_score", pa.float32()),
        ]
    ),
}


def to_table(records: Iterable[object], kind: type[Any]) -> pa.Table:
    """Records of one kind as a table, in their order."""
    rows = list(records)
    schema = SCHEMAS[kind]
    columns = [
        pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table, kind: type[Record]) -> list[Record]:
    """The rows of a table as records, in their order."""
    names = [field.name for field in fields(kind)]
    columns: Sequence[list[Any]] = [table.column(name).to_pylist() for name in names]
    make: Callable[..., Record] = kind
    return [
        make(**{n: tuple(v) if isinstance(v, list) else v for n, v in zip(names, row, strict=True)})
        for row in zip(*columns, strict=True)
    ]
