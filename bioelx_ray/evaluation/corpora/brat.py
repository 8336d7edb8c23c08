"""BRAT's standoff format: a ``.txt`` and beside it an ``.ann`` with one annotation a line.

https://brat.nlplab.org/standoff.html. Read are text-bound annotations (``T``) with the notes
(``#``) and references to knowledge bases (``N``) that point at them. Relations, events and
attributes (``R E A M *``) say nothing about what a span names and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bioelx_ray.errors import InputError

Fragments = tuple[tuple[int, int], ...]

_TEXT_BOUND = re.compile(r"(T\d+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.+)")
_NOTE = re.compile(r"#\d*\t\S+ (\S+)(?:\t(.*))?")
_REFERENCE = re.compile(r"N\d+\t\S+ (\S+) (\S+)(?:\t.*)?")
_OTHER = tuple("REAM*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBound:
    """An annotated span: one fragment, or several where other words stand between them.

    `fragments` are code points, end exclusive, without white space around them. `text` joins the
    fragments by a space. `references` are ids as the file writes them (``UMLS:C0027051``).
    """

    id: str
    type: str
    fragments: Fragments
    text: str
    notes: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BratDocument:
    """A text with its annotations, in the order of the file. `id` is the file's name."""

    id: str
    text: str
    spans: tuple[TextBound, ...]


def read_brat(lines: Iterable[bytes], *, text: str, origin: str) -> tuple[TextBound, ...]:
    r"""The text-bound annotations of an ``.ann`` file; `text` is the ``.txt``, line ends and all.

    Offsets are checked against the text: BRAT counts code points, ``\r\n`` as two.

    Raises:
        InputError: a line of no known form, an id given twice, offsets that do not hold the
            annotated text, or a note or reference to a span that is not there.
    """
    spans: dict[str, TextBound] = {}
    pointers: list[tuple[int, str]] = []  # may stand before the span that they point at
    for number, line in enumerate(lines, start=1):
        with _located(origin, number):
            row = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if row.startswith("T"):
                _add(_text_bound(row, text), spans)
            elif row.strip() and not row.startswith(_OTHER):
                pointers.append((number, row))
    for number, row in pointers:
        with _located(origin, number):
            _attach(row, spans)
    return tuple(spans.values())


@contextmanager
def _located(origin: str, number: int) -> Iterator[None]:
    try:
        yield
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{origin}, line {number}: {error}") from error


def _add(span: TextBound, spans: dict[str, TextBound]) -> None:
    if span.id in spans:
        raise InputError(f"{span.id} is there twice")
    spans[span.id] = span


def _text_bound(row: str, text: str) -> TextBound:
    match = _TEXT_BOUND.fullmatch(row)
    if not match:
        raise InputError(f"{row[:80]!r} is not 'T1<TAB>Type 0 5<TAB>text'")
    name, kind, offsets, written = match.groups()
    fragments = [(int(a), int(b)) for a, b in (pair.split() for pair in offsets.split(";"))]
    covered = " ".join(text[start:end] for start, end in fragments)
    if _spaced(covered) != _spaced(written):
        raise InputError(
            f"{name} says {written!r}, the text holds {covered!r} there: is the .txt another "
            "version, or are its offsets not counted in code points?"
        )
    trimmed = tuple(_trim(text, start, end) for start, end in fragments)
    joined = " ".join(_spaced(text[start:end]) for start, end in trimmed)
    return TextBound(id=name, type=kind, fragments=trimmed, text=joined)


def _spaced(text: str) -> str:
    """BRAT writes a line end inside a span as a space."""
    return re.sub(r"\s", " ", text)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    if end > len(text) or not part.strip():
        raise InputError(f"[{start}, {end}) ends after the text or holds white space only")
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


def _attach(row: str, spans: dict[str, TextBound]) -> None:
    note, reference = _NOTE.fullmatch(row), _REFERENCE.fullmatch(row)
    match = note or reference
    if not match:
        raise InputError(f"{row[:80]!r} is no annotation of BRAT's standoff format")
    target, value = match.groups(default="")
    if not target.startswith("T"):
        return
    if target not in spans:
        raise InputError(f"{row[:80]!r} points at {target}, which is not there")
    span = spans[target]
    spans[target] = (
        replace(span, notes=(*span.notes, value))
        if note
        else replace(span, references=(*span.references, value))
    )


def read_brat_dir(path: Path) -> Iterator[BratDocument]:
    """The documents of a directory, by name.

    Raises:
        InputError: an ``.ann`` without its ``.txt`` or the reverse, or a file that does not read.
    """
    texts = {file.stem for file in path.glob("*.txt")}
    annotations = {file.stem for file in path.glob("*.ann")}
    if lone := sorted(texts ^ annotations):
        raise InputError(f"{path}: {lone[0]} has only one of .txt and .ann ({len(lone)} such)")
    for name in sorted(texts):
        file = path / f"{name}.txt"
        try:
            text = file.read_bytes().decode("utf-8")  # not read_text: it would turn CRLF into LF
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: {error}; expected UTF-8") from error
        with (path / f"{name}.ann").open("rb") as lines:
            spans = read_brat(lines, text=text, origin=str(path / f"{name}.ann"))
        yield BratDocument(id=name, text=text, spans=spans)
