"""Texts to character n-grams, aware of scripts, in two views.

*Written*: trigrams of the text without its accents; of Chinese, Japanese and Korean characters,
which carry far more, single ones and pairs (with trigrams alone a name of two characters is lost
by one typo). *Sounded*: trigrams of a rough romanisation, so that loan words meet across scripts:
инфаркт, infarct and infarto share most of theirs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
# Kana, Han and Hangul syllables: first code point, first one after.
_DENSE = (
    (0x3040, 0x3100),
    (0x3400, 0xA000),
    (0xAC00, 0xD7A4),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
)
_BREAK, _SPARSE_CHAR, _DENSE_CHAR = 0, 1, 2

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
    3: np.uint64(0xDAA66D2C7DDF743F),
}


def ngrams(forms: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The n-grams of normalised forms, as 64-bit hashes.

    Returns:
        The hashes and, for each, the position of its form, both of one length. A form's n-gram
        may come more than once. A form of punctuation alone has n-grams too; an empty one none.
    """
    views = [_written(form) + "\0" + _sounded(form) + "\0" for form in forms]
    lengths = np.fromiter(map(len, views), dtype=np.int64, count=len(views))
    chars = np.frombuffer(("".join(views) + "\0\0").encode("utf-32-le"), dtype=np.uint32)
    kinds = _kinds(chars)
    owner = np.repeat(np.arange(len(views)), lengths)
    n = len(owner)
    sparse, dense = kinds == _SPARSE_CHAR, kinds == _DENSE_CHAR
    places = {
        1: dense[:n],
        2: dense[:n] & dense[1 : n + 1],
        3: sparse[:n] & sparse[1 : n + 1] & sparse[2 : n + 2],
    }
    starts = {size: np.flatnonzero(mask) for size, mask in places.items()}
    hashes = [_hash(chars, at, size) for size, at in starts.items()]
    return np.concatenate(hashes), np.concatenate([owner[at] for at in starts.values()])


def _written(form: str) -> str:
    if not form.isascii():
        bare = (c for c in unicodedata.normalize("NFD", form) if unicodedata.category(c) != "Mn")
        form = unicodedata.normalize("NFC", "".join(bare)) or form
    return f" {form} " if form else ""


def _sounded(form: str) -> str:
    """In upper case, so that both views can share one table of n-grams and never meet."""
    text = anyascii(_HAN.sub(" ", form)).lower()
    for written, sound in _SOUNDS:
        text = text.replace(written, sound)
    text = " ".join(_DOUBLED.sub(r"\1", text).split())
    return f" {text.upper()} " if text else ""


def _kinds(chars: NDArray[np.uint32]) -> NDArray[np.uint8]:
    kinds = np.where(chars == 0, _BREAK, _SPARSE_CHAR).astype(np.uint8)
    for first, after in _DENSE:
        kinds[(chars >= first) & (chars < after)] = _DENSE_CHAR
    return kinds


def _hash(chars: NDArray[np.uint32], at: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    hashes = np.full(len(at), _SEEDS[size])
    for offset in range(size):
        hashes = (hashes ^ chars[at + offset]) * _PRIME
        hashes ^= hashes >> np.uint64(29)
    return hashes
