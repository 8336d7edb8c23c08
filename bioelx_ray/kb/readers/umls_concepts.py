"""UMLS's semantic types (MRSTY) and definitions (MRDEF)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.config import UmlsConfig
from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.umls_codes import (
    among,
    chosen_types,
    concept_ids,
    is_translation,
    is_tui,
    semantic_groups,
)
from bioelx_ray.kb.readers.umls_rows import (
    Layout,
    Rows,
    Seen,
    filled_texts,
    present,
    read_rows,
    utf8,
)
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage
from bioelx_ray.records import Concept

_MRSTY = Layout.of("CUI TUI STN STY ATUI CVF", wanted="CUI TUI STY")
_MRDEF = Layout.of("CUI AUI ATUI SATUI SAB DEF SUPPRESS CVF", wanted="CUI SAB DEF SUPPRESS")


class _Uncounted:
    rows = 0


def choose_cuis(
    chunks: Iterable[Chunk | Damage], *, config: UmlsConfig
) -> NDArray[np.int32] | None:
    """The numbers of the concepts of the chosen semantic types and groups, sorted, each once.

    None where no type is chosen. Bad rows are left out: `read_mrsty` rejects them. 4 bytes a
    concept.

    Args:
        chunks: MRSTY.RRF.
        config: types and groups; a concept is taken if it has one of either.

    Raises:
        ConfigError: no such group, or a type that is no TUI.
        InputError: a group is chosen and the file has a type of which no group is known.
    """
    types = chosen_types(config)
    if not types:
        return None
    found = [np.empty(0, dtype=np.int32)]
    ignored = Rejects(keep=0)
    for rows in read_rows(chunks, _MRSTY, origin="", rejects=ignored, seen=_Uncounted()):
        if config.semantic_groups:
            _check_grouped(rows)
        numbers = rows.cuis("CUI")
        found.append(np.unique(numbers[rows.has("TUI", *types) & (numbers >= 0)]))
    return np.unique(np.concatenate(found))


def _check_grouped(rows: Rows) -> None:
    types = {utf8(value) or "" for value in rows.column("TUI").unique().to_pylist()}
    if new := sorted(filter(is_tui, types - semantic_groups().keys())):
        raise InputError(
            f"MRSTY has the semantic types {', '.join(new)}, of which no semantic group is known; "
            "choose by umls.semantic_types instead of umls.semantic_groups"
        )


def read_mrsty(
    chunks: Iterable[Chunk | Damage],
    *,
    origin: str,
    rejects: Rejects,
    cuis: NDArray[np.int32] | None,
    seen: Seen,
) -> Iterator[Concept]:
    """A concept, without a name, for each semantic type of each concept, in file order.

    Args:
        chunks: MRSTY.RRF.
        origin: how `rejects` call the file.
        rejects: takes rows that have another number of columns, no CUI, no TUI, or no name of the
            type in UTF-8.
        cuis: the numbers of the concepts to take, sorted; None for all.
        seen: its `rows` counts all rows.
    """
    for rows in read_rows(chunks, _MRSTY, origin=origin, rejects=rejects, seen=seen):
        numbers = rows.cuis("CUI")
        sound = numbers >= 0
        typed = present(rows.coded("TUI", lambda tui: "" if is_tui(utf8(tui) or "") else None))
        rows.reject(sound & ~typed, "TUI is not T and three digits")
        names = rows.coded("STY", lambda name: (utf8(name) or "").strip() or None)
        rows.reject(sound & typed & ~present(names), "semantic type has no name in UTF-8")
        chosen = sound & typed & present(names) & among(numbers, cuis)
        ids = concept_ids(numbers[chosen]).to_pylist()
        for concept_id, name in zip(ids, names.filter(chosen).to_pylist(), strict=True):
            yield Concept(id=concept_id, name="", semantic_types=(name,))


def _in_english(vocabulary: bytes) -> str | None:
    name = vocabulary.decode("ascii", "replace")
    return None if is_translation(name) else name


def read_mrdef(
    chunks: Iterable[Chunk | Damage],
    *,
    origin: str,
    rejects: Rejects,
    config: UmlsConfig,
    cuis: NDArray[np.int32] | None,
    seen: Seen,
) -> Iterator[Concept]:
    """A concept, without a name, for each definition that is not suppressed, in file order.

    Definitions of translated vocabularies, such as MSHCZE, are left out: a concept has room for
    one definition, and the file does not tell its language.

    Args:
        chunks: MRDEF.RRF.
        origin: how `rejects` call the file.
        rejects: takes rows that have another number of columns or no CUI, and rows to be taken
            that are no UTF-8.
        config: which vocabularies, and whether suppressed definitions, are taken.
        cuis: the numbers of the concepts to take, sorted; None for all.
        seen: its `rows` counts all rows.
    """
    for rows in read_rows(chunks, _MRDEF, origin=origin, rejects=rejects, seen=seen):
        numbers = rows.cuis("CUI")
        chosen = (numbers >= 0) & among(numbers, cuis) & rows.chosen(config)
        chosen &= present(rows.coded("SAB", _in_english))
        texts = rows.texts("DEF", chosen)
        filled = filled_texts(texts)
        ids = concept_ids(numbers[chosen][filled]).to_pylist()
        for concept_id, text in zip(ids, texts.filter(filled).to_pylist(), strict=True):
            yield Concept(id=concept_id, name="", definition=text)
