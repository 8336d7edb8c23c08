"""An iterator that works on in a thread while its items are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
_WAIT_S = 0.1


class _End:
    """The last thing that the thread says: how the iterator ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class _Maker(Thread, Generic[Item]):
    """Makes the items, as long as somebody waits for them."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        super().__init__(name="ahead", daemon=True)
        self.made: Queue[Item | _End] = Queue(depth)
        self.is_left = Event()
        self._items = items

    def run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except Exception as error:  # noqa: BLE001 - given on to the thread that asked
            self._put(_End(error))
        else:
            self._put(_End())

    def _put(self, item: Item | _End) -> bool:
        """Whether the item was taken, or will be."""
        while not self.is_left.is_set():
            with suppress(Full):
                self.made.put(item, timeout=_WAIT_S)
                return True
        return False


def ahead(items: Iterator[Item], *, depth: int) -> Iterator[Item]:
    """The same items in the same order, of which up to `depth` are made in advance.

    It pays where making them releases the interpreter's lock, as unpacking does. An error comes
    where it would have come. The thread ends with the iterator, also if it is left early.
    """
    maker = _Maker(items, depth)
    maker.start()
    try:
        while not isinstance(item := maker.made.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        maker.is_left.set()
        maker.join()
