"""The gateway's side of the retriever: calls with a deadline, failures as problems."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from bioelx_ray.records import Concept
from deployments.problems import Problem
from deployments.retriever import Query, Retrieved, UnknownFilter
from deployments.schemas import FieldError

DOWN = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
LOOKUP_S = 5.0
CANARY_S = 2.0
PING_S = 0.5
_KNOWN_SHOWN = 200
T = TypeVar("T")


class RetrieverClient:
    """Calls the retriever. Reads are pure, so a call whose replica died is made once more.

    After a failure the retriever is suspect until it answers again: a request then asks for a sign
    of life first, and is refused at once where none comes, rather than at its deadline.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._suspect = False

    async def retrieve(self, query: Query) -> Retrieved:
        """Candidates for all of a request's mentions.

        Raises:
            Problem: 422 unknown filter, 429 the queue is full, 503 no retriever, 504 too late.
        """
        found = await self._call("retrieve", query, deadline=query.deadline)
        if isinstance(found, UnknownFilter):
            raise _unknown(found)
        return cast(Retrieved, found)

    async def concept(self, curie: str) -> Concept | None:
        """A concept, or None."""
        found = await self._call("concept", curie, deadline=time.time() + LOOKUP_S)
        return cast("Concept | None", found)

    async def describe(self) -> dict[str, Any]:
        """See `RetrieverDeployment.describe`."""
        found = await self._call("describe", deadline=time.time() + LOOKUP_S)
        return cast(dict[str, Any], found)

    async def ready(self) -> bool:
        """Whether the retriever answers a query with a known answer, and in time."""
        try:
            return bool(await self._call("canary", deadline=time.time() + CANARY_S))
        except Problem:
            return False

    async def _call(self, method: str, *args: object, deadline: float) -> object:
        try:
            await self._check_alive(deadline)
            answer = await self._twice(method, *args, deadline=deadline)
        except BackPressureError:
            raise Problem(429, "too many requests wait; try again", retry=True) from None
        except DOWN:
            self._suspect = True
            raise _down() from None
        except TimeoutError:
            died, self._suspect = self._suspect, True
            raise (_down() if died else _late()) from None
        self._suspect = False
        return answer

    async def _check_alive(self, deadline: float) -> None:
        if not self._suspect:
            return
        limit = time.time() + PING_S
        try:
            await self._attempt("ping", deadline=min(limit, deadline))
        except TimeoutError:
            raise (_down() if limit < deadline else _late()) from None
        self._suspect = False

    async def _twice(self, method: str, *args: object, deadline: float) -> object:
        try:
            return await self._attempt(method, *args, deadline=deadline)
        except DOWN:
            self._suspect = True
            return await self._attempt(method, *args, deadline=deadline)

    async def _attempt(self, method: str, *args: object, deadline: float) -> object:
        response = self._handle.options(method_name=method).remote(*args)
        try:
            async with asyncio.timeout(deadline - time.time()):
                return await response
        except (TimeoutError, asyncio.CancelledError):
            response.cancel()
            raise


def _down() -> Problem:
    return Problem(503, "the retriever is not there; try again", retry=True)


def _late() -> Problem:
    return Problem(504, "the request's time was over; raise timeout_ms or send fewer mentions")


def _unknown(found: UnknownFilter) -> Problem:
    more = len(found.known) - _KNOWN_SHOWN
    known = ", ".join(found.known[:_KNOWN_SHOWN]) + (f" and {more} more" if more > 0 else "")
    detail = f"does not occur in the index; these do: {known}"
    errors = [FieldError(pointer=f"/{found.key}/{place}", detail=detail) for place in found.places]
    return Problem(422, "a filter names what the index does not hold", errors=errors[:8])
