"""One reader a benchmark: files as their authors publish them -> GoldMention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bioelx_ray.evaluation.corpora.mantra import read_mantra_dir
from bioelx_ray.evaluation.corpora.xlbel import read_xlbel_dir
from bioelx_ray.records import GoldMention

Gold = dict[str, list[GoldMention]]
"""Gold mentions by key: a language, or what else a suite reports one by one."""


def _mantra(path: Path) -> Gold:
    return {f"{lang}/{corpus}": gold for (lang, corpus), gold in read_mantra_dir(path).items()}


SUITES: Mapping[str, Callable[[Path], Gold]] = {"xlbel": read_xlbel_dir, "mantra": _mantra}
"""Name of a benchmark -> the reader of its directory."""

__all__ = ["SUITES", "Gold"]
