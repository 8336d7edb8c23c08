"""Rows of UMLS's Rich Release Format as columns of bytes.

UTF-8, no header, no quotes, no escapes; a ``|`` ends each column, the last one too.
NLM: UMLS Reference Manual, chapter 3, https://www.ncbi.nlm.nih.gov/books/NBK9685/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from bioelx_ray.config import UmlsConfig
from bioelx_ray.kb.readers.umls_codes import SUPPRESSED, cui_numbers
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage

BAD_COLUMNS = "row has another number of columns than its file, or does not end in |"
BAD_UTF8 = "row is not UTF-8"

_REST = "REST"
"""What follows the last column's ``|``: nothing."""


class Seen(Protocol):
    """Counts the rows that were read, good and bad."""

    rows: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file in its order, and those that are wanted."""

    columns: tuple[str, ...]
    wanted: tuple[str, ...]

    @classmethod
    def of(cls, columns: str, *, wanted: str) -> Layout:
        """A layout from names separated by spaces."""
        return cls(tuple(columns.split()), tuple(wanted.split()))


class Rows:
    """Rows of a chunk by column, and the means to reject them."""

    def __init__(self, batch: pa.RecordBatch, lines: _Lines) -> None:
        self._batch = batch
        self._lines = lines

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def column(self, name: str) -> pa.BinaryArray:
        """The values of a wanted column, binary [n], no nulls."""
        return self._batch.column(name)

    def cuis(self, name: str, *, among: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """The numbers of a column's CUIs, int32 [n]; -1 where a value is none.

        Rows with such a value are rejected, or those of them that are marked in `among`.
        """
        numbers = cui_numbers(self.column(name))
        bad = numbers < 0
        self.reject(bad if among is None else bad & among, f"{name} is not C and seven digits")
        return numbers

    def has(self, name: str, *values: str) -> NDArray[np.bool_]:
        """Which rows have one of some values in a column, bool [n]."""
        wanted = pa.array([value.encode() for value in values], pa.binary())
        return marks(pc.is_in(self.column(name), wanted))

    def chosen(self, config: UmlsConfig) -> NDArray[np.bool_]:
        """Which rows are of a chosen vocabulary, and not suppressed unless those are chosen too."""
        chosen = np.ones(len(self), dtype=bool)
        if not config.suppressed:
            chosen &= ~self.has("SUPPRESS", *SUPPRESSED)
        if config.vocabularies:
            chosen &= self.has("SAB", *config.vocabularies)
        return chosen

    def coded(self, name: str, decode: Callable[[bytes], str | None]) -> pa.StringArray:
        """A column of few values through a function of a value, string [n]."""
        coded = self.column(name).dictionary_encode()
        values = [decode(value) for value in coded.dictionary.to_pylist()]
        return pa.array(values, pa.string()).take(coded.indices)

    def texts(self, name: str, chosen: NDArray[np.bool_]) -> pa.StringArray:
        """The chosen values of a column without white space around them, string [chosen].

        One that is no UTF-8 is null, and its row rejected.
        """
        values = self.column(name).filter(pa.array(chosen))
        try:
            texts = values.cast(pa.string())
        except pa.ArrowInvalid:
            decoded = [utf8(value) for value in values.to_pylist()]
            bad = np.array([text is None for text in decoded], dtype=bool)
            self._reject(np.flatnonzero(chosen)[bad], BAD_UTF8)
            texts = pa.array(decoded, pa.string())
        return pc.utf8_trim_whitespace(texts)

    def reject(self, bad: NDArray[np.bool_], reason: str) -> None:
        """Reject the rows that are marked, bool [n]."""
        self._reject(np.flatnonzero(bad), reason)

    def _reject(self, rows: NDArray[np.int64], reason: str) -> None:
        for row in rows.tolist():
            self._lines.reject(row, reason)


def utf8(value: bytes) -> str | None:
    """The text of bytes, or None where they are no UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def marks(column: pa.BooleanArray) -> NDArray[np.bool_]:
    """A column of truth values, without nulls, as an array."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def present(column: pa.Array) -> NDArray[np.bool_]:
    """Which values of a column are no nulls, bool [n]."""
    return marks(column.is_valid())


def filled_texts(column: pa.StringArray) -> NDArray[np.bool_]:
    """Which texts are neither null nor empty, bool [n]."""
    return marks(pc.fill_null(pc.not_equal(column, ""), False))


def read_rows(
    chunks: Iterable[Chunk | Damage],
    layout: Layout,
    *,
    origin: str,
    rejects: Rejects,
    seen: Seen,
) -> Iterator[Rows]:
    """The rows of a file, a chunk at a time. Blank lines are left out.

    Damage, and rows that do not fit the layout, go to `rejects` with their byte offset.
    """
    for chunk in chunks:
        if isinstance(chunk, Damage):
            rejects.add(origin, None, reason=chunk.reason, row=b"", offset=chunk.offset)
            continue
        lines = _Lines(chunk, origin, rejects)
        table = _read(lines, layout)
        seen.rows += table.num_rows + lines.misfits
        for batch in table.to_batches():  # one: a chunk is parsed as a single block
            yield Rows(batch, lines)


class _Lines:
    """The lines of a chunk. Where they begin is found out when a row must be shown."""

    def __init__(self, chunk: Chunk, origin: str, rejects: Rejects) -> None:
        self.data = chunk.data
        self.misfits = 0
        self._offset = chunk.offset
        self._origin = origin
        self._rejects = rejects
        self._starts: NDArray[np.int64] | None = None

    def reject(self, row: int, reason: str) -> None:
        if self._starts is None:
            ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord("\n"))
            self._starts = np.concatenate(([0], ends + 1))
        start = int(self._starts[row])
        end = self.data.find(b"\n", start)
        self._add(start, self.data[start : end if end >= 0 else len(self.data)], reason)

    def sift(self, columns: int) -> bytes:
        """The lines with so many columns, and rejects of the others; rows are numbered anew.

        A carriage return within a line becomes a space.
        """
        kept: list[bytes] = []
        starts: list[int] = []
        at = 0
        for line in self.data.split(b"\n"):
            row = line.rstrip(b"\r")
            if row.count(b"|") == columns and row.endswith(b"|"):
                kept.append(row.replace(b"\r", b" "))
                starts.append(at)
            elif row.strip():
                self.misfits += 1
                self._add(at, line, BAD_COLUMNS)
            at += len(line) + 1
        self._starts = np.array(starts, dtype=np.int64)
        return b"\n".join(kept)

    def _add(self, start: int, line: bytes, reason: str) -> None:
        row, offset = line.removesuffix(b"\r"), self._offset + start
        self._rejects.add(self._origin, None, reason=reason, row=row, offset=offset)


def _read(lines: _Lines, layout: Layout) -> pa.Table:
    # Arrow cannot say which rows do not fit: it wants them to be UTF-8 before it names them. It
    # also takes a carriage return alone for the end of a line, and a blank line for empty columns.
    data = lines.data
    if b"\r" not in data or data.count(b"\r") == data.count(b"\r\n"):
        try:
            table = _parse(data, layout)
        except pa.ArrowInvalid:
            table = None
        if table is not None and _fits(table, layout):
            return table
    return _parse(lines.sift(len(layout.columns)), layout)


def _fits(table: pa.Table, layout: Layout) -> bool:
    shortest = pc.min(pc.binary_length(table[layout.wanted[0]])).as_py()
    rest = pc.max(pc.binary_length(table[_REST])).as_py()
    return shortest != 0 and not rest


def _parse(data: bytes, layout: Layout) -> pa.Table:
    """Raises pa.ArrowInvalid where a row has another number of columns."""
    wanted = [*layout.wanted, _REST]
    if not data:
        return pa.table({name: pa.array([], pa.binary()) for name in wanted})
    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 1,
            column_names=[*layout.columns, _REST],
        ),
        parse_options=csv.ParseOptions(
            delimiter="|", quote_char=False, double_quote=False, ignore_empty_lines=False
        ),
        convert_options=csv.ConvertOptions(
            check_utf8=False,
            strings_can_be_null=False,
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.binary()),
        ),
    )
