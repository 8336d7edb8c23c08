"""Gzip files unpacked piece by piece, past damage where a later member allows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from isal import isal_zlib

from bioelx_ray.kb.stored.pieces import TRUNCATED, Damage, Piece

# The stubs call it an instance.
_Unsound = cast("type[Exception]", isal_zlib.IsalError)
_FEED = 1 << 18
_GZIP = 16 + isal_zlib.MAX_WBITS
# Magic, deflate, and flags, of which the upper three must be zero.
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]", re.DOTALL)
_MAGIC = b"\x1f\x8b"
_MAGIC_BYTES = 4
_WINDOW = 1 << 20
_PROBE = 1 << 16


class _Stored:
    """A file's stored bytes: `buffer` holds those that were read and not yet unpacked."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.buffer = b""
        self.position = 0

    def fill(self) -> bool:
        """Read on if the buffer is empty; whether there are bytes in it."""
        if not self.buffer:
            self._handle.seek(self.position)
            self.buffer = self._handle.read(_FEED)
        return bool(self.buffer)

    def keep(self, rest: bytes) -> None:
        """Keep only the rest of the buffer."""
        self.position += len(self.buffer) - len(rest)
        self.buffer = rest

    def seek(self, position: int) -> None:
        """Go to a place of the file."""
        self.buffer, self.position = b"", position


def unpack_members(handle: BinaryIO, *, piece_bytes: int) -> Iterator[Piece | Damage]:
    """The content of all members, in pieces of at most `piece_bytes`, at their unpacked offsets.

    Damage costs the rest of its member, and what the 256 KiB in which it shows hold before it;
    reading goes on at the next member that unpacks. Damage that deflate cannot see shows at the
    checksum at the member's end: what comes before it has been given by then. Zero bytes behind a
    member are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    stored = _Stored(handle)
    unpacked = 0
    while _at_member(stored):
        begin = stored.position
        if stored.buffer[: len(_MAGIC)] != _MAGIC[: len(stored.buffer)]:
            yield _skip(handle, stored, begin)
            continue
        try:
            for data in _member(stored, piece_bytes):
                yield Piece(data=data, offset=unpacked)
                unpacked += len(data)
        except EOFError:
            yield Damage(offset=stored.position, lost=0, reason=TRUNCATED)
        except _Unsound:
            yield _skip(handle, stored, begin)


def _at_member(stored: _Stored) -> bool:
    """Skip zero bytes; whether there are others behind them."""
    while stored.fill():
        stored.keep(stored.buffer.lstrip(b"\0"))
        if stored.buffer:
            return True
    return False


def _member(stored: _Stored, piece_bytes: int) -> Iterator[bytes]:
    """The content of the member that begins here.

    Raises:
        EOFError: the file ends before the member does.
        isal_zlib.IsalError: the member is damaged.
    """
    unpacker = isal_zlib.decompressobj(wbits=_GZIP)
    is_full = False
    while not unpacker.eof:
        if not stored.fill() and not is_full:
            raise EOFError
        data = unpacker.decompress(stored.buffer, piece_bytes)
        stored.keep(unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail)
        is_full = len(data) == piece_bytes
        if data:
            yield data


def _skip(handle: BinaryIO, stored: _Stored, begin: int) -> Damage:
    """Go to the next member behind damage, or to the file's end. `begin`: of the damaged one."""
    damaged = stored.position
    found = _next_member(handle, max(damaged, begin + 1))
    stored.seek(found)
    return Damage(offset=damaged, lost=found - damaged, reason="gzip member is damaged")


def _next_member(handle: BinaryIO, start: int) -> int:
    """The stored byte in which the next member begins that unpacks; else where the file ends."""
    while True:
        handle.seek(start)
        window = handle.read(_WINDOW)
        for match in _MEMBER.finditer(window):
            if _unpacks(handle, start + match.start()):
                return start + match.start()
        if len(window) < _WINDOW:
            return start + len(window)
        start += len(window) - _MAGIC_BYTES + 1


def _unpacks(handle: BinaryIO, start: int) -> bool:
    """Whether the first bytes from a place on are those of a member."""
    handle.seek(start)
    unpacker = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        return bool(unpacker.decompress(handle.read(_PROBE), _PROBE)) or unpacker.eof
    except _Unsound:
        return False
