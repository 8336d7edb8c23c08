"""Cut texts to a budget of tokens: the context around a mention, long mentions, definitions.

A cut never falls into a grapheme (UAX 29: a letter and its marks, a Devanagari conjunct, an emoji
of several code points). A context ends at the end of a sentence where one lies in the outer half of
what fits, else at white space near the end, else, as mostly in Thai or Japanese, between graphemes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import regex

Count = Callable[[str], int]
"""Text -> its number of tokens."""

CUT = "…"

_CODE_POINTS_A_TOKEN = 8
"""More than a tokenizer's tokens have on average: what lies beyond is not looked at."""
_LONGEST_GRAPHEME = 64
"""Code points. Emoji families have 11; only a text made to annoy stacks more marks on a letter."""

_GRAPHEME = regex.compile(r"\X")
_QUOTES = "[\"'”’»」』）)\\]]*"
_SENTENCE_END = regex.compile(rf"[.!?…]{_QUOTES}\s+|[。！？｡．।॥؟۔።]{_QUOTES}\s*|\n")


def code_points(text: str) -> int:
    """The count that stands in for tokens where no tokenizer is known."""
    return len(text)


def head(text: str, budget: int, *, count: Count) -> str:
    """The longest beginning of whole graphemes that has at most `budget` tokens."""
    near = text[: _reach(budget)]
    if len(near) == len(text) and count(text) <= budget:
        return text
    ends = [match.end() for match in _GRAPHEME.finditer(near)]
    if len(near) < len(text):
        ends = ends[:-1]  # it may go on behind what was looked at
    fitting = bisect_right(ends, budget, key=lambda end: count(near[:end]))
    return near[: ends[fitting - 1]] if fitting else ""


def tail(text: str, budget: int, *, count: Count) -> str:
    """The longest end of whole graphemes that has at most `budget` tokens."""
    start = max(0, len(text) - _reach(budget) - _LONGEST_GRAPHEME)
    near = text[start:]
    if not start and count(text) <= budget:
        return text
    # a family cut in two looks like a person or two, so nothing begins there
    least = _LONGEST_GRAPHEME if start else 0
    starts = [m.start() for m in _GRAPHEME.finditer(near) if m.start() >= least][::-1]
    fitting = bisect_right(starts, budget, key=lambda start: count(near[start:]))
    return near[starts[fitting - 1] :] if fitting else ""


def abridged(text: str, budget: int, *, count: Count) -> str:
    """A text that fits, or its beginning and an ellipsis."""
    if len(text) <= _reach(budget) and count(text) <= budget:
        return text
    kept = head(text, max(1, budget - count(CUT)), count=count)
    space = kept.rfind(" ")
    return (kept[:space] if space > len(kept) * 3 // 4 else kept.rstrip()) + CUT


def without_middle(text: str, budget: int, *, count: Count) -> str:
    """A text that fits, or its two ends around an ellipsis: a mention never vanishes.

    Where the budget holds not even one grapheme of each end, these are kept all the same, unless
    they are longer than any of a real text.
    """
    if len(text) <= _reach(budget) and count(text) <= budget:
        return text
    half = max(1, (budget - count(CUT)) // 2)
    first = head(text, half, count=count) or _GRAPHEME.findall(text[:_LONGEST_GRAPHEME])[0]
    last = tail(text, half, count=count) or _GRAPHEME.findall(text[-_LONGEST_GRAPHEME:])[-1]
    return f"{first.rstrip()} {CUT} {last.lstrip()}"


def around(left: str, right: str, budget: int, *, count: Count) -> tuple[str, str]:
    """The ends of both sides that lie next to a mention, together at most `budget` tokens.

    Each side has half of the budget, and what the other leaves.
    """
    half, reach = budget // 2, _reach(budget)
    for_left = max(half, budget - count(right[:reach]))
    for_right = max(budget - half, budget - count(left[-reach:]))
    return (
        _from_sentence(left, tail(left, for_left, count=count)),
        _to_sentence(right, head(right, for_right, count=count)),
    )


def _reach(budget: int) -> int:
    return _CODE_POINTS_A_TOKEN * budget + _LONGEST_GRAPHEME


def _to_sentence(text: str, kept: str) -> str:
    if len(kept) == len(text):
        return kept
    ends = [m.end() for m in _SENTENCE_END.finditer(kept) if m.end() >= len(kept) / 2]
    if ends:
        return kept[: ends[-1]]
    space = kept.rfind(" ")
    return kept[:space] if space >= len(kept) * 3 / 4 else kept


def _from_sentence(text: str, kept: str) -> str:
    if len(kept) == len(text):
        return kept
    for match in _SENTENCE_END.finditer(kept):
        if match.end() <= len(kept) / 2:
            return kept[match.end() :]
    space = kept.find(" ")
    return kept[space + 1 :] if 0 <= space <= len(kept) / 4 else kept
