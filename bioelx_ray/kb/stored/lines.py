"""Pieces of a file into chunks of whole lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.kb.stored.pieces import Piece

MAX_LINE = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole lines with their ends; the last line of a file may lack one.

    `offset` is the place of `data` in the unpacked file; in a ``.bz2`` file, where `is_exact` is
    False, it is the stored offset of the block in which the data begin.
    """

    data: bytes
    offset: int
    is_exact: bool = True

    def offset_of(self, place: int) -> int:
        """The offset of a place in `data`, as exact as `offset` is."""
        return self.offset + place if self.is_exact else self.offset


class LineCutter:
    """Gathers pieces and gives whole lines of them, `chunk_bytes` or more at a time.

    `is_cut` says that the next piece begins within a line that is to be left out. `is_exact`:
    a byte's offset is that of its piece and its place therein; else just that of its piece.
    """

    def __init__(
        self, path: Path, *, chunk_bytes: int, is_cut: bool = False, is_exact: bool = True
    ) -> None:
        self._path = path
        self._chunk_bytes = chunk_bytes
        self._is_exact = is_exact
        self.is_cut = is_cut
        self._pieces: list[Piece] = []
        self._size = 0
        self._size_of_lines = 0

    @property
    def is_open(self) -> bool:
        """Whether the last line is not finished."""
        return self._size > self._size_of_lines

    def add(self, piece: Piece) -> Iterator[Chunk]:
        """Take a piece; give a chunk if there is enough for one.

        Raises:
            InputError: a line is longer than 64 MiB.
        """
        if self.is_cut:
            line_end = piece.data.find(b"\n") + 1
            if not line_end:
                return
            self.is_cut = False
            piece = self._part(piece, line_end, len(piece.data))
        self._append(piece)
        if self._size_of_lines >= self._chunk_bytes:
            yield self._take()

    def add_last(self, piece: Piece) -> bool:
        """Take the first line of a piece; whether it ends there.

        Raises:
            InputError: a line is longer than 64 MiB.
        """
        line_end = piece.data.find(b"\n") + 1
        self._append(self._part(piece, 0, line_end or len(piece.data)))
        return line_end > 0

    def cut(self) -> Iterator[Chunk]:
        """Give the whole lines; forget the one that is open, and what is still to come of it."""
        if self._size_of_lines:
            yield self._take()
        self._pieces.clear()
        self._size = self._size_of_lines = 0
        self.is_cut = True

    def finish(self) -> Iterator[Chunk]:
        """Give all that is left, the last line with or without its end."""
        self._size_of_lines = self._size
        if self._size:
            yield self._take()

    def _append(self, piece: Piece) -> None:
        if not piece.data:
            return
        lines = piece.data.rfind(b"\n") + 1
        if lines:
            self._size_of_lines = self._size + lines
        self._pieces.append(piece)
        self._size += len(piece.data)
        if self._size - self._size_of_lines > MAX_LINE:
            raise InputError(
                f"{self._path}: the line that is open at byte {piece.offset:,} is longer than "
                f"{MAX_LINE >> 20} MiB; is this a file of lines?"
            )

    def _part(self, piece: Piece, start: int, stop: int) -> Piece:
        offset = piece.offset + start if self._is_exact else piece.offset
        return Piece(data=piece.data[start:stop], offset=offset)

    def _take(self) -> Chunk:
        """A chunk of the whole lines. What is left of the last piece stays."""
        last = self._pieces[-1]
        of_last = self._size_of_lines - (self._size - len(last.data))
        parts = [piece.data for piece in self._pieces[:-1]]
        chunk = Chunk(
            data=b"".join([*parts, last.data[:of_last]]),
            offset=self._pieces[0].offset,
            is_exact=self._is_exact,
        )
        rest = self._part(last, of_last, len(last.data))
        self._pieces = [rest] if rest.data else []
        self._size = len(rest.data)
        self._size_of_lines = 0
        return chunk
