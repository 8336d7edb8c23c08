"""Many requests at a time, but not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def bounded(
    ask: Callable[[Item], Awaitable[Result]], items: Sequence[Item], *, limit: asyncio.Semaphore
) -> list[Result]:
    """The results in the order of the items, asked for in that order.

    With the first error, and when the caller is cancelled, all others are cancelled and waited for:
    nothing runs on behind the caller's back.
    """

    async def one(item: Item) -> Result:
        async with limit:
            return await ask(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
