"""Which prompts to run together: those that begin alike, so that the beginning is run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

WORTHWHILE = 16
"""Tokens that prompts must share for a pass of their own."""
_KEPT_SHARE = 0.8
"""A prompt joins others only if it leaves this much of what they share: else prompts about another
mention, which share the instruction, would cost the mention's own candidates their context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Rows whose first `prefix` tokens are the same; each has more tokens than that."""

    rows: tuple[int, ...]
    prefix: int


def batches(ids: Sequence[Sequence[int]], *, batch_tokens: int) -> Iterator[Shared]:
    """Rows in batches of at most `batch_tokens`, padding and shared tokens counted for each row.

    Rows that begin like no other come in batches with no prefix, by their length. A row longer than
    that is a batch of its own. No row may be empty.
    """
    alone: list[int] = []
    for group in _alike(ids):
        if len(group.rows) == 1:
            alone.extend(group.rows)
            continue
        for rows in _packed(group.rows, ids, batch_tokens=batch_tokens):
            yield Shared(rows=rows, prefix=group.prefix if len(rows) > 1 else 0)
    alone.sort(key=lambda row: len(ids[row]))
    for rows in _packed(alone, ids, batch_tokens=batch_tokens):
        yield Shared(rows=rows, prefix=0)


def _alike(ids: Sequence[Sequence[int]]) -> Iterator[Shared]:
    rows: list[int] = []
    prefix = 0
    for row in sorted(range(len(ids)), key=lambda row: list(ids[row])):
        common = _common(ids[rows[-1]], ids[row]) if rows else 0
        needed = WORTHWHILE if len(rows) == 1 else prefix * _KEPT_SHARE
        if rows and common < max(needed, WORTHWHILE):
            yield Shared(rows=tuple(rows), prefix=prefix)
            rows = []
        prefix = min(prefix, common) if len(rows) > 1 else common
        rows.append(row)
    if rows:
        yield Shared(rows=tuple(rows), prefix=prefix)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two rows begin with alike, less one where a row would have none left."""
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )
    return min(same, len(left) - 1, len(right) - 1)


def _packed(
    rows: Sequence[int], ids: Sequence[Sequence[int]], *, batch_tokens: int
) -> Iterator[tuple[int, ...]]:
    batch: list[int] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(ids[row]))
        if batch and (len(batch) + 1) * longest > batch_tokens:
            yield tuple(batch)
            batch, longest = [], len(ids[row])
        batch.append(row)
    if batch:
        yield tuple(batch)
