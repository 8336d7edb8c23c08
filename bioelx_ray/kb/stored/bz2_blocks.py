"""The blocks of bzip2 files, found and unpacked one by one, whatever tool wrote them.

A stream is ``BZh1`` to ``BZh9``, blocks, an end mark and a checksum over the blocks' checksums,
filled up to a whole byte. A block begins at any bit with a mark, 48 bits of pi, and its checksum;
the end mark is 48 bits of the square root of pi. A file may hold many streams. There is no index:
marks are searched.
"""

from __future__ import annotations

import bz2
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bioelx_ray.kb.stored.pieces import TRUNCATED, Damage, Piece

_BLOCK = 0x314159265359
_END = 0x177245385090
_MARK_BITS = 48
_CRC_BITS = 32
_HEADER = re.compile(rb"BZh[1-9]")

# A block holds at most 900,000 bytes; if they cannot be compressed it is about 1 % longer.
_MAX_BLOCK_BYTES = 1_000_000
_WINDOW = 1 << 20
_PAIRS = 1 << 16


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a block begins or a stream ends; `bit` counts from the start of the file."""

    bit: int
    ends_stream: bool

    @property
    def byte(self) -> int:
        return self.bit // 8


def first_block(descriptor: int) -> int | None:
    """The stored byte in which the file's first block begins, or None if there is no block."""
    return next((m.byte for m in _marks(descriptor, 0) if not m.ends_stream), None)


def unpack_blocks(descriptor: int, start: int) -> Iterator[tuple[int, Piece | Damage]]:
    """The contents of the blocks that begin in the stored byte `start` or behind it.

    Each comes with the stored byte of the mark that it belongs to, which is also the offset of a
    piece. What cannot be unpacked is given as damage: a block whose checksum is wrong, or bytes
    outside of streams. A bit that flips inside a mark costs the block before it as well.

    Raises:
        OSError: the file cannot be read.
    """
    marks = _marks(descriptor, start)
    ahead = list(islice(marks, 3))
    if start == 0:
        end = ahead[0].byte if ahead else os.fstat(descriptor).st_size
        for damage in _outside(descriptor, 0, end):
            yield 0, damage
    may_be_data = start > 0
    while ahead:
        mark, ends = ahead[0], _ends(descriptor, ahead)
        item, taken = _read(descriptor, mark, ends)
        # Data that look like a mark: the block that they belong to began before `start`.
        if may_be_data and isinstance(item, Damage) and _lies_in_block(descriptor, mark, ends[0]):
            item = None
        if item is not None:
            yield mark.byte, item
        may_be_data = False
        ahead = [*ahead[taken:], *islice(marks, taken)]
        if not ahead and not mark.ends_stream:
            size = os.fstat(descriptor).st_size
            yield mark.byte, Damage(offset=size, lost=0, reason=TRUNCATED)


def _ends(descriptor: int, ahead: list[_Mark]) -> list[int]:
    """The bits at which the first mark's block may end: at the next mark, or at the one behind.

    Data look like a mark once in 2^47 bits, so it may be that the next mark is none.
    """
    return [mark.bit for mark in ahead[1:3]] or [8 * os.fstat(descriptor).st_size]


def _read(descriptor: int, mark: _Mark, ends: list[int]) -> tuple[Piece | Damage | None, int]:
    """What belongs to a mark, and how many marks that takes up."""
    if mark.ends_stream:
        behind = (mark.bit + _MARK_BITS + _CRC_BITS + 7) // 8
        return next(_outside(descriptor, behind, ends[0] // 8), None), 1
    for taken, end in enumerate(ends, start=1):
        data = _unpack(descriptor, mark.bit, end)
        if data is not None:
            return Piece(data=data, offset=mark.byte), taken
    lost = (ends[0] + 7) // 8 - mark.byte
    return Damage(offset=mark.byte, lost=lost, reason="bzip2 block is damaged"), 1


def _outside(descriptor: int, start: int, end: int) -> Iterator[Damage]:
    """Damage where [start, end) is not just the header of the stream that follows it.

    Behind the last stream there may be zero bytes, with which tapes are filled up.
    """
    size = os.fstat(descriptor).st_size
    found = _pread(descriptor, min(end - start, _WINDOW), start)
    if end < size:
        sound = _HEADER.fullmatch(found) is not None
    else:
        sound = end - start <= _WINDOW and not found.strip(b"\0")
    if not sound:
        reason = "bytes belong to no bzip2 stream"
        yield Damage(offset=start, lost=max(0, end - start), reason=reason)


def _lies_in_block(descriptor: int, mark: _Mark, end: int) -> bool:
    """Whether the block before a mark goes on until `end`, so that the mark is none."""
    earlier = list(_marks(descriptor, max(0, mark.byte - _MAX_BLOCK_BYTES), mark.byte))
    if not earlier or earlier[-1].ends_stream:
        return False
    return _unpack(descriptor, earlier[-1].bit, end) is not None


def _unpack(descriptor: int, bit: int, end: int) -> bytes | None:
    """The content of the block of the bits [bit, end), or None if they are no sound block.

    They are made a stream of one block, whose checksum is the block's own.
    """
    if not _MARK_BITS + _CRC_BITS < end - bit <= 8 * _MAX_BLOCK_BYTES:
        return None
    stored = _pread(descriptor, (end + 7) // 8 - bit // 8 + 1, bit // 8)
    whole, rest = divmod(end - bit, 8)
    block = _shifted(stored, bit % 8, whole + 1)
    crc = int.from_bytes(block[6:10], "big")
    last = block[whole] >> (8 - rest)
    trailer = ((last << _MARK_BITS | _END) << _CRC_BITS | crc) << (8 - rest)
    try:
        return bz2.decompress(b"BZh9" + block[:whole] + trailer.to_bytes(11, "big"))
    except (OSError, ValueError):
        return None


def _shifted(stored: bytes, shift: int, length: int) -> bytes:
    """`length` bytes that begin `shift` bits into `stored`; what is missing is zero."""
    source = np.frombuffer(stored.ljust(length + 1, b"\0"), dtype=np.uint8)[: length + 1]
    if not shift:
        return source[:length].tobytes()
    shifted: bytes = (source[:-1] << shift | source[1:] >> (8 - shift)).tobytes()
    return shifted


def _marks(descriptor: int, start: int, stop: int | None = None) -> Iterator[_Mark]:
    """The marks that begin in the stored bytes [start, stop), in order. No `stop`: to the end."""
    size = os.fstat(descriptor).st_size
    stop = size if stop is None else min(stop, size)
    for begin in range(start, stop, _WINDOW):
        length = min(_WINDOW, stop - begin)
        # A mark may lie across the window's end.
        window = _pread(descriptor, length + 6, begin)
        yield from (m for m in _marks_in(window, begin) if m.byte < begin + length)


def _patterns() -> dict[bytes, tuple[int, int]]:
    """Bytes 1 to 5 of the marks if they begin at bit `shift` of byte 0, with mark and shift."""
    return {
        (mark << (8 - shift)).to_bytes(7, "big")[1:6]: (mark, shift)
        for mark in (_BLOCK, _END)
        for shift in range(8)
    }


_PATTERNS = _patterns()
# Of five bytes in a row the first two or the second two are an aligned pair. Looking pairs up is
# three times as fast as a regular expression of the sixteen patterns.
_IS_IN_PATTERN = np.zeros(1 << 16, dtype=np.uint8)
for _pattern in _PATTERNS:
    _IS_IN_PATTERN[np.frombuffer(_pattern[:2] + _pattern[1:3], dtype=np.uint16)] = 1


def _marks_in(window: bytes, begin: int) -> Iterator[_Mark]:
    pairs = np.frombuffer(window, dtype=np.uint16, count=len(window) // 2)
    for first in range(0, len(pairs), _PAIRS):
        found = np.flatnonzero(_IS_IN_PATTERN[pairs[first : first + _PAIRS]])
        for pair in found.tolist():
            for place in (2 * (first + pair) - 1, 2 * (first + pair)):
                if mark := _mark_at(window, place, begin):
                    yield mark


def _mark_at(window: bytes, place: int, begin: int) -> _Mark | None:
    """The mark whose second byte is at a place of the window."""
    known = _PATTERNS.get(window[place : place + 5]) if place > 0 else None
    if known is None:
        return None
    mark, shift = known
    bits = int.from_bytes(window[place - 1 : place + 6].ljust(7, b"\0"), "big")
    if bits >> (8 - shift) & ((1 << _MARK_BITS) - 1) != mark:
        return None
    return _Mark(8 * (begin + place - 1) + shift, mark == _END)


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """`length` bytes at an offset; fewer only at the end of the file."""
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)
