"""Public sources of concepts and aliases: where they are, under which licence, what reads them.

The list that ships with this package is ``data/sources.yaml``. A user's own file of the same form
adds to it, and replaces the entries that have the same names: for a mirror, or a source in-house.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioelx_ray.errors import InputError

Reader = Literal["obo", "babelon", "sssom", "table", "wikidata", "umls"]
Algorithm = Literal["md5", "sha1", "sha256"]

_RELEASE = "{release}"
_RELEASE_NAME = re.compile(r"[\w.\-]*\w[\w.\-]*", re.ASCII)
_FILE_NAME = re.compile(r"\w[\w.\-]*", re.ASCII)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _https(address: str) -> str:
    """An address without credentials, over TLS unless it is this machine's own."""
    parts = urlsplit(address)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or any(not c.isprintable() or c == " " for c in address):
        raise ValueError("expected an address that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must not hold credentials")
    return address


Address = Annotated[str, AfterValidator(_https)]


class _Entry(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RemoteFile(_Entry):
    """A file of a source.

    `address` is that of the newest version. ``{release}`` in `of_release` and `checksums` stands
    for the name of a version; `checksums` is a list as sha1sum writes it, in `algorithm`.
    """

    address: Address
    of_release: Address | None = None
    checksums: Address | None = None
    algorithm: Algorithm = "sha256"
    lang: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> RemoteFile:
        if _RELEASE in self.address:
            raise ValueError(f"address must not hold {_RELEASE}: put it into of_release")
        if self.of_release is not None and _RELEASE not in self.of_release:
            raise ValueError(f"of_release must hold {_RELEASE}")
        if self.checksums and _RELEASE in self.checksums and self.of_release is None:
            raise ValueError(f"checksums hold {_RELEASE}, but there is no of_release")
        for address in filter(None, (self.address, self.of_release)):
            if not _FILE_NAME.fullmatch(file_name(address).replace(_RELEASE, "r")):
                raise ValueError("an address must end in the name of a file")
        return self


class RemoteSource(_Entry):
    """A source that is published somewhere.

    `accept` says how to get a source whose licence everyone must accept for themselves; such a
    source has no files. `langs` are BCP 47 tags, ``mul`` for many; `ids` CURIE prefixes;
    `concepts` and `aliases` approximate numbers, None where they are not known.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str = Field(min_length=1)
    reader: Reader
    gives: str = Field(min_length=1)
    langs: tuple[str, ...]
    ids: tuple[str, ...]
    licence: str = Field(min_length=1)
    licence_page: Address
    homepage: Address
    concepts: int | None = Field(default=None, ge=1)
    aliases: int | None = Field(default=None, ge=1)
    size: str = ""
    note: str = ""
    accept: str = ""
    files: tuple[RemoteFile, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> RemoteSource:
        if bool(self.accept) == bool(self.files):
            raise ValueError("expected either files or, under `accept`, how to get the source")
        names = [file_name(file.address) for file in self.files]
        if len(set(names)) < len(names):
            raise ValueError("two files have the same name")
        return self

    @property
    def has_releases(self) -> bool:
        """Whether every file can be had in an older version."""
        return bool(self.files) and all(file.of_release for file in self.files)


class Wanted(_Entry):
    """A file to download: its address, the name to keep it under, the list of its checksums."""

    address: str
    name: str
    checksums: str | None
    algorithm: Algorithm


def file_name(address: str) -> str:
    """The last part of an address's path."""
    return PurePosixPath(urlsplit(address).path).name


def wanted_files(
    source: RemoteSource, *, release: str | None = None, langs: frozenset[str] = frozenset()
) -> list[Wanted]:
    """The files of a source, in their order.

    Args:
        source: one with files.
        release: the name of a version; None for the newest.
        langs: if any, files of a language are taken only if theirs is among these.

    Raises:
        InputError: the source has no named versions, or no file in these languages.
    """
    if release is not None and not source.has_releases:
        raise InputError(f"source {source.name} has no named releases: leave --release out")
    if release is not None and not _RELEASE_NAME.fullmatch(release):
        raise InputError(f"{release!r} is no name of a release: expected one such as 20250106")
    files = [f for f in source.files if not langs or f.lang is None or f.lang in langs]
    if not files:
        have = ", ".join(sorted({file.lang for file in source.files if file.lang}))
        raise InputError(
            f"source {source.name} has no file in {', '.join(sorted(langs))}; there are: {have}"
        )
    return [_wanted(file, release) for file in files]


def _wanted(file: RemoteFile, release: str | None) -> Wanted:
    address, checksums = file.address, file.checksums
    if release is not None and file.of_release:
        address = file.of_release.replace(_RELEASE, release)
        checksums = checksums and checksums.replace(_RELEASE, release)
    elif checksums and _RELEASE in checksums:
        checksums = None  # the newest version is linked under another name than the list has
    return Wanted(
        address=address, name=file_name(address), checksums=checksums, algorithm=file.algorithm
    )


def load_registry(own: Path | None = None) -> dict[str, RemoteSource]:
    """The known sources by name, in the order of the list; those of `own` replace and follow.

    Raises:
        InputError: `own` cannot be read, or is no list of sources.
    """
    shipped = Path(str(resources.files("bioelx_ray.kb") / "data" / "sources.yaml"))
    sources = _read(shipped)
    return sources | _read(own) if own else sources


def _read(path: Path) -> dict[str, RemoteSource]:
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(raw, list):
        raise InputError(f"{path}: expected a list of sources")
    sources: dict[str, RemoteSource] = {}
    for number, entry in enumerate(raw, start=1):
        source = _parse(entry, f"{path}: source {number}")
        if source.name in sources:
            raise InputError(f"{path}: source {source.name} is there twice")
        sources[source.name] = source
    return sources


def _parse(entry: object, place: str) -> RemoteSource:
    try:
        return RemoteSource.model_validate(entry)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors()]
        raise InputError(f"{place}: " + "; ".join(lines)) from error
