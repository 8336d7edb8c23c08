"""Concept ids that UMLS no longer uses (MRCUI, DELETEDCUI)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.kb.readers.umls_codes import concept_ids
from bioelx_ray.kb.readers.umls_rows import Layout, Rows, Seen, read_rows
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage
from bioelx_ray.records import Retired

_MRCUI = Layout.of("CUI1 VER REL RELA MAPREASON CUI2 MAPIN", wanted="CUI1 VER REL CUI2 MAPIN")
_DELETED = Layout.of("PCUI PSTR", wanted="PCUI")
_SOURCE = "umls"
_MERGED, _LEFT_OUT = "SY", "SUBX"
_GONE = ("DEL", "RB", "RN", "RO")
_NONE = -1


def read_mrcui(
    chunks: Iterable[Chunk | Damage], *, origin: str, rejects: Rejects, seen: Seen
) -> Iterator[Retired]:
    """The retired concepts, each once, in the order of their CUIs.

    One is replaced by the concept that it was merged into (REL SY), where that is in this subset
    (MAPIN Y); of several, the one of the newest release. Concepts that it was mapped to as broader
    (RB), narrower (RN) or other (RO) do not replace it. Concepts that only the subset lacks (SUBX)
    are not retired. The whole file is read before the first is given; 16 bytes a row.

    Args:
        chunks: MRCUI.RRF, all of it.
        origin: how `rejects` call the file.
        rejects: takes rows that have another number of columns, no CUI where there must be one, or
            an unknown relation.
        seen: its `rows` counts all rows.
    """
    parts = [
        _moves(rows)
        for rows in read_rows(chunks, _MRCUI, origin=origin, rejects=rejects, seen=seen)
    ]
    if not parts:
        return
    old, new, release = (np.concatenate(column) for column in zip(*parts, strict=True))
    # The last row of a concept is the one to take.
    order = np.lexsort((-new, release, new != _NONE, old))
    old, new = old[order], new[order]
    last = np.append(old[1:] != old[:-1], True)[: len(old)]
    yield from _retired(old[last], new[last])


def _moves(
    rows: Rows,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bytes_]]:
    """Of each retirement the CUI, the one that replaces it or -1, and the release."""
    old = rows.cuis("CUI1")
    merged = rows.has("REL", _MERGED)
    known = merged | rows.has("REL", *_GONE, _LEFT_OUT)
    rows.reject((old != _NONE) & ~known, "relation is unknown")
    replaced = (old != _NONE) & merged & rows.has("MAPIN", "Y")
    new = rows.cuis("CUI2", among=replaced)
    taken = (old != _NONE) & known & ~rows.has("REL", _LEFT_OUT) & ~(replaced & (new == _NONE))
    new = np.where(replaced, new, np.int32(_NONE))
    release = np.array(rows.column("VER").to_pylist(), dtype="S8")
    return old[taken], new[taken], release[taken]


def read_deleted(
    chunks: Iterable[Chunk | Damage], *, origin: str, rejects: Rejects, seen: Seen
) -> Iterator[Retired]:
    """The concepts that were deleted since the release before, in file order, without replacement.

    Args:
        chunks: DELETEDCUI.RRF.
        origin: how `rejects` call the file.
        rejects: takes rows that have another number of columns or no CUI.
        seen: its `rows` counts all rows.
    """
    for rows in read_rows(chunks, _DELETED, origin=origin, rejects=rejects, seen=seen):
        numbers = rows.cuis("PCUI")
        numbers = numbers[numbers != _NONE]
        yield from _retired(numbers, np.full(len(numbers), _NONE, dtype=np.int32))


def _retired(old: NDArray[np.int32], new: NDArray[np.int32]) -> Iterator[Retired]:
    ids, others = concept_ids(old).to_pylist(), concept_ids(np.maximum(new, 0)).to_pylist()
    for concept_id, other, number in zip(ids, others, new.tolist(), strict=True):
        replaced_by = other if number != _NONE else None
        yield Retired(id=concept_id, replaced_by=replaced_by, source=_SOURCE)
