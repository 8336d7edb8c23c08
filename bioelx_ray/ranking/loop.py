"""An event loop in a thread of its own: engines are asynchronous, a plain caller is not."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

NAME = "bioelx-ranking"
"""Of the threads."""


class LoopThread:
    """Runs coroutines for callers without an event loop.

    The thread starts with the first of them, and ends with this object or before. An engine belongs
    to the loop that first used it, so its calls must all come through one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What a coroutine returns. If the caller is interrupted, the coroutine is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            if self._loop is not None:
                self._end()
                self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(loop,), name=NAME, daemon=True).start()
                self._end = weakref.finalize(self, _stop, loop)
            return self._loop


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
