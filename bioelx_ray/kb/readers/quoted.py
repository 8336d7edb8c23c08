"""Tab-separated tables with quotes, as spreadsheets and pandas write them.

A cell may stand in double quotes; it may then hold tabs, line ends, and double quotes written
twice. A quotation mark within a bare cell is a character like any other. Lines that begin with
``#`` may precede the header.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.rows import Row, reject_row
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.files import read_lines

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class QuotedTable:
    """The lines before the header, without their ``#``, the names of the columns, the rows."""

    comments: list[str]
    columns: list[str]
    rows: Iterator[Row]


def read_quoted(path: Path, *, origin: str, rejects: Rejects) -> QuotedTable:
    """A table; a name that ends in ``.gz`` is unpacked. Rows without any text are left out.

    `rejects` takes rows that are not UTF-8, do not fit the columns, or whose quotes are broken.
    A quote that is never closed costs the lines up to the next one or 128 KiB, not the file.

    Raises:
        InputError: the file cannot be read, or what precedes its rows is not UTF-8 or no header.
    """
    comments: list[str] = []
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        text = _decoded(path, line.removeprefix(_BOM) if number == 1 else line)
        if not text.startswith("#"):
            columns = _columns(path, text)
            break
        comments.append(text[1:])
    else:
        raise InputError(f"{path}: empty; expected a header line with the names of the columns")
    rows = _rows(lines, columns, start=number + 1, origin=origin, rejects=rejects)
    return QuotedTable(comments, columns, rows)


def missing_columns(columns: Collection[str], wanted: Collection[str]) -> str:
    """The wanted columns that are not there, as words; empty if all are."""
    return ", ".join(name for name in wanted if name not in columns)


def _decoded(path: Path, line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: its header is not UTF-8 ({error}); save it as UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path}: this is UTF-16 or no text; save it as UTF-8")
    return text.rstrip("\r\n")


def _columns(path: Path, header: str) -> list[str]:
    try:
        columns = next(csv.reader([header], delimiter="\t"), [])
    except csv.Error as error:
        raise InputError(f"{path}: its header cannot be read ({error})") from error
    if not columns:
        raise InputError(f"{path}: its header is empty; expected the names of the columns")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: a column is there twice: {', '.join(columns)}")
    return columns


def _rows(
    lines: Iterator[bytes], columns: list[str], *, start: int, origin: str, rejects: Rejects
) -> Iterator[Row]:
    for line, raw, fields in _records(lines, start=start):
        row = Row(line, raw, {})
        if fields is None:
            reason = "quotes of the row are broken"
        elif not raw.isascii() and _SURROGATE.search(raw):
            reason = "row is not UTF-8"
        elif len(fields) != len(columns):
            reason = "row has another number of fields than the header"
        else:
            row.values = dict(zip(columns, fields, strict=True))
            yield row
            continue
        reject_row(row, reason, origin=origin, rejects=rejects)


def _records(lines: Iterator[bytes], *, start: int) -> Iterator[tuple[int, str, list[str] | None]]:
    """Line number, text and fields of each record that is not empty; None: its quotes break."""
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in lines:
            text = line.decode("utf-8", "surrogateescape")
            taken.append(text.rstrip("\r\n"))
            yield text

    reader = csv.reader(take(), delimiter="\t", strict=True)
    fields: list[str] | None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = None
        if fields is None or any(fields):
            yield start, "\n".join(taken), fields
        start += len(taken)
        taken.clear()
