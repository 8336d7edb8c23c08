"""What reading a part of a source gives, on disk: the map side of a harvest.

A part is a directory that appears under its name when it is whole::

    aliases.parquet    the columns of Alias that a reader knows, and `form`, the normalised text
    concepts.parquet, mappings.parquet, retired.parquet      where the part has any
    rejects.jsonl      the bad rows that were kept
    part.json          figures (`Figures`)

The same input gives the same bytes, whoever writes it and however often.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from bioelx_ray.durable import draft_beside, remove_drafts
from bioelx_ray.errors import ArtifactError
from bioelx_ray.kb.forms import forms_of
from bioelx_ray.kb.names import drop_reasons
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias, Concept, IdMapping, Retired
from bioelx_ray.tables import SCHEMAS, to_table

FORMAT = 1
"""Raised when parts written by older code must not be taken over."""

KnowledgeRecord = Concept | Alias | IdMapping | Retired
FILES: dict[type[KnowledgeRecord], str] = {
    Alias: "aliases.parquet",
    Concept: "concepts.parquet",
    IdMapping: "mappings.parquet",
    Retired: "retired.parquet",
}
_FLUSH = 65_536
_ALIAS_COLUMNS = ["concept_id", "text", "lang", "source", "preferred"]
SCHEMA_OF: dict[type[KnowledgeRecord], pa.Schema] = {
    **{kind: SCHEMAS[kind] for kind in FILES},
    Alias: pa.schema(
        [*(SCHEMAS[Alias].field(name) for name in _ALIAS_COLUMNS), pa.field("form", pa.string())]
    ),
}


class Figures(BaseModel):
    """What was read and written.

    `rows` counts what was read, good or bad; `records` what was written, of which `aliases` are.
    `dropped` are texts that are no names, `left_out` sound rows that are not wanted, both by
    reason. `end` is where the part ends in the unpacked file, `last` whether the file ends there.
    """

    model_config = ConfigDict(extra="forbid")
    rows: int = 0
    records: int = 0
    aliases: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    rejected: dict[str, int] = Field(default_factory=dict)
    left_out: dict[str, int] = Field(default_factory=dict)
    lost_bytes: int = 0
    end: int = 0
    last: bool = True


class PartWriter:
    """Writes one part; as a context it publishes at the end, and leaves nothing on an error."""

    def __init__(self, target: Path) -> None:
        self.figures = Figures()
        self.rejects = Rejects()
        self._target = target
        self._draft = draft_beside(target)
        self._rows: dict[type[KnowledgeRecord], list[KnowledgeRecord]] = {k: [] for k in FILES}
        self._writers: dict[type[KnowledgeRecord], pq.ParquetWriter] = {}
        self._dropped: Counter[str] = Counter()

    def __enter__(self) -> Self:
        remove_drafts(self._target)
        self._draft.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
            else:
                self._close()
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)

    def add_all(self, records: Iterable[KnowledgeRecord | pa.RecordBatch]) -> None:
        """Take records, or batches with the columns of `Alias`."""
        for record in records:
            if isinstance(record, pa.RecordBatch):
                self._write_aliases(pa.Table.from_batches([record]))
                continue
            rows = self._rows[type(record)]
            rows.append(record)
            if len(rows) >= _FLUSH:
                self._flush(type(record))

    def _flush(self, kind: type[KnowledgeRecord]) -> None:
        rows, self._rows[kind] = self._rows[kind], []
        if not rows:
            return
        table = to_table(rows, kind)
        if kind is Alias:
            self._write_aliases(table)
        else:
            self._write(kind, table)

    def _write_aliases(self, table: pa.Table) -> None:
        """Add the forms, and leave out and count what is no name."""
        table = table.select(_ALIAS_COLUMNS)
        forms = forms_of(table["text"].combine_chunks(), table["lang"].combine_chunks())
        table = table.append_column(SCHEMA_OF[Alias].field("form"), forms)
        reasons = drop_reasons(forms)
        if reasons.null_count < len(reasons):
            counts = pc.value_counts(reasons.drop_null()).to_pylist()
            self._dropped.update({pair["values"]: pair["counts"] for pair in counts})
            table = table.filter(pc.is_null(reasons))
        self.figures.aliases += table.num_rows
        self._write(Alias, table)

    def _write(self, kind: type[KnowledgeRecord], table: pa.Table) -> None:
        if not table.num_rows:
            return
        schema = SCHEMA_OF[kind]
        self.figures.records += table.num_rows
        try:
            if kind not in self._writers:
                self._writers[kind] = pq.ParquetWriter(
                    self._draft / FILES[kind], schema, compression="zstd", compression_level=1
                )
            self._writers[kind].write_table(table.cast(schema))
        except OSError as error:
            raise _cannot_write(self._target, error) from error

    def _close(self) -> None:
        for writer in self._writers.values():
            with suppress(OSError):  # what is being thrown away need not be written to its end
                writer.close()

    def _publish(self) -> None:
        for kind in FILES:
            self._flush(kind)
        self.figures.dropped = dict(sorted(self._dropped.items()))
        self.figures.rejected = self.rejects.by_reason()
        try:
            for writer in self._writers.values():
                writer.close()
            if len(self.rejects):
                self.rejects.write(self._draft)
            text = self.figures.model_dump_json(indent=1)
            (self._draft / "part.json").write_text(text, encoding="utf-8")
            shutil.rmtree(self._target, ignore_errors=True)
            self._draft.rename(self._target)
        except OSError as error:
            raise _cannot_write(self._target, error) from error


def read_figures(part: Path) -> Figures | None:
    """The figures of a finished part, or None where there is none."""
    try:
        return Figures.model_validate_json((part / "part.json").read_bytes())
    except (OSError, ValueError):
        return None


def _cannot_write(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{target} cannot be written ({error}); free space there and run again: "
        "what is finished is kept"
    )
