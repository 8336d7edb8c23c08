"""Downloads that survive broken connections, restarts and changes of the file.

While ``x`` is downloaded its bytes are in ``x.part`` and what identifies them (address, ETag,
size) in ``x.part.json``; at the end the former becomes ``x`` and the latter ``x.origin.json``. A
server is asked for the rest of a part only if it can tell that the file is still the same
(RFC 9110, 13.1.5).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_ray.durable import sync_directory, write_durably
from bioelx_ray.errors import InputError
from bioelx_ray.kb.fetch.checksums import Checksum
from bioelx_ray.kb.fetch.web import Passing, Retry, new_client, opened, persist

Progress = Callable[[str, int, int], None]
"""Takes the step, how much of it is done, and how much there is; both are bytes here."""

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Origin(BaseModel):
    """Where bytes came from; `size` is that of the whole file. None: the server did not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    address: str
    etag: str | None
    modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """What a server can tell by that the file is the same to the byte; a weak ETag is not."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified if not self.etag else None


def _silent(step: str, done: int, total: int) -> None:
    """Tell nobody."""


def download(
    address: str,
    target: Path,
    *,
    checksum: Checksum | None = None,
    retry: Retry | None = None,
    progress: Progress = _silent,
    client: httpx.Client | None = None,
) -> Path:
    """Download a file, or what is missing of it; `target` appears whole or not at all.

    A target that is there is kept if it has the checksum or, where none is given, if the server
    says that it has not changed since it was downloaded.

    Args:
        address: where it is.
        target: the file to write.
        checksum: what it must have.
        retry: how often to ask again.
        progress: is told of the bytes that have come; where the size is not known these are all.
        client: asks; `new_client` if left out.

    Returns:
        `target`.

    Raises:
        InputError: it cannot be had or written, its checksum is wrong (the bytes are then in
            ``x.bad``), another process downloads it, or `target` is a file that did not come
            from a download.
    """
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(new_client())
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(target))
            job = _Download(address, target, client=client, progress=progress)
            if checksum and target.is_file() and checksum.of(target) == checksum.digest.lower():
                return target
            job.refuse_foreign()
            ask = _still_current(job) if checksum is None else None
            if persist(
                lambda: job.attempt(ask), address=address, retry=retry or Retry(), gained=job.gained
            ):
                job.finish(checksum)
        except OSError as error:
            raise InputError(f"{target}: cannot be written ({error})") from error
    return target


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Two processes that write one part would mix their bytes."""
    with target.with_name(f".{target.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{target}: another process downloads it; wait for that one") from None
        yield


def _still_current(job: _Download) -> dict[str, str] | None:
    """Headers that ask for the file only if the finished one is out of date."""
    origin = _load(job.origin)
    if origin is None or not job.target.is_file():
        return None
    if origin.address != job.address or origin.size != job.target.stat().st_size:
        return None
    if origin.etag:
        return {"If-None-Match": origin.etag}
    return {"If-Modified-Since": origin.modified} if origin.modified else None


class _Download:
    """A file on its way."""

    def __init__(
        self, address: str, target: Path, *, client: httpx.Client, progress: Progress
    ) -> None:
        self.address = address
        self.target = target
        self.part = target.with_name(target.name + ".part")
        self.part_origin = target.with_name(target.name + ".part.json")
        self.origin = target.with_name(target.name + ".origin.json")
        self._client = client
        self._progress = progress
        self._most = 0

    def gained(self) -> int:
        """The most bytes that there have been."""
        return self._most

    def refuse_foreign(self) -> None:
        if self.target.exists() and _load(self.origin) is None:
            raise InputError(
                f"{self.target} is there, but was not downloaded by this program, or is not what "
                "its checksum says: remove it, or choose another directory"
            )

    def attempt(self, ask: dict[str, str] | None) -> bool:
        """Fetch what is missing. True: the part is whole. False: the target is up to date."""
        known = self._known()
        held = self.part.stat().st_size if known else 0
        self._most = max(self._most, held)
        if known and held and held == known.size:
            return True
        headers = dict(ask or {})
        if known and held and known.validator:
            headers = {"Range": f"bytes={held}-", "If-Range": known.validator}
        with opened(self._client, self.address, headers) as response:
            if response.status_code == 304 and ask:
                self.discard()
                return False
            if response.status_code == 416:
                return self._is_whole(response, held)
            if response.status_code == 206:
                self._check_continues(response, known, held)
                self._receive(response, start=held)
            else:
                self._receive(response, start=0)
        return True

    def _known(self) -> Origin | None:
        """The origin of the part, if there is one that can be gone on with."""
        known = _load(self.part_origin)
        if known is None or known.address != self.address or not self.part.is_file():
            return None
        too_long = known.size is not None and self.part.stat().st_size > known.size
        return None if too_long else known

    def _is_whole(self, response: httpx.Response, held: int) -> bool:
        """Whether a range behind the last byte was asked for, of a file of unknown size."""
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if held and match and match[2] == str(held):
            return True
        self.discard()
        raise Passing("the server has no such range; it starts again", wait=0)

    def _check_continues(self, response: httpx.Response, known: Origin | None, held: int) -> None:
        """Servers exist that send a range of another file than the one asked for."""
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        etag = response.headers.get("ETag")
        same = known is not None and (etag is None or etag == known.etag)
        if not same or match is None or match[1] != str(held) or not _fits(match[2], known):
            self.discard()
            raise Passing("the file has changed; it starts again", wait=0)

    def _receive(self, response: httpx.Response, *, start: int) -> None:
        if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
            raise InputError(f"{self.address}: comes packed as {packed}, which was not asked for")
        if response.status_code not in {200, 206}:
            raise InputError(f"{self.address}: the server answers {response.status_code}")
        length = response.headers.get("Content-Length", "")
        size = start + int(length) if length.isdecimal() else None
        self._check_room(size, start)
        if start == 0:
            self.discard()
            _save(self._origin_of(response, size), self.part_origin)
        done = self._write(response, start=start, size=size)
        if size is not None and done != size:
            raise Passing(f"{done:,} of {size:,} bytes came")

    def _origin_of(self, response: httpx.Response, size: int | None) -> Origin:
        return Origin(
            address=self.address,
            etag=response.headers.get("ETag"),
            modified=response.headers.get("Last-Modified"),
            size=size,
        )

    def _write(self, response: httpx.Response, *, start: int, size: int | None) -> int:
        done = start
        try:
            with self.part.open("ab" if start else "wb") as handle:
                for piece in response.iter_raw():
                    handle.write(piece)
                    done += len(piece)
                    self._most = max(self._most, done)
                    self._progress(self.target.name, done, size or done)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise InputError(
                f"{self.part}: cannot be written ({error}) after {done:,} bytes"
                + (f" of {size:,}" if size else "")
                + "; what has come is kept: make room, and run it again to go on"
            ) from error
        return done

    def _check_room(self, size: int | None, start: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        held = 0 if start or not self.part.exists() else self.part.stat().st_size
        if size is not None and size - start > free + held:
            raise InputError(
                f"{self.target}: {size - start:,} bytes are still to come, but there is room for "
                f"{free + held:,}; make room, or choose another directory"
            )

    def discard(self) -> None:
        """Forget the part."""
        self.part_origin.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def finish(self, checksum: Checksum | None) -> None:
        """Check the part and put it into its place."""
        if checksum and (found := checksum.of(self.part)) != checksum.digest.lower():
            bad = self.target.with_name(self.target.name + ".bad")
            self.part.replace(bad)
            self.discard()
            raise InputError(
                f"{self.address}: its {checksum.algorithm} is {found}, expected "
                f"{checksum.digest.lower()}; what came is in {bad}. Run it again for a new "
                "download, or check the expected one"
            )
        origin = _load(self.part_origin)
        if origin:
            # The size of a file that came without one is known by now.
            _save(origin.model_copy(update={"size": self.part.stat().st_size}), self.origin)
        self.part.replace(self.target)
        self.part_origin.unlink(missing_ok=True)
        sync_directory(self.target.parent)


def _fits(total: str, known: Origin | None) -> bool:
    return known is None or known.size is None or total in {"*", str(known.size)}


def _load(path: Path) -> Origin | None:
    try:
        return Origin.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _save(origin: Origin, path: Path) -> None:
    text = origin.model_dump_json() + "\n"
    write_durably(path, text, draft=path.with_name(path.name + ".new"))
