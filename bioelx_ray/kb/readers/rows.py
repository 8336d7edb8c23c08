"""Rows of delimited text and Parquet files, each with its line number and what it read like."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bioelx_ray.errors import InputError
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.files import read_lines

SUFFIXES = (".tsv", ".tsv.gz", ".csv", ".csv.gz", ".parquet")

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(slots=True)
class Row:
    """A row's values by column. `line` counts from 1, the header's; in Parquet, rows from 1.

    What is no UTF-8 has become surrogates (PEP 383) in `raw` and in `values`.
    """

    line: int
    raw: str
    values: dict[str, str]


def read_rows(path: Path, *, origin: str, rejects: Rejects) -> tuple[list[str], Iterator[Row]]:
    """The columns of a table, and its rows; `rejects` takes those that do not fit the columns.

    Raises:
        InputError: another suffix than `SUFFIXES`, or a file that cannot be read or has no header.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path)
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of table; expected one of {', '.join(SUFFIXES)}")
    lines = read_lines(path)
    header = _header(path, next(lines, b""))
    text = (line.decode("utf-8", "surrogateescape") for line in lines)
    if name.removesuffix(".gz").endswith(".tsv"):
        columns, records = header.split("\t"), _tab_separated(text)
    else:
        columns, records = header.replace('"', "").split(","), _comma_separated(text)
    return columns, _fitting(records, columns, origin=origin, rejects=rejects)


def _header(path: Path, line: bytes) -> str:
    if line.startswith(_UTF16) or b"\0" in line:
        raise InputError(f"{path}: this is UTF-16 or no text; save it as UTF-8")
    try:
        header = line.removeprefix(_BOM).decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: its header is not UTF-8 ({error}); save it as UTF-8") from error
    if not header:
        raise InputError(f"{path}: empty; expected a header line with the names of the columns")
    return header


@dataclass(slots=True)
class _Record:
    """Fields, or the reason why there are none, and the lines that they come from."""

    line: int
    lines: list[str]
    fields: list[str]
    reason: str = "row has another number of fields than the header"


def _tab_separated(lines: Iterable[str]) -> Iterator[_Record]:
    for number, line in enumerate(lines, start=2):
        row = line.rstrip("\r\n")
        if row:
            yield _Record(number, [row], row.split("\t"))


def _comma_separated(lines: Iterable[str]) -> Iterator[_Record]:
    """RFC 4180. A field in quotes may hold line ends, so a record may have several lines."""
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in lines:
            taken.append(line.rstrip("\r\n"))
            yield line

    reader = csv.reader(take(), strict=True)
    start = 2
    while True:
        try:
            fields = next(reader, None)
        except csv.Error:
            yield _Record(start, taken.copy(), [], "quotes of the row are broken")
        else:
            if fields is None:
                return
            if fields:
                yield _Record(start, taken.copy(), fields)
        start += len(taken)
        taken.clear()


def _fitting(
    records: Iterable[_Record], columns: list[str], *, origin: str, rejects: Rejects
) -> Iterator[Row]:
    for record in records:
        if len(record.fields) == len(columns):
            values = dict(zip(columns, record.fields, strict=True))
            yield Row(record.line, "\n".join(record.lines), values)
        else:
            row = Row(record.line, "\n".join(record.lines), {})
            reject_row(row, record.reason, origin=origin, rejects=rejects)


def reject_row(row: Row, reason: str, *, origin: str, rejects: Rejects) -> None:
    """Count a bad row once for each of its lines, since a lost quote may have swallowed many."""
    for line, text in enumerate(row.raw.split("\n"), start=row.line):
        rejects.add(origin, line, reason=reason, row=text.encode("utf-8", "surrogateescape"))


def _parquet(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error
    return list(file.schema_arrow.names), _parquet_rows(path, file)


def _parquet_rows(path: Path, file: pq.ParquetFile) -> Iterator[Row]:
    line = 0
    try:
        for batch in file.iter_batches():
            columns = [column.cast(pa.string()) for column in batch.columns]
            for values in pa.record_batch(columns, names=batch.schema.names).to_pylist():
                line += 1
                texts = {name: value or "" for name, value in values.items()}
                yield Row(line, str(values), texts)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: row {line + 1} or later cannot be read ({error})") from error
