"""How alike two names are, for millions of pairs at once: trigrams of bytes, words and numbers.

A name becomes 256 bits in which each of its trigrams sets one (a Bloom filter), a sum over the
hashes of its words and another over those of its words that hold a digit. Jaccard's index of the
bits stands for that of the trigrams; equal sums mean the same words in whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]

SAME_WORDS = 1.0
"""The likeness of two names of the same words; no other names have it."""

OTHER_NUMBERS = 0.6
"""By how much unlike numbers lower a likeness: ``type 1`` and ``type 2`` share most trigrams."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPACE = 0x20
_LONGEST_WORD = 64

# Only word characters count, so that "B-cell" is "B cell"; bytes of other scripts all do.
_WORD_BYTES = np.array([b if b > 127 or chr(b).isalnum() else 0 for b in range(256)], np.uint8)
_IS_DIGIT = np.array([chr(b).isdigit() and b < 128 for b in range(256)])
_POWERS = np.cumprod(np.full(_LONGEST_WORD, 0x100000001B3, np.uint64), dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Of n names: `bits` uint64 [n, 4], `words` and `numbers` uint64 [n]."""

    bits: Words
    words: Words
    numbers: Words

    def take(self, rows: NDArray[np.int64]) -> Signatures:
        """The signatures of some names, in that order."""
        return Signatures(self.bits[rows], self.words[rows], self.numbers[rows])


def signatures(names: pa.Array) -> Signatures:
    """The signatures of names, an Arrow array of normalised forms without nulls."""
    data, starts = _padded(names)
    if not len(starts):
        none = np.zeros(0, np.uint64)
        return Signatures(np.zeros((0, 4), np.uint64), none, none)
    words, numbers = _word_sums(data, starts)
    return Signatures(_trigram_bits(data, starts), words, numbers)


def likeness(a: Signatures, b: Signatures) -> NDArray[np.float32]:
    """How alike the names of one row are, in [0, 1], float32 [n]."""
    both = np.bitwise_count(a.bits & b.bits).sum(axis=1, dtype=np.float32)
    either = np.bitwise_count(a.bits | b.bits).sum(axis=1, dtype=np.float32)
    # Two names may fill the same bits with other words.
    alike = np.minimum(both / np.maximum(either, 1), np.float32(0.99))
    alike[a.numbers != b.numbers] *= np.float32(OTHER_NUMBERS)
    alike[(a.words == b.words) & (a.words != 0)] = SAME_WORDS
    return np.asarray(alike)


def _padded(names: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The names' bytes, two spaces after each and one before the first, and where each begins.

    The beginning is that of the space before; bytes that belong to no word are spaces.
    """
    names = names.cast(pa.large_binary())
    lengths = np.diff(np.frombuffer(names.buffers()[1], np.int64)[names.offset :][: len(names) + 1])
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths - 2
    data = np.full(int(ends[-1]) + 1 if len(names) else 0, _SPACE, np.uint8)
    place = np.repeat(starts + 1 - (np.cumsum(lengths) - lengths), lengths)
    total = int(lengths.sum())
    first = np.frombuffer(names.buffers()[1], np.int64)[names.offset] if len(names) else 0
    text = np.frombuffer(names.buffers()[2] or b"", np.uint8)[first : first + total]
    data[place + np.arange(total)] = np.where(_WORD_BYTES[text] == 0, _SPACE, text)
    return data, starts.astype(np.int64)


def _trigram_bits(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> Words:
    wide = data.astype(np.uint64)
    grams = (wide[:-2] << np.uint64(16)) | (wide[1:-1] << np.uint64(8)) | wide[2:]
    spot = (grams * _MIX) >> np.uint64(56)
    bit = np.uint64(1) << (spot & np.uint64(63))
    # A trigram that has a space amid it, or that runs into the next name, says nothing.
    bit[(data[1:-1] == _SPACE)] = 0
    word = spot >> np.uint64(6)
    columns = [
        np.bitwise_or.reduceat(np.where(word == np.uint64(w), bit, np.uint64(0)), starts)
        for w in range(4)
    ]
    return np.stack(columns, axis=1)


def _word_sums(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> tuple[Words, Words]:
    """By name the sums of its words' hashes: of all, and of those with a digit."""
    words, numbers = np.zeros(len(starts), np.uint64), np.zeros(len(starts), np.uint64)
    inside = np.flatnonzero(data != _SPACE)
    if not len(inside):
        return words, numbers
    first = np.flatnonzero(np.diff(inside, prepend=-2) > 1)  # of each word, in `inside`
    letters = np.arange(len(inside)) - np.repeat(first, np.diff(first, append=len(inside)))
    value = data[inside].astype(np.uint64) * _POWERS[np.minimum(letters, _LONGEST_WORD - 1)]
    hashed = np.add.reduceat(value, first)
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _MIX
    hashed ^= hashed >> np.uint64(32)
    digits = np.where(np.logical_or.reduceat(_IS_DIGIT[data[inside]], first), hashed, np.uint64(0))
    name = np.searchsorted(starts, inside[first], side="right") - 1
    begin = np.flatnonzero(np.diff(name, prepend=-1))
    words[name[begin]] = np.add.reduceat(hashed, begin)
    numbers[name[begin]] = np.add.reduceat(digits, begin)
    return words, numbers
