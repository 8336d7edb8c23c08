"""A file that a knowledge base is built from, with what its manifest says about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from bioelx_ray.artifacts import Source
from bioelx_ray.errors import InputError
from bioelx_ray.kb.files import read_lines
from bioelx_ray.kb.obo import read_obo
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.rows import SUFFIXES
from bioelx_ray.kb.table import read_table
from bioelx_ray.records import Alias, Concept

_OBO = (".obo", ".obo.gz")
_VERSION = re.compile(r"^data-version:\s*(\S+)", re.MULTILINE)
_LICENCE = re.compile(r"^property_value:\s*\S*licen[cs]e\s+\"?([^\s\"]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What to read. `source` goes into the manifest; rejects call the file `source.name`."""

    path: Path
    source: Source

    def read(self, rejects: Rejects) -> Iterator[Concept | Alias]:
        """The concepts and aliases of the file; `rejects` takes what cannot be used.

        Raises:
            InputError: while iterating, where the file as a whole cannot be read.
        """
        if _is_obo(self.path):
            return read_obo(read_lines(self.path), origin=self.source.name, rejects=rejects)
        return read_table(self.path, origin=self.source.name, rejects=rejects)


def from_file(path: Path) -> SourceSpec:
    """A user's table or ontology. Version and licence come from the header of an OBO file.

    Raises:
        InputError: no such file, or an unknown kind.
    """
    if not path.name.lower().endswith((*_OBO, *SUFFIXES)):
        known = ", ".join((*_OBO, *SUFFIXES))
        raise InputError(f"{path}: unknown kind of source; expected one of {known}")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    header = obo_header(path) if _is_obo(path) else ""
    version, licence = _VERSION.search(header), _LICENCE.search(header)
    source = Source(
        name=str(path),
        licence=licence[1] if licence else "not stated",
        version=version[1] if version else "",
    )
    return SourceSpec(path=path, source=source)


def obo_header(path: Path) -> str:
    """What stands before the first stanza of an OBO file."""
    lines = takewhile(lambda line: not line.startswith(b"["), read_lines(path))
    return b"".join(lines).decode("utf-8", "replace")


def _is_obo(path: Path) -> bool:
    return path.name.lower().endswith(_OBO)
