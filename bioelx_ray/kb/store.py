"""The knowledge base on disk: built whole, opened memory-mapped.

::

    sources = [parse_source("starter"), parse_source("hpo"), parse_source("mine.tsv")]
    build_kb(Path("kb"), sources)
    kb = KnowledgeBase.open(Path("kb"))
    kb.concept("hp:0001658").name

An artifact of the kind ``kb`` holds three Arrow IPC files, uncompressed and sorted:
``concepts.arrow`` by id, ``aliases.arrow`` by concept id, language and text, ``xrefs.arrow`` by
xref and concept id; and ``rejects.jsonl`` where rows were rejected.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bioelx_ray.artifacts import (
    Artifact,
    Manifest,
    code_version,
    open_artifact,
    publish,
    sha256_file,
)
from bioelx_ray.errors import InputError
from bioelx_ray.kb.merge import Merged, merge
from bioelx_ray.kb.packaged import parse_source
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.sources import SourceSpec
from bioelx_ray.records import Alias, Concept
from bioelx_ray.tables import from_table, to_table

__all__ = ["KnowledgeBase", "SourceSpec", "build_kb", "parse_source"]

CONCEPTS, ALIASES, XREFS = "concepts.arrow", "aliases.arrow", "xrefs.arrow"
MAX_REJECT_SHARE = 0.001

_XREF_SCHEMA = pa.schema(
    [
        pa.field("xref", pa.string(), nullable=False),
        pa.field("concept_id", pa.string(), nullable=False),
    ]
)
_log = logging.getLogger(__name__)


def build_kb(
    target: Path,
    sources: Sequence[SourceSpec],
    *,
    unify: bool = True,
    max_reject_share: float = MAX_REJECT_SHARE,
) -> Artifact:
    """Read the sources, merge them (see `merge.merge`) and publish them as `target`.

    Of sources that differ about a concept the earlier wins. On an error nothing new stands under
    `target`, and what stood there before still does.

    Raises:
        TooManyRejects: a source has more bad rows than the share; they are listed in
            ``<target>.rejects.jsonl``.
        InputError: no source, one given twice, or one that cannot be read or holds nothing.
    """
    _check_distinct(sources)
    rejects = Rejects()
    aside = target.with_name(f"{target.name}.rejects.jsonl")
    aside.unlink(missing_ok=True)  # an earlier build's would be taken for this one's
    streams = (_stream(spec, rejects, max_share=max_reject_share, aside=aside) for spec in sources)
    merged = merge(streams, unify=unify)
    manifest = Manifest(
        kind="kb",
        code_version=code_version(),
        config={"unify": unify},
        inputs={spec.source.name: f"sha256:{sha256_file(spec.path)}" for spec in sources},
        counts=_counts(merged, rejects),
        sources=[spec.source for spec in sources],
    )
    with publish(target, manifest) as draft:
        _write(merged, draft)
        if len(rejects):
            rejects.write(draft)
    return Artifact(path=target, manifest=manifest)


def _stream(
    spec: SourceSpec, rejects: Rejects, *, max_share: float, aside: Path
) -> Iterator[Concept | Alias]:
    """A source's records; at its end it is refused where it holds too little good."""
    name, good = spec.source.name, 0
    for record in spec.read(rejects):
        good += isinstance(record, Alias)
        yield record
    bad = rejects.count(name)
    rejects.check(name, total=good + bad, max_share=max_share, aside=aside)
    if not good:
        raise InputError(f"{name}: holds no alias; expected at least one concept with a name")
    _log.info("read %s: %d aliases, %d rejects", name, good, bad)


def _check_distinct(sources: Sequence[SourceSpec]) -> None:
    if not sources:
        raise InputError("no source to build a knowledge base from; name at least one")
    names = Counter(spec.source.name for spec in sources)
    if twice := [name for name, n in names.items() if n > 1]:
        raise InputError(f"source given twice: {', '.join(twice)}; name each once")


def _counts(merged: Merged, rejects: Rejects) -> dict[str, Any]:
    languages = Counter(alias.lang for alias in merged.aliases)
    return {
        "concepts": len(merged.concepts),
        "aliases": len(merged.aliases),
        "languages": dict(sorted(languages.items())),
        "ambiguous_forms": merged.ambiguous_forms,
        "unified": merged.unified,
        "ambiguous_xrefs": merged.ambiguous_xrefs,
        "rejected": rejects.by_reason(),
    }


def _write(merged: Merged, directory: Path) -> None:
    xrefs = sorted((xref, concept.id) for concept in merged.concepts for xref in concept.xrefs)
    columns = [[xref for xref, _ in xrefs], [id_ for _, id_ in xrefs]]
    tables = {
        CONCEPTS: to_table(merged.concepts, Concept),
        ALIASES: to_table(merged.aliases, Alias),
        XREFS: pa.table(columns, schema=_XREF_SCHEMA),
    }
    for name, table in tables.items():
        with pa.ipc.new_file(directory / name, table.schema) as writer:
            writer.write_table(table)


class KnowledgeBase:
    """An opened knowledge base. Its tables lie in the page cache, shared between processes.

    Attributes:
        artifact: the directory and its manifest.
        concepts: the columns of `records.Concept`, by id.
        aliases: the columns of `records.Alias`, by concept id, language and text.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.concepts: pa.Table = _mapped(artifact.file(CONCEPTS))
        self.aliases: pa.Table = _mapped(artifact.file(ALIASES))
        self._xrefs: pa.Table = _mapped(artifact.file(XREFS))

    @classmethod
    def open(cls, path: Path) -> KnowledgeBase:
        """Open the artifact at `path`.

        Raises:
            ArtifactError: none is there, it is damaged, or it is of another kind.
        """
        return cls(open_artifact(path, "kb"))

    def __len__(self) -> int:
        """The number of concepts."""
        return int(self.concepts.num_rows)

    def __contains__(self, concept_id: object) -> bool:
        """Whether a concept has this id; xrefs do not count."""
        return isinstance(concept_id, str) and _rows(self.concepts, "id", concept_id).num_rows > 0

    def concept(self, concept_id: str) -> Concept:
        """The concept of an id.

        Raises:
            InputError: none has it.
        """
        found = from_table(_rows(self.concepts, "id", concept_id), Concept)
        if found:
            return found[0]
        others = ", ".join(self.by_xref(concept_id))
        hint = f"it is an xref of {others}" if others else "expected one such as hp:0001658"
        raise InputError(f"{self.artifact.path}: no concept {concept_id!r}; {hint}")

    def aliases_of(self, concept_id: str) -> list[Alias]:
        """The aliases of a concept, by language and text; none for an unknown id."""
        return from_table(_rows(self.aliases, "concept_id", concept_id), Alias)

    def by_xref(self, xref: str) -> tuple[str, ...]:
        """The ids of the concepts that list an xref, in order."""
        return tuple(_rows(self._xrefs, "xref", xref).column("concept_id").to_pylist())

    @property
    def langs(self) -> tuple[str, ...]:
        """The languages of the aliases, in alphabetical order."""
        return tuple(sorted(self.artifact.manifest.counts["languages"]))


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def _rows(table: pa.Table, column: str, value: str) -> pa.Table:
    """The rows with a value in a column that the table is sorted by.

    Searched in place: a dictionary of the ids would cost every process its own copy.
    """
    values = table.column(column)

    def at(row: int) -> str:
        text: str = values[row].as_py()
        return text

    start = bisect_left(range(len(values)), value, key=at)
    stop = start
    while stop < len(values) and at(stop) == value:  # a few rows: cheaper than a second search
        stop += 1
    return table.slice(start, stop - start)
