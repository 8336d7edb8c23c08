"""Comparison forms of whole columns: what `text.normalise` gives, at the speed of arrays."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_ray.kb.text import normalise

_SPACE = ord(" ")
_ASCII = np.zeros(256, dtype=np.uint8)
_ASCII[_SPACE : ord("~") + 1] = np.arange(_SPACE, ord("~") + 1)
_ASCII[ord("A") : ord("Z") + 1] += ord("a") - ord("A")
_ASCII[ord("`")] = ord("'")

# Starters that compose with nothing that could come before them, and whose form depends on
# nothing around them; marks and conjoining jamo do otherwise.
_INDEPENDENT = (
    (0x00C0, 0x0180),
    (0x0386, 0x03CF),
    (0x0400, 0x0460),
    (0x0490, 0x0492),
    (0x05D0, 0x05EB),
    (0x0621, 0x064B),
    (0x1EA0, 0x1EFA),
    (0x2010, 0x2016),
    (0x2018, 0x2020),
    (0x3001, 0x3003),
    (0x3041, 0x3097),
    (0x30A1, 0x30FD),
    (0xFF01, 0xFF5F),
)
_UNCHANGED = ((0x4E00, 0xA000), (0xAC00, 0xD7A4))
_BEYOND = 0x10000


def forms_of(texts: pa.StringArray, langs: pa.StringArray) -> pa.StringArray:
    """``[normalise(text, lang) for text, lang in zip(texts, langs)]`` as a column.

    Texts of printable ASCII are folded byte by byte, those of common letters code point by code
    point. The others, those whose white space is not in order, and Turkic ones go through
    `normalise`.

    Args:
        texts: string [n], no nulls.
        langs: string [n], no nulls: BCP 47 tags.
    """
    if not len(texts):
        return pa.array([], pa.string())
    turkic = _turkic(langs)
    letters, starts = _letters(texts)
    folded = _ASCII[letters]
    others = _not_folded(folded, starts) | turkic
    forms = _strings(folded, starts)
    if not others.any():
        return forms
    mask = pa.array(others)
    rest = _forms_of_others(texts.filter(mask), langs.filter(mask), turkic[others])
    return pc.replace_with_mask(forms, mask, rest)


def _forms_of_others(
    texts: pa.StringArray, langs: pa.StringArray, turkic: NDArray[np.bool_]
) -> pa.StringArray:
    letters, starts = _letters(texts)
    points = np.frombuffer(letters.tobytes().decode().encode("utf-32-le"), np.uint32)
    begins = np.concatenate(([0], np.cumsum((letters & 0xC0) != 0x80)))[starts]
    folded = _folded_points()[np.minimum(points, _BEYOND)]
    mask = pa.array(_not_folded(folded, begins) | turkic)
    sizes = 1 + (folded >= 0x80).astype(np.int32) + (folded >= 0x800)
    ends = np.concatenate(([0], np.cumsum(sizes, dtype=np.int32)))[begins]
    encoded = np.frombuffer(folded.tobytes().decode("utf-32-le").encode(), np.uint8)
    forms = _strings(encoded, ends.astype(np.int32))
    pairs = zip(texts.filter(mask).to_pylist(), langs.filter(mask).to_pylist(), strict=True)
    rest = pa.array([normalise(text, lang) for text, lang in pairs], pa.string())
    return pc.replace_with_mask(forms, mask, rest)


@cache
def _folded_points() -> NDArray[np.uint32]:
    """The form of a code point that has one of its own, of one code point; else 0."""
    table = np.zeros(_BEYOND + 1, dtype=np.uint32)
    table[: len(_ASCII)] = _ASCII
    for first, end in _INDEPENDENT:
        for point in range(first, end):
            form = normalise(chr(point))
            table[point] = ord(form) if len(form) == 1 else 0
    for first, end in _UNCHANGED:
        table[first:end] = np.arange(first, end)
    return table


def _letters(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of a column, and where each text begins, and the last ends, among them."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
    letters = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return letters, offsets - offsets[0]


def _strings(letters: NDArray[np.uint8], starts: NDArray[np.int32]) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(starts) - 1, pa.py_buffer(starts), pa.py_buffer(letters))


def _not_folded(
    folded: NDArray[np.uint8] | NDArray[np.uint32], starts: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which texts hold a letter without a form (0), or a space at an end or beside another."""
    odd = folded == 0
    spaces = folded == _SPACE
    odd[:-1] |= spaces[:-1] & spaces[1:]
    found = np.zeros(len(starts) - 1, dtype=bool)
    found[np.searchsorted(starts, np.flatnonzero(odd), side="right") - 1] = True
    filled = np.flatnonzero(np.diff(starts))
    found[filled] |= spaces[starts[:-1][filled]] | spaces[starts[1:][filled] - 1]
    return found


def _turkic(langs: pa.StringArray) -> NDArray[np.bool_]:
    """Which rows are of a language that folds even ASCII in its own way."""
    coded = langs.dictionary_encode()
    turkic = [normalise("I", lang) != "i" for lang in coded.dictionary.to_pylist()]
    codes: NDArray[np.int32] = coded.indices.to_numpy()
    return np.array(turkic, dtype=bool)[codes]
