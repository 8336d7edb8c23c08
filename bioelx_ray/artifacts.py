"""Built things: directories with a manifest, published whole or not at all.

A build writes into a hidden directory beside its target and renames it into place at the end, so
that a directory under a final name is complete. Opening verifies every file against the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bioelx_ray.durable import draft_beside, remove_drafts
from bioelx_ray.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactMismatch,
    ArtifactNotFound,
)

MANIFEST = "manifest.json"
FORMAT = 1
Kind = Literal[
    "kb", "kb-delta", "pairs", "development", "encoder", "adapter", "index", "calibration"
]
_OLD = ".old"
_log = logging.getLogger(__name__)


class FileEntry(BaseModel):
    """Checksum and size in bytes of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    size: int


class Source(BaseModel):
    """Where data came from, and under which licence."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    licence: str
    version: str = ""
    note: str = ""


class Manifest(BaseModel):
    """What an artifact is, what it was made from, and how to check it.

    `fingerprint` names the content: equal fingerprints, equal artifacts. `inputs` maps the role of
    an input (``kb``, ``encoder``) to its fingerprint.
    """

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    format: int = FORMAT
    code_version: str
    fingerprint: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    sources: list[Source] = Field(default_factory=list)
    files: dict[str, FileEntry] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A verified directory and its manifest."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one file of the artifact.

        Raises:
            ArtifactCorrupt: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise ArtifactCorrupt(f"{self.path}: its manifest lists no file {name}; build it again")
        return self.path / name


def code_version() -> str:
    """The installed version of this package."""
    return metadata.version("bioelx-ray")


def cache_dir() -> Path:
    """Where unpacked weights and the demo's artifacts are kept.

    ``$BIOELX_CACHE``, or ``bioelx_ray`` in the user's cache directory.
    """
    if given := os.environ.get("BIOELX_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bioelx_ray"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


_WHOLE = 1 << 30
_SAMPLES = 64
_SAMPLE = 1 << 20


def file_fingerprint(path: Path) -> str:
    """Names a file's content: its SHA-256, or over 1 GiB that of its size and 64 samples of 1 MiB.

    A dump of 100 GB would take longer to hash than to plan; its size and samples change with every
    release.
    """
    size = path.stat().st_size
    if size <= _WHOLE:
        return f"sha256:{sha256_file(path)}"
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as handle:
        for number in range(_SAMPLES):
            handle.seek((size - _SAMPLE) * number // (_SAMPLES - 1))
            digest.update(handle.read(_SAMPLE))
    return f"sampled-sha256:{digest.hexdigest()}"


def sha256_json(value: object) -> str:
    """The SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def publish(target: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a directory to write into; on success it becomes `target`, with its manifest.

    On an error nothing is left under the target's name, and what stood there before still stands.
    `manifest` may be filled in until the block ends; its files and, if empty, its fingerprint
    (of the kind, the configuration and the files) are set here.

    Raises:
        ArtifactMismatch: `target` exists and holds something else.
    """
    _refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_beside(target)
    remove_drafts(target)
    draft.mkdir()
    try:
        yield draft
        _write_manifest(draft, manifest)
        _swap(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_foreign(target: Path) -> None:
    """Only an artifact is replaced by an artifact: ``--out ~/data`` must not cost anyone's data."""
    if not target.exists() or (target / MANIFEST).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise ArtifactMismatch(f"{target} exists and is no artifact: remove it, or choose another")


def _write_manifest(draft: Path, manifest: Manifest) -> None:
    names = sorted(p.relative_to(draft).as_posix() for p in draft.rglob("*") if p.is_file())
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(lambda name: sha256_file(draft / name), names))
    manifest.files = {
        name: FileEntry(sha256=digest, size=(draft / name).stat().st_size)
        for name, digest in zip(names, sums, strict=True)
    }
    if not manifest.fingerprint:
        content = [
            manifest.kind,
            manifest.format,
            manifest.config,
            sorted(zip(names, sums, strict=True)),
        ]
        manifest.fingerprint = "sha256:" + sha256_json(content)
    with (draft / MANIFEST).open("w", encoding="utf-8") as handle:
        handle.write(manifest.model_dump_json(indent=2) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def _swap(draft: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}{_OLD}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def build_once(target: Path, kind: Kind, build: Callable[[Path], None]) -> Artifact:
    """Open an artifact of the cache; build it first where there is none, or a damaged one.

    Of processes and threads that want the same artifact one builds it, and the others wait for it.
    `build` publishes to the path that it is given.
    """
    with contextlib.suppress(ArtifactError):  # no lock: a filled cache may be read-only
        return open_artifact(target, kind)
    with locked(target):
        try:
            return open_artifact(target, kind)
        except ArtifactNotFound:
            pass
        except ArtifactError as error:
            _log.warning("%s: building it again", error)
        build(target)
        return open_artifact(target, kind)


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Wait until no other process works on a target, and keep others waiting for the block."""
    import fcntl  # POSIX only, and so is all that needs a lock

    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def open_artifact(path: Path, kind: Kind) -> Artifact:
    """Open a directory of a kind and verify it.

    Sizes are always compared. Checksums are computed at the first opening on a machine; a stamp in
    the cache directory then remembers the files' inodes, sizes and times, and while these stay the
    same the bytes are not read again.

    Raises:
        ArtifactNotFound: no directory, or no manifest in it.
        ArtifactCorrupt: an unreadable manifest, or a file that differs from it.
        ArtifactMismatch: an artifact of another kind, or of a newer format.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    if manifest.kind != kind:
        raise ArtifactMismatch(
            f"{path} holds a {manifest.kind!r} artifact, a {kind!r} one is needed"
        )
    if manifest.format > FORMAT:
        raise ArtifactMismatch(
            f"{path} has format {manifest.format}, this version reads up to {FORMAT}: "
            "update bioelx-ray"
        )
    _verify(path, manifest)
    return Artifact(path=path, manifest=manifest)


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactNotFound(f"no artifact at {path}: {MANIFEST} is not there; build it first")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"{file} is no manifest of ours ({error.error_count()} errors): build it again"
        ) from error


def _verify(path: Path, manifest: Manifest) -> None:
    stats: dict[str, list[int]] = {}
    for name, entry in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactCorrupt(f"{file} is missing: build the artifact again")
        stat = file.stat()
        if stat.st_size != entry.size:
            raise ArtifactCorrupt(
                f"{file} has {stat.st_size} bytes, its manifest says {entry.size}: build it again"
            )
        stats[name] = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    seen = sha256_json([str(path.resolve()), manifest.model_dump(), stats])
    stamp = cache_dir() / "verified" / seen
    if stamp.exists():
        return
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda name: sha256_file(path / name), manifest.files)
        for (name, entry), found in zip(manifest.files.items(), sums, strict=True):
            if found != entry.sha256:
                raise ArtifactCorrupt(
                    f"{path / name} has checksum {found[:12]}…, its manifest says "
                    f"{entry.sha256[:12]}…: build the artifact again"
                )
    with contextlib.suppress(OSError):  # a read-only cache only costs the time of the next check
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
