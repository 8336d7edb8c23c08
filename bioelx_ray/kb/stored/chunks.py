"""Whole lines of large files, plain or packed, in splits that can be read independently.

A line belongs to the split in which its first byte lies, so that every line is read once (the rule
of Hadoop's TextInputFormat): a split leaves out the line that is going on when it begins, and reads
past its end to finish its last one. Of a ``.bz2`` file a line that begins where a block does counts
to the split before, since the end of a line shows only in the block that holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bioelx_ray.errors import InputError
from bioelx_ray.kb.stored.ahead import ahead
from bioelx_ray.kb.stored.bz2_blocks import first_block, unpack_blocks
from bioelx_ray.kb.stored.gzip_members import unpack_members
from bioelx_ray.kb.stored.lines import Chunk, LineCutter
from bioelx_ray.kb.stored.pieces import Damage, Piece

__all__ = ["Chunk", "Damage", "Split", "plan_splits", "read_chunks"]

_CHUNK = 4 << 20
_AHEAD = 4
_TAIL = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What one worker reads: the lines whose first byte lies in [start, stop) of the stored file.

    The only split of a ``.gz`` file is the whole file.
    """

    path: Path
    start: int
    stop: int


def plan_splits(path: Path, *, split_bytes: int) -> list[Split]:
    """Splits of `split_bytes` stored bytes that cover a file, in its order; at least one.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.suffix.lower() == ".gz":
        return [Split(path=path, start=0, stop=size)]
    starts = range(0, max(size, 1), split_bytes)
    return [Split(path=path, start=at, stop=min(at + split_bytes, size)) for at in starts]


def read_chunks(split: Split, *, resume_at: int = 0) -> Iterator[Chunk | Damage]:
    """The lines of a split in the file's order, in chunks of about 4 MiB, and what damage it has.

    A line that damage cuts is left out. Damage is told by the split in which it begins.

    Args:
        split: one of `plan_splits`.
        resume_at: in a ``.gz`` file the unpacked offset at which a former chunk ended; what
            comes before it is unpacked and left out.

    Raises:
        InputError: the file cannot be read, or one of its lines is longer than 64 MiB.
    """
    suffix = split.path.suffix.lower()
    try:
        with split.path.open("rb", buffering=0) as handle:
            if suffix == ".gz":
                yield from _gzip_chunks(handle, split, resume_at)
            elif suffix == ".bz2":
                yield from _bz2_chunks(handle.fileno(), split)
            else:
                yield from _plain_chunks(handle, split)
    except OSError as error:
        raise _unreadable(split.path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error}); give a whole, readable file")


def _plain_chunks(handle: BinaryIO, split: Split) -> Iterator[Chunk]:
    # The byte before the split tells whether a line begins with the split.
    begin = max(0, split.start - 1)
    lines = LineCutter(split.path, chunk_bytes=_CHUNK, is_cut=begin < split.start)
    for piece in _plain_pieces(handle, begin, split.stop):
        yield from lines.add(piece)
    if lines.is_open:
        size = os.fstat(handle.fileno()).st_size
        for piece in _plain_pieces(handle, split.stop, size, piece_bytes=_TAIL):
            if lines.add_last(piece):
                break
    yield from lines.finish()


def _plain_pieces(
    handle: BinaryIO, start: int, stop: int, *, piece_bytes: int = _CHUNK
) -> Iterator[Piece]:
    handle.seek(start)
    while start < stop and (data := handle.read(min(piece_bytes, stop - start))):
        yield Piece(data=data, offset=start)
        start += len(data)


def _gzip_chunks(handle: BinaryIO, split: Split, resume_at: int) -> Iterator[Chunk | Damage]:
    lines = LineCutter(split.path, chunk_bytes=_CHUNK)
    unpacked = 0
    # the file cannot be split, so the only way to use a second core is beside the parsing
    for item in ahead(unpack_members(handle, piece_bytes=_CHUNK), depth=_AHEAD):
        if isinstance(item, Piece):
            unpacked = item.offset + len(item.data)
            if unpacked > resume_at:
                yield from lines.add(_from(item, resume_at))
        elif unpacked >= resume_at:
            yield from lines.cut()
            yield item
    yield from lines.finish()


def _from(piece: Piece, offset: int) -> Piece:
    if piece.offset >= offset:
        return piece
    return Piece(data=piece.data[offset - piece.offset :], offset=offset)


def _bz2_chunks(descriptor: int, split: Split) -> Iterator[Chunk | Damage]:
    first = first_block(descriptor)
    is_cut = first is not None and first < split.start
    lines = LineCutter(split.path, chunk_bytes=_CHUNK, is_cut=is_cut, is_exact=False)
    has_begun = False
    for mark, item in unpack_blocks(descriptor, split.start):
        if mark < split.stop:
            has_begun = True
            if isinstance(item, Piece):
                yield from lines.add(item)
            else:
                yield from lines.cut()
                yield item
        elif lines.is_cut or not has_begun:
            break
        elif isinstance(item, Damage):
            yield from lines.cut()
            break
        elif lines.add_last(item):
            break
    yield from lines.finish()
