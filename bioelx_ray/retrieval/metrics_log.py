"""What a training tells of itself: JSON lines, and event files for TensorBoard where it can.

A line of ``metrics.jsonl`` is a step, ``{"step": 7, "loss": ..., "lr": ..., ...}``, or an
evaluation, ``{"step": 100, "dev": {"de": 0.71, ...}, "mean": 0.66}``. Steps count from 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

METRICS = "metrics.jsonl"


class _Board(Protocol):
    """What both packages' writers can do."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Appends to a directory's log, which first loses what lies behind step `after`."""

    def __init__(self, directory: Path, *, after: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS
        draft = path.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as handle:
            handle.writelines(
                json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= after
            )
        draft.rename(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(directory / "tensorboard", after=after)

    def write(self, step: int, figures: Mapping[str, object]) -> None:
        """Append a line, at once visible to readers. A NaN is written as null."""
        line = {"step": step, **{name: _plain(value) for name, value in figures.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _flat(figures):
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log. Half a line, which a killed run leaves, is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def _flat(figures: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in _flat(value))
        elif isinstance(value, int | float):
            yield name, float(value)


def _board(directory: Path, *, after: int) -> _Board | None:
    """A writer of TensorBoard's event files, from either package that has one, or None."""
    for module in ("torch.utils.tensorboard", "tensorboardX"):
        try:
            writer = import_module(module).SummaryWriter
        except ImportError:
            continue
        return cast("_Board", writer(str(directory), purge_step=after + 1))
    return None
