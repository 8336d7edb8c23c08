"""Unpacked bytes in the order of a file, and the places where unpacking failed."""

from __future__ import annotations

from dataclasses import dataclass

TRUNCATED = "packed file ends too early"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Unpacked bytes. `offset` is their place, unpacked or stored as the format allows."""

    data: bytes
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Stored bytes that could not be unpacked; reading goes on behind them where it can.

    `offset` and `lost` count stored bytes. `lost` is 0 where the file ends too early.
    """

    offset: int
    lost: int
    reason: str
