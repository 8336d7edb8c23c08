"""One alias of each concept, language and form, out of rows that are sorted by them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_KEY = ("concept_id", "lang", "form")
_KEPT = ("concept_id", "text", "lang", "source")


def distinct_aliases(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first row of each group, in order, with the column `also`.

    Rows have `concept_id`, `text`, `lang`, `source`, `preferred`, `ambiguous` and `form`; those
    that are alike in concept id, language and form stand together, the most trusted first. It is
    preferred if any of its group is; `also` are the other sources of the group, sorted.
    """
    held: pa.Table | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        rows = pa.Table.from_batches([batch])
        if held is not None:
            rows = pa.concat_tables([held, rows]).combine_chunks()
        starts = _starts(rows)
        last = int(starts[-1])  # the next batch may go on with this group
        if last:
            yield _firsts(rows.slice(0, last), starts[:-1])
        held = rows.slice(last)
    if held is not None:
        yield _firsts(held.combine_chunks(), np.zeros(1, dtype=np.int64))


def _starts(rows: pa.Table) -> NDArray[np.int64]:
    """The rows that begin a group."""
    begins = np.ones(rows.num_rows, dtype=np.bool_)
    if rows.num_rows > 1:
        before, after = rows.slice(0, rows.num_rows - 1), rows.slice(1)
        differs = [pc.not_equal(before[name], after[name]).to_numpy() for name in _KEY]
        begins[1:] = np.logical_or.reduce(differs)
    return np.flatnonzero(begins)


def _firsts(rows: pa.Table, starts: NDArray[np.int64]) -> pa.RecordBatch:
    first = rows.take(pa.array(starts))
    preferred = np.logical_or.reduceat(rows["preferred"].to_numpy(), starts)
    columns = {name: first[name] for name in _KEPT} | {
        "preferred": pa.chunked_array([pa.array(preferred)]),
        "ambiguous": first["ambiguous"],
        "also": pa.chunked_array([_others(rows["source"], starts)]),
    }
    return pa.table(columns).combine_chunks().to_batches()[0]


def _others(sources: pa.ChunkedArray, starts: NDArray[np.int64]) -> pa.ListArray:
    sizes = np.diff(np.append(starts, len(sources)))
    several = np.flatnonzero(sizes > 1)
    lengths = np.zeros(len(starts), dtype=np.int32)
    values: list[str] = []
    for group in several:
        names = sources.slice(int(starts[group]), int(sizes[group])).to_pylist()
        others = sorted(set(names) - {names[0]})
        lengths[group] = len(others)
        values += others
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=pa.string()))
