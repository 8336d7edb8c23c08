"""Requests to publishers' servers: what may be asked again, and when; safe redirects.

Nothing is ever sent but the request itself: no cookies, no credentials. Bodies are asked for as
they are stored (``Accept-Encoding: identity``), for ranges count stored bytes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from bioelx_ray.artifacts import code_version
from bioelx_ray.errors import InputError

MAX_REDIRECTS = 10
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_ERRORS = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to ask again. Times are in seconds.

    After `attempts` failures in a row it is given up. Waits double from `first_wait` up to
    `longest_wait`, and are as long as the server asks if it does (``Retry-After``), unless that is
    longer. A failure is not in a row with those before if `renewed_by` bytes were gained between.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 600.0
    renewed_by: int = 1 << 20
    sleep: Callable[[float], object] = time.sleep


class Passing(Exception):
    """A failure that may pass. `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def new_client(contact: str = "") -> httpx.Client:
    """A client that names this program, and whom to write to about its requests if told.

    Wikimedia refuses clients that it cannot tell from others:
    https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy

    Raises:
        InputError: `contact` is not printable ASCII.
    """
    if not (contact.isascii() and (contact.isprintable() or not contact)):
        raise InputError(f"contact {contact!r}: expected an e-mail or web address in ASCII")
    agent = f"bioelx-ray/{code_version()}" + (f" ({contact})" if contact else "")
    return httpx.Client(
        headers={"User-Agent": agent},
        timeout=httpx.Timeout(60, connect=30),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


@contextlib.contextmanager
def opened(
    client: httpx.Client, address: str, headers: Mapping[str, str]
) -> Iterator[httpx.Response]:
    """The answer to a GET, its body not yet read: of a status below 400, or 416.

    Raises:
        InputError: the answer will not change: no such file, not allowed, an unsafe redirect.
        Passing: the server or the connection fails, here or while the body is read.
    """
    try:
        response = _follow(client, client.build_request("GET", address, headers=_plain(headers)))
        try:
            _check_status(response)
            yield response
        finally:
            response.close()
    except _PASSING_ERRORS as error:
        raise Passing(f"{type(error).__name__}: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"{address}: cannot be asked for ({error}); check the address") from error


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Accept-Encoding": "identity", **headers}


def _follow(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    first = request.url
    for _ in range(MAX_REDIRECTS + 1):
        _refuse_unsafe(first, request.url)
        response = client.send(request, stream=True, follow_redirects=False, auth=None)
        if response.next_request is None:
            return response
        response.close()
        request = response.next_request
    raise InputError(f"{first}: more than {MAX_REDIRECTS} redirects; give the final address")


def _refuse_unsafe(first: httpx.URL, url: httpx.URL) -> None:
    if url.userinfo:
        raise InputError(f"{first}: an address with credentials is not asked for")
    if first.scheme == "https" and url.scheme != "https":
        raise InputError(
            f"{first}: redirected to {url}, which is not encrypted; give an address that stays "
            "with https"
        )


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status < 400 or status == 416:
        return
    said = f"the server answers {status} {response.reason_phrase}".rstrip()
    if status in _PASSING:
        raise Passing(said, wait=_retry_after(response.headers.get("Retry-After")))
    hint = "check the address; the publisher may have moved the file"
    if status in {401, 403}:
        hint = "the publisher may want to know who asks (--contact), or a licence"
    raise InputError(f"{response.url}: {said}; {hint}")


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def persist(
    attempt: Callable[[], bool],
    *,
    address: str,
    retry: Retry,
    gained: Callable[[], int] = lambda: 0,
) -> bool:
    """Call until a call does not fail, and give what it gives.

    Args:
        attempt: what to call.
        address: what messages call it.
        retry: how often and when.
        gained: the bytes that attempts have gained so far; never fewer than before.

    Raises:
        InputError: too many failures, or the server asks to wait for too long.
    """
    failures, best = 0, gained()
    while True:
        try:
            return attempt()
        except Passing as error:
            if gained() >= best + retry.renewed_by:
                failures = 0
            best = gained()
            failures += 1
            if failures >= retry.attempts:
                raise InputError(
                    f"{address}: {error}; given up after {failures} attempts. What has come is "
                    "kept: run it again later to go on"
                ) from error
            wait = _wait(error, failures, retry=retry, address=address)
            _log.warning("%s: %s; asking again in %.0f s", address, error, wait)
            retry.sleep(wait)


def _wait(error: Passing, failures: int, *, retry: Retry, address: str) -> float:
    if error.wait is not None and error.wait > retry.longest_wait:
        raise InputError(
            f"{address}: {error}, and asks to wait for {error.wait:.0f} s; run it again then"
        ) from error
    backoff = min(retry.first_wait * 2.0 ** (failures - 1), retry.longest_wait)
    return error.wait if error.wait is not None else backoff
