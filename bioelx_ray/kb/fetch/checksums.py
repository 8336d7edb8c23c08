"""Checksums of files, and the lists in which publishers give them."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import httpx

from bioelx_ray.errors import InputError
from bioelx_ray.kb.fetch.registry import Algorithm
from bioelx_ray.kb.fetch.web import Retry, new_client, opened, persist

MAX_LIST = 4 << 20
"""Bytes of a list of checksums; what is longer is none."""

_LINE = re.compile(r"([0-9a-fA-F]+) [ *](.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """A digest in hexadecimal."""

    algorithm: Algorithm
    digest: str

    def of(self, path: Path) -> str:
        """The digest that a file has."""
        # MD5 and SHA-1 are what publishers give; where they are barred, these are not for security.
        with path.open("rb") as handle:
            return hashlib.file_digest(
                handle, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            ).hexdigest()


def published_checksum(
    address: str,
    name: str,
    *,
    algorithm: Algorithm,
    retry: Retry | None = None,
    client: httpx.Client | None = None,
) -> Checksum:
    """The checksum of a file from a publisher's list, in the form that sha1sum writes.

    Raises:
        InputError: the list cannot be had, or does not name the file.
    """
    with contextlib.ExitStack() as stack:
        text = _read(address, retry or Retry(), client or stack.enter_context(new_client()))
    length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    for match in filter(None, map(_LINE.fullmatch, text.splitlines())):
        if match[2] == name and len(match[1]) == length:
            return Checksum(algorithm=algorithm, digest=match[1].lower())
    raise InputError(
        f"{address}: holds no {algorithm} checksum of {name}; it may not be published yet"
    )


def _read(address: str, retry: Retry, client: httpx.Client) -> str:
    data = bytearray()

    def attempt() -> bool:
        data.clear()
        with opened(client, address, {}) as response:
            for piece in response.iter_raw():
                data.extend(piece)
                if len(data) > MAX_LIST:
                    raise InputError(f"{address}: too long for a list of checksums")
        return True

    persist(attempt, address=address, retry=retry)
    return data.decode("utf-8", "replace")
