"""The class of all routes: bodies are checked before they are parsed, failures answered here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from deployments.problems import Problem, request_id, where
from deployments.schemas import BODY_BYTES

logger = logging.getLogger(__name__)


class Route(APIRoute):
    """A route that checks a body before it is parsed, and answers its own failures.

    Starlette answers an unexpected exception and raises it again for the server to log, message and
    all; a message may quote the text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute.get_route_handler`."""
        inner = super().get_route_handler()
        takes_body = "POST" in self.methods

        async def handle(request: Request) -> Response:
            try:
                return await inner(_checked(request) if takes_body else request)
            except (HTTPException, RequestValidationError):
                raise
            except Exception as error:  # noqa: BLE001 - logged by type and place, then answered
                logger.error("request %s failed: %s", request_id(request), where(error))
                raise Problem(500, "an error of ours; quote the request id to report it") from None

        return handle


def _checked(request: Request) -> Request:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the content type must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "the body must not be compressed")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Problem(400, "the content length is no number")
    if int(length[:20]) > BODY_BYTES:
        raise _too_large()
    return Request(request.scope, _limited(request.receive))


def _limited(receive: Receive) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_BYTES:
            raise _too_large()
        return message

    return counted


def _too_large() -> Problem:
    return Problem(413, f"the body has more than {BODY_BYTES} bytes; send fewer documents at once")
