"""Checkpoints of a training: written whole or not at all, and checked before they are used.

``step-00000150.pt`` is what `torch.save` writes; ``step-00000150.json`` beside it has its SHA-256
and size, and the step of the best checkpoint at that time, which must not be removed. A checkpoint
counts from the moment that its JSON file is there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bioelx_ray.artifacts import sha256_file
from bioelx_ray.durable import sync_directory, write_durably

State = dict[str, Any]
"""Tensors, numbers, strings, and lists and dictionaries of them."""

_KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A sound checkpoint, loaded on the CPU."""

    step: int
    state: State


def save(directory: Path, step: int, state: State, *, best: int | None = None) -> None:
    """Write a checkpoint; then remove all but the last two and the best ones that these name.

    Args:
        directory: the run's own.
        step: steps done.
        state: see `State`.
        best: the step of the checkpoint that is the best so far; it may be this one.

    Raises:
        OSError: it cannot be written, as on a full disk; the former ones still stand.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data, note = _paths(directory, step)
    draft = data.with_suffix(".pt.draft")
    try:
        with draft.open("wb") as handle:
            _dump(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        entry = {"sha256": sha256_file(draft), "size": draft.stat().st_size, "best": best}
        draft.rename(data)
        write_durably(note, json.dumps(entry), draft=note.with_suffix(".json.draft"))
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(directory)
    _prune(directory)


def newest(directory: Path) -> Checkpoint | None:
    """The last sound checkpoint; damaged ones are passed over with a warning."""
    for step in sorted(_steps(directory), reverse=True):
        if (found := load(directory, step)) is not None:
            return found
    return None


def load(directory: Path, step: int) -> Checkpoint | None:
    """The checkpoint of a step; None, with a warning, if it is missing or damaged."""
    data, note = _paths(directory, step)
    try:
        entry = json.loads(note.read_bytes())
        if data.stat().st_size != entry["size"] or sha256_file(data) != entry["sha256"]:
            raise ValueError("its checksum or size is another")
        state = torch.load(data, map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.PickleError) as error:
        _log.warning("checkpoint %s is passed over: %s", data, error)
        return None
    return Checkpoint(step=step, state=state)


def _dump(state: State, handle: BinaryIO) -> None:
    try:
        torch.save(state, handle)
    except RuntimeError as error:
        # torch hides what the file system said: "unexpected pos" is a full disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise OSError(f"torch could not write the checkpoint ({error})") from error


def _paths(directory: Path, step: int) -> tuple[Path, Path]:
    return directory / f"step-{step:08}.pt", directory / f"step-{step:08}.json"


def _steps(directory: Path) -> Iterator[int]:
    for path in directory.glob("step-*.json"):
        if match := _NAME.fullmatch(path.name):
            yield int(match[1])


def _prune(directory: Path) -> None:
    steps = sorted(_steps(directory))
    kept: set[int] = set(steps[-_KEPT:])
    for step in steps[-_KEPT:]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept |= {json.loads(_paths(directory, step)[1].read_bytes())["best"]} & set(steps)
    for step in set(steps) - kept:
        for path in reversed(_paths(directory, step)):
            path.unlink(missing_ok=True)
    # what a run that was killed left: data without a note, and drafts
    whole = {_paths(directory, step)[0] for step in kept}
    for path in {*directory.glob("step-*.pt"), *directory.glob("step-*.draft")} - whole:
        path.unlink(missing_ok=True)
