"""Errors as RFC 9457 problems.

Clinical text never comes back in an error, nor goes to a log: a detail is made of our own words,
of numbers and of pointers.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from deployments.schemas import FieldError, ProblemBody, to_body

RETRY_AFTER_S = 2
PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}
        },
    }
}
"""Every route's errors, for its OpenAPI description."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DETAILS = {
    400: "the body cannot be read as JSON in UTF-8",
    404: "nothing here; /openapi.json lists the routes",
    405: "this route does not know the method; see the Allow header",
}


class Problem(HTTPException):
    """An error for the client, in words that hold nothing of the request."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry: bool = False,
    ) -> None:
        headers = {"Retry-After": str(RETRY_AFTER_S)} if retry else None
        super().__init__(status, detail, headers)
        self.errors = list(errors) or None


def problem_body(problem: Problem, request_id: str | None = None) -> ProblemBody:
    """The problem as a body."""
    status = problem.status_code
    return ProblemBody(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=problem.detail,
        errors=problem.errors,
        request_id=request_id,
    )


def request_id(request: Request) -> str:
    """The id that Serve or the client gave the request, where it is one; else a new one."""
    given = request.headers.get("x-request-id", "")
    known: str | None = getattr(request.state, "id", None)
    request.state.id = known or (given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    return str(request.state.id)


def json_response(
    body: object, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON that no cache keeps."""
    kind = "application/problem+json" if status >= 400 else "application/json"
    fixed = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(body), status, {**fixed, **(headers or {})}, media_type=kind)


def install(api: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    api.add_exception_handler(HTTPException, _answer)
    api.add_exception_handler(RequestValidationError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = _problem(error)
    headers = error.headers if isinstance(error, HTTPException) else None
    body = to_body(problem_body(problem, request_id(request)))
    return json_response(body, problem.status_code, headers=headers)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    status = error.status_code if isinstance(error, HTTPException) else 500
    return Problem(status, _DETAILS.get(status, HTTPStatus(status).phrase))


def _invalid(error: RequestValidationError) -> Problem:
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is not JSON, from character {first['loc'][-1]} on")
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return Problem(400, "the body is empty or null, a JSON object is expected")
    return Problem(
        422,
        "the body is JSON, but not a request of this route; see errors and /openapi.json",
        errors=[_field_error(e) for e in found[:64]],
    )


def _field_error(found: Mapping[str, Any]) -> FieldError:
    path, detail = list(found["loc"][1:]), str(found["msg"])
    if found["type"] == "extra_forbidden":
        detail = "unknown key"
        if not _KEY.fullmatch(str(path[-1])):  # free text in a key's place does not come back
            path.pop()
    escaped = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return FieldError(pointer="".join(f"/{step}" for step in escaped), detail=detail)


def where(error: BaseException) -> str:
    """An error's type and place, for a log that must not hold its message."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} at {place}"
