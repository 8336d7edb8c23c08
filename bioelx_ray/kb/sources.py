"""What a knowledge base is built from: which file is read how, and what the manifest says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal, get_args

from bioelx_ray.artifacts import MANIFEST, Source
from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.rows import SUFFIXES
from bioelx_ray.kb.readers.sssom import sssom_header
from bioelx_ray.kb.readers.umls import find_rrf
from bioelx_ray.kb.stored.files import read_lines

SourceKind = Literal["obo", "table", "babelon", "sssom", "xrefs", "wikidata", "umls"]
"""Which reader reads a source. The order is that of trust within a directory."""

_SUFFIXES: dict[str, SourceKind] = {
    ".obo": "obo",
    ".babelon.tsv": "babelon",
    ".synonyms.tsv": "babelon",
    ".sssom.tsv": "sssom",
    ".json": "wikidata",
    ".json.bz2": "wikidata",
    **dict.fromkeys(SUFFIXES, "table"),
}
_COLUMNS: tuple[tuple[frozenset[str], SourceKind], ...] = (
    (frozenset({"concept_id", "lang", "text"}), "table"),
    (frozenset({"translation_text", "translation_lang"}), "babelon"),
    (frozenset({"subject_id", "translation_value"}), "babelon"),
    (frozenset({"subject_id", "predicate_id", "object_id"}), "sssom"),
    (frozenset({"id", "xref"}), "xrefs"),
)
_VERSION = re.compile(r"^data-version:\s*(\S+)", re.MULTILINE)
_LICENCE = re.compile(r"^property_value:\s*\S*licen[cs]e\s+\"?([^\s\"]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What to read. `source` goes into the manifest; rejects call the file `source.name`.

    `path` is a file, or for ``umls`` the directory of the RRF files.
    """

    path: Path
    kind: SourceKind
    source: Source

    @property
    def files(self) -> list[Path]:
        """The files that it consists of."""
        return sorted(find_rrf(self.path).values()) if self.kind == "umls" else [self.path]


def from_file(path: Path, kind: SourceKind | None = None) -> SourceSpec:
    """A user's file, or the directory of UMLS. Version and licence are its header's, if it has one.

    `kind` left out is told by the suffix, and for delimited text by the columns.

    Raises:
        InputError: no such file, or an unknown kind.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    found = kind or _kind_of(path)
    licence, version = _licence_and_version(path, found)
    source = Source(name=str(path), licence=licence or "not stated", version=version)
    return SourceSpec(path=path, kind=found, source=source)


def from_directory(directory: Path) -> list[SourceSpec]:
    """Every file below a directory that is a source, and UMLS where its files lie.

    Ontologies come first, then tables, translations, mappings, dumps and UMLS, each by path.

    Raises:
        InputError: nothing below it can be read.
    """
    umls = sorted({path.parent for path in directory.rglob("MRCONSO.RRF*")})
    specs = [from_file(path, "umls") for path in umls]
    specs += [
        from_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and _suffix(path) and not _is_ours(path)
    ]
    if not specs:
        raise InputError(f"{directory}: holds no source; expected files {_known()}, or UMLS's RRF")
    return sorted(specs, key=lambda spec: get_args(SourceKind).index(spec.kind))


def _is_ours(path: Path) -> bool:
    """Hidden, what a download keeps beside a file, or part of a built directory."""
    kept = (".origin.json", ".part.json")
    return (
        path.name.startswith(".") or path.name.endswith(kept) or (path.parent / MANIFEST).exists()
    )


def _kind_of(path: Path) -> SourceKind:
    if path.is_dir():
        return "umls"
    suffix = _suffix(path)
    if suffix is None:
        raise InputError(f"{path}: unknown kind of source; expected one of {_known()}")
    kind = _SUFFIXES[suffix]
    if kind != "table" or suffix == ".parquet":
        return kind
    header = next((line for line in read_lines(path) if not line.startswith(b"#")), b"")
    columns = {
        cell.strip('" \r\n') for cell in re.split("[\t,]", header.decode("utf-8-sig", "replace"))
    }
    return next((kind for wanted, kind in _COLUMNS if wanted <= columns), "table")


def _suffix(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return max((s for s in _SUFFIXES if name.endswith(s)), key=len, default=None)


def _known() -> str:
    return ", ".join(sorted(s for s in _SUFFIXES if not s.endswith(".gz"))) + " (also .gz)"


def _licence_and_version(path: Path, kind: SourceKind) -> tuple[str, str]:
    if kind == "obo":
        header = obo_header(path)
        version, licence = _VERSION.search(header), _LICENCE.search(header)
        return licence[1] if licence else "", version[1] if version else ""
    if kind == "sssom":
        return sssom_header(path)
    if kind == "wikidata":
        return "CC0-1.0", ""
    if kind == "umls":
        return "UMLS Metathesaurus License", ""
    return "", ""


def obo_header(path: Path) -> str:
    """What stands before the first stanza of an OBO file."""
    lines = takewhile(lambda line: not line.startswith(b"["), read_lines(path))
    return b"".join(lines).decode("utf-8", "replace")
