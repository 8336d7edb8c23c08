"""UMLS: the names of its concepts, and its other files (`find_rrf` and the readers beside it)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_ray.config import UmlsConfig
from bioelx_ray.kb.readers.umls_codes import LANGUAGES, among, chosen_languages, concept_ids
from bioelx_ray.kb.readers.umls_concepts import choose_cuis, read_mrdef, read_mrsty
from bioelx_ray.kb.readers.umls_files import find_rrf
from bioelx_ray.kb.readers.umls_history import read_deleted, read_mrcui
from bioelx_ray.kb.readers.umls_rows import (
    BAD_UTF8,
    Layout,
    Rows,
    Seen,
    filled_texts,
    marks,
    present,
    read_rows,
    utf8,
)
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage
from bioelx_ray.records import Alias
from bioelx_ray.tables import SCHEMAS

__all__ = [
    "choose_cuis",
    "find_rrf",
    "read_deleted",
    "read_mrconso",
    "read_mrcui",
    "read_mrdef",
    "read_mrsty",
]

_MRCONSO = Layout.of(
    "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
    wanted="CUI LAT TS STT ISPREF SAB STR SUPPRESS",
)
_PREFERRED = {"TS": "P", "STT": "PF", "ISPREF": "Y"}


def read_mrconso(
    chunks: Iterable[Chunk | Damage],
    *,
    origin: str,
    rejects: Rejects,
    config: UmlsConfig,
    cuis: NDArray[np.int32] | None,
    seen: Seen,
) -> Iterator[pa.RecordBatch]:
    """The names of concepts as batches with the columns of `Alias`, one a chunk, in file order.

    A name is preferred if it is the preferred form of the preferred term (TS P, STT PF) and the
    preferred atom of its string (ISPREF Y): one a concept and language at most.

    Args:
        chunks: MRCONSO.RRF.
        origin: how `rejects` call the file.
        rejects: takes rows that have another number of columns, no CUI or an unknown language,
            and rows to be taken that are no UTF-8.
        config: which languages and vocabularies, and whether suppressed names, are taken.
        cuis: the numbers of the concepts to take, sorted; None for all.
        seen: its `rows` counts all rows, taken, left out or bad.

    Raises:
        ConfigError: at the first step, where a language is chosen that UMLS does not have.
    """
    langs = chosen_languages(config)
    for rows in read_rows(chunks, _MRCONSO, origin=origin, rejects=rejects, seen=seen):
        batch = _aliases(rows, config=config, langs=langs, cuis=cuis)
        if batch.num_rows:
            yield batch


def _aliases(
    rows: Rows, *, config: UmlsConfig, langs: frozenset[str], cuis: NDArray[np.int32] | None
) -> pa.RecordBatch:
    numbers = rows.cuis("CUI")
    is_sound = numbers >= 0
    lang = rows.coded("LAT", lambda code: LANGUAGES.get(code.decode("ascii", "replace")))
    rows.reject(is_sound & ~present(lang), "language code is unknown")
    source = rows.coded("SAB", _source)
    chosen = is_sound & among(numbers, cuis) & rows.chosen(config)
    chosen &= marks(pc.is_in(lang, pa.array(sorted(langs))))
    rows.reject(chosen & ~present(source), BAD_UTF8)
    chosen &= present(source)
    text = rows.texts("STR", chosen)
    filled = filled_texts(text)
    chosen[chosen] = filled
    mask, n = pa.array(chosen), int(chosen.sum())
    preferred = np.logical_and.reduce([rows.has(*pair) for pair in _PREFERRED.items()])
    columns = {
        "concept_id": concept_ids(numbers[chosen]),
        "text": text.filter(pa.array(filled)),
        "lang": lang.filter(mask),
        "source": source.filter(mask),
        "preferred": pa.array(preferred[chosen]),
        "ambiguous": pa.repeat(False, n),
        "also": pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.string())),
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMAS[Alias])


def _source(vocabulary: bytes) -> str | None:
    name = utf8(vocabulary)
    return None if name is None else f"umls:{name}"
