"""Texts to character n-grams, aware of scripts.

Of Chinese, Japanese and Korean characters, which carry more than letters, single ones and pairs:
with longer n-grams a name of two characters is lost by one typo. Of everything else, four
characters of a rough romanisation, so that loan words meet across scripts: инфаркт, infarct and
infarto share most of theirs. (Trigrams find no more, and have four times the postings.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
_NOT_DENSE = re.compile(  # kana, Han and Hangul syllables are dense
    "[^\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_BREAK = "\0"
_LAST_ASCII = 0x7F

# In this order: what Latin, Greek and transliterated names write differently and say alike.
_SOUNDS = (
    ("ph", "f"),
    ("th", "t"),
    ("ck", "k"),
    ("sch", "s"),
    ("sh", "s"),
    ("ch", "k"),
    ("ce", "se"),
    ("ci", "si"),
    ("cy", "si"),
    ("c", "k"),
    ("q", "k"),
    ("x", "ks"),
    ("z", "s"),
    ("w", "v"),
    ("y", "i"),
    ("j", "i"),
    ("ae", "e"),
    ("oe", "e"),
    ("h", ""),
    ("'", ""),
)
_DOUBLED = re.compile(r"(.)\1")
_PRIME = np.uint64(0x100000001B3)
_SEEDS = {
    1: np.uint64(0x9E3779B97F4A7C15),
    2: np.uint64(0x3C6EF372FE94F82A),
    4: np.uint64(0xDAA66D2C7DDF743F),
}


def ngrams(forms: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The n-grams of normalised forms, as 64-bit hashes.

    Returns:
        The hashes and, for each, the position of its form, both of one length. A form's n-gram
        may come more than once; a form that nothing is left of when romanised has none.
    """
    views = [f"{_NOT_DENSE.sub(_BREAK, form)}\0{_sounded(form)}\0" for form in forms]
    lengths = np.fromiter(map(len, views), dtype=np.int64, count=len(views))
    chars = np.frombuffer(("".join(views) + 3 * _BREAK).encode("utf-32-le"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(views)), lengths)
    n = len(owner)
    dense = chars > _LAST_ASCII
    sparse = (chars <= _LAST_ASCII) & (chars > 0)
    places = {
        1: dense[:n],
        2: dense[:n] & dense[1 : n + 1],
        4: sparse[:n] & sparse[1 : n + 1] & sparse[2 : n + 2] & sparse[3 : n + 3],
    }
    starts = {size: np.flatnonzero(mask) for size, mask in places.items()}
    hashes = [_hash(chars, at, size) for size, at in starts.items()]
    return np.concatenate(hashes), np.concatenate([owner[at] for at in starts.values()])


def _sounded(form: str) -> str:
    text = anyascii(_HAN.sub(" ", form)).lower()
    for written, sound in _SOUNDS:
        text = text.replace(written, sound)
    text = " ".join(_DOUBLED.sub(r"\1", text).split())
    return f" {text} ".ljust(4) if text else ""


def _hash(chars: NDArray[np.uint32], at: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    hashes = np.full(len(at), _SEEDS[size])
    for offset in range(size):
        hashes = (hashes ^ chars[at + offset]) * _PRIME
        hashes ^= hashes >> np.uint64(29)
    return hashes
