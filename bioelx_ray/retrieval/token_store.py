"""Pairs as token ids on disk, memory-mapped: made once, shared by all workers and all epochs.

Texts are normalised as they are in an index. A store is a directory of flat little-endian arrays::

    ids.i4       the tokens of all texts, one text after another
    starts.i8    where each text begins in them, and where the last one ends: [texts + 1]
    sides.i4     the numbers of the left and the right text of each pair: [pairs, 2]
    concepts.i4  the number of each pair's concept: [pairs]
    store.json   the arrays' sizes in bytes; written last
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bioelx_ray.artifacts import Artifact, sha256_json
from bioelx_ray.errors import InputError
from bioelx_ray.kb.forms import forms_of
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.retrieval.batched import Tokens

Progress = Callable[[str, int, int], None]
"""Told the step, and how much of it is done and in all."""

_TYPES = {"ids": "<i4", "starts": "<i8", "sides": "<i4", "concepts": "<i4"}
_META = "store.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStore:
    """An opened store; see the module for its arrays. `fingerprint` names their content.

    `shared` is what its concepts have in common (see `negatives.shared_keys`), where that is asked.
    """

    path: Path
    fingerprint: str
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    sides: NDArray[np.int32]
    concepts: NDArray[np.int32]
    shared: csr_array | None = None

    def text(self, number: int) -> NDArray[np.int32]:
        """The token ids of a text, at least one."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def lengths(self, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many tokens texts have, in the shape of their numbers."""
        lengths: NDArray[np.int64] = self.starts[numbers + 1] - self.starts[numbers]
        return lengths


def open_store(
    pairs: Artifact, tokens: Tokens, *, prefix: str, home: Path, progress: Progress
) -> TokenStore:
    """The store of these pairs and this tokenizer; it is made where there is none in `home`.

    Of processes that want the same one, one makes it and the others wait. It may be removed once
    training is over.

    Raises:
        InputError: there are no pairs.
    """
    settings = [_FORMAT, prefix, tokens.pad_id, tokens.tokenizer.to_str()]
    key = sha256_json([pairs.manifest.fingerprint, settings])
    target = home / f"tokens-{key[:16]}"
    if not _is_whole(target):
        with _alone(target):
            if not _is_whole(target):
                _make(target, pairs, tokens, prefix=prefix, progress=progress)
    arrays: dict[str, Any] = {
        name: np.memmap(target / _file(name), dtype=kind, mode="r") for name, kind in _TYPES.items()
    }
    arrays["sides"] = arrays["sides"].reshape(-1, 2)
    return TokenStore(path=target, fingerprint=f"sha256:{key}", **arrays)


def _file(name: str) -> str:
    return f"{name}.{_TYPES[name][1:]}"


def _is_whole(target: Path) -> bool:
    try:
        sizes = json.loads((target / _META).read_bytes())
        return all(
            (target / _file(name)).stat().st_size == size
            for name, size in zip(_TYPES, sizes, strict=True)
        )
    except (OSError, ValueError, TypeError):
        return False


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock of a path. Where a file system has none, the rename at the end decides."""
    import fcntl  # POSIX only, as in artifacts

    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(
    target: Path, pairs: Artifact, tokens: Tokens, *, prefix: str, progress: Progress
) -> None:
    draft = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((draft / _file(name)).open("wb")) for name in _TYPES}
            _write(files, pairs, tokens, prefix=prefix, progress=progress)
        sizes = [(draft / _file(name)).stat().st_size for name in _TYPES]
        (draft / _META).write_text(json.dumps(sizes), encoding="utf-8")
        if target.exists():  # a damaged one
            shutil.rmtree(target)
        with contextlib.suppress(OSError):  # someone else was first: theirs is the same
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(
    files: Mapping[str, BinaryIO],
    pairs: Artifact,
    tokens: Tokens,
    *,
    prefix: str,
    progress: Progress,
) -> None:
    texts, end, done = 0, 0, 0
    total = int(pairs.manifest.counts.get("pairs", 0))
    concepts: list[pa.Array] = []
    np.zeros(1, dtype=_TYPES["starts"]).tofile(files["starts"])
    for batch in read_pairs(pairs):
        forms, sides = _forms(batch)
        rows = tokens.ids([prefix + form for form in forms])
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        np.concatenate([np.asarray(row, dtype=_TYPES["ids"]) for row in rows]).tofile(files["ids"])
        (end + np.cumsum(lengths)).astype(_TYPES["starts"]).tofile(files["starts"])
        (texts + sides).astype(_TYPES["sides"]).tofile(files["sides"])
        concepts.append(batch.column("concept_id").dictionary_encode())
        texts, end, done = texts + len(rows), end + int(lengths.sum()), done + batch.num_rows
        progress("tokens", done, max(total, done))
    if not done:
        raise InputError(f"{pairs.path} holds no pairs: build it from a larger knowledge base")
    # one numbering for all, wherever a concept appears again
    for chunk in pa.chunked_array(concepts).unify_dictionaries().chunks:
        chunk.indices.to_numpy().astype(_TYPES["concepts"]).tofile(files["concepts"])


def _forms(batch: pa.RecordBatch) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct forms of a batch, and which of them are the sides of each pair: [pairs, 2].

    A concept's pairs stand together, and seldom share a form with another's: so a form is found
    again nearly always in its own batch, and what is held in memory does not grow.
    """
    sides = ("left", "left_lang"), ("right", "right_lang")
    texts = pa.concat_arrays([batch.column(text) for text, _ in sides])
    langs = pa.concat_arrays([batch.column(lang) for _, lang in sides])
    forms = forms_of(texts, langs).dictionary_encode()
    numbers: NDArray[np.int32] = forms.indices.to_numpy().reshape(2, -1).T
    return forms.dictionary.to_pylist(), numbers
