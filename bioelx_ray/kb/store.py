"""The knowledge base on disk, opened memory-mapped.

::

    kb = KnowledgeBase.open(Path("kb"))
    kb.concept("hp:0001658").name

An artifact of the kind ``kb`` (see `harvest.build_kb`) holds four Arrow IPC files, uncompressed and
sorted: ``concepts.arrow`` by id, ``aliases.arrow`` by concept id, language and normalised form,
``xrefs.arrow`` by xref and concept id, ``retired.arrow`` by id; ``rejects.jsonl`` where rows were
rejected, and ``ambiguous_mappings.tsv`` where ids of vocabularies could not be told apart.
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import pyarrow as pa

from bioelx_ray.artifacts import Artifact, open_artifact
from bioelx_ray.errors import InputError
from bioelx_ray.records import Alias, Concept, Retired
from bioelx_ray.tables import from_table

CONCEPTS, ALIASES = "concepts.arrow", "aliases.arrow"
XREFS, RETIRED = "xrefs.arrow", "retired.arrow"
XREF_SCHEMA = pa.schema(
    [
        pa.field("xref", pa.string(), nullable=False),
        pa.field("concept_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)


class KnowledgeBase:
    """An opened knowledge base. Its tables lie in the page cache, shared between processes.

    Attributes:
        artifact: the directory and its manifest.
        concepts: the columns of `records.Concept`, by id.
        aliases: the columns of `records.Alias`, by concept id, language and normalised form.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.concepts: pa.Table = _mapped(artifact.file(CONCEPTS))
        self.aliases: pa.Table = _mapped(artifact.file(ALIASES))
        self._xrefs: pa.Table = _mapped(artifact.file(XREFS))
        self._retired: pa.Table = _mapped(artifact.file(RETIRED))

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
        if retired := self.retired(concept_id):
            hint = f"it is retired; {retired.replaced_by or 'nothing'} replaces it"
        raise InputError(f"{self.artifact.path}: no concept {concept_id!r}; {hint}")

    def aliases_of(self, concept_id: str) -> list[Alias]:
        """The aliases of a concept, by language and text; none for an unknown id."""
        return from_table(_rows(self.aliases, "concept_id", concept_id), Alias)

    def by_xref(self, xref: str) -> tuple[str, ...]:
        """The ids of the concepts that list an xref, in order."""
        return tuple(_rows(self._xrefs, "xref", xref).column("concept_id").to_pylist())

    def retired(self, concept_id: str) -> Retired | None:
        """What is known of an id that its vocabulary no longer uses; None for any other id."""
        found = from_table(_rows(self._retired, "id", concept_id), Retired)
        return found[0] if found else None

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
