"""The few lines of a dump that are wanted, chosen by their bytes before any is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

_REDIRECT = b'"redirect"'
# A redirect has two ids and nothing else; no item is that short.
_MAX_REDIRECT = 120


def wanted_properties(keys: Iterable[str]) -> re.Pattern[bytes]:
    """Finds a property's key before a list, as it stands in claims, qualifiers and references.

    What the keys have in common is tried once, which makes the search half as fast again.
    """
    tree: dict[str, Any] = {}
    for key in keys:
        branch = tree
        for char in f'{key}":[':
            branch = branch.setdefault(char, {})
    return re.compile(f'"{_alternatives(tree)}'.encode())


def _alternatives(tree: dict[str, Any]) -> str:
    found = [re.escape(char) + _alternatives(branch) for char, branch in tree.items()]
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})" if found else ""


class Lines:
    """The lines of some data: `count` of them, of which few are `chosen`."""

    def __init__(self, data: bytes, wanted: re.Pattern[bytes]) -> None:
        self._data = data
        self.count = 0
        self._places = self._redirects()
        self._places.extend(match.start() for match in wanted.finditer(data))
        self._places.sort()

    def _redirects(self) -> list[int]:
        """The places of redirects. Counts the lines on the way, to go through them once."""
        data, begin, places = self._data, 0, []
        while begin < len(data):
            end = data.find(b"\n", begin) + 1 or len(data)
            if end - begin <= _MAX_REDIRECT and data.find(_REDIRECT, begin, end) >= 0:
                places.append(begin)
            self.count += 1
            begin = end
        return places

    def chosen(self) -> Iterator[tuple[int, bytes]]:
        """The lines that name a wanted property, or are a redirect, with their places."""
        data, end = self._data, 0
        for place in self._places:
            if place >= end:
                begin = data.rfind(b"\n", end, place) + 1 or end
                end = data.find(b"\n", place) + 1 or len(data)
                yield begin, data[begin:end]
