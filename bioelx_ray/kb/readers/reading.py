"""Which reader reads what, and in which pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_ray.config import HarvestConfig, UmlsConfig
from bioelx_ray.kb.parts import Figures, KnowledgeRecord
from bioelx_ray.kb.readers import umls
from bioelx_ray.kb.readers.babelon import read_babelon
from bioelx_ray.kb.readers.obo import read_obo
from bioelx_ray.kb.readers.sssom import read_sssom, read_xrefs
from bioelx_ray.kb.readers.table import read_table
from bioelx_ray.kb.readers.wikidata import Seen, read_entities
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.sources import SourceKind, SourceSpec
from bioelx_ray.kb.stored.chunks import Chunk, Damage, Split, plan_splits, read_chunks
from bioelx_ray.kb.stored.files import read_lines
from bioelx_ray.records import Concept

Records = Iterator[KnowledgeRecord | pa.RecordBatch]
_BAD_ID = "id that its vocabulary cannot have"
_WHOLE = ("obo", "table", "babelon", "sssom", "xrefs")
"""Read as a whole file: their rows belong together, and they are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A split of a file and how it is read; `name` tells the files of one source apart."""

    kind: SourceKind
    name: str
    split: Split

    @property
    def size(self) -> int:
        """Stored bytes."""
        return self.split.stop - self.split.start


@dataclass(slots=True)
class Group:
    """What one part is made of. Its figures are known once `items` has been read to the end."""

    items: Iterator[Chunk | Damage]
    seen: Seen = field(default_factory=Seen)
    left_out: Counter[str] = field(default_factory=Counter)
    lost_bytes: int = 0
    end: int = 0
    last: bool = True

    def tell(self, figures: Figures) -> None:
        """Fill in the figures of the part."""
        figures.rows = self.seen.rows
        figures.left_out = dict(sorted(self.left_out.items()))
        figures.lost_bytes = self.lost_bytes
        figures.end = self.end
        figures.last = self.last


def plan_readings(spec: SourceSpec, *, split_bytes: int) -> list[Reading]:
    """The pieces of a source that workers read on their own, in order.

    Raises:
        InputError: a file of the source is missing or cannot be read.
    """
    if spec.kind in _WHOLE:
        split = Split(path=spec.path, start=0, stop=spec.path.stat().st_size)
        return [Reading(kind=spec.kind, name="", split=split)]
    files = umls.find_rrf(spec.path) if spec.kind == "umls" else {"": spec.path}
    return [
        Reading(kind=spec.kind, name=name, split=split)
        for name, path in sorted(files.items())
        for split in plan_splits(path, split_bytes=_stored(path, split_bytes))
    ]


def _stored(path: Path, split_bytes: int) -> int:
    """bzip2 makes a dump about a sixteenth; a split is to be some minutes' work unpacked."""
    return max(split_bytes // 16, 1) if path.suffix.lower() == ".bz2" else split_bytes


def groups(reading: Reading, *, resume_at: int, limit: int) -> Iterator[Group]:
    """The parts of a reading, the first one from the unpacked offset `resume_at`.

    What cannot be split is cut here, after `limit` unpacked bytes. Each group must be read to its
    end before the next one is asked for.
    """
    if reading.kind in _WHOLE:
        yield Group(iter(()), end=reading.split.stop)
        return
    if reading.split.path.suffix.lower() != ".gz":
        limit = 1 << 62
    items = read_chunks(reading.split, resume_at=resume_at)
    first = next(items, None)
    end = resume_at
    while True:
        group = Group(iter(()), end=end)
        rest = items if first is None else chain([first], items)
        upcoming: list[Chunk | Damage] = []
        group.items = _limited(rest, group, upcoming, limit=limit)
        yield group
        if group.last:
            return
        first, end = upcoming[0], group.end


def _limited(
    items: Iterator[Chunk | Damage], group: Group, upcoming: list[Chunk | Damage], *, limit: int
) -> Iterator[Chunk | Damage]:
    """Items up to the limit; the one behind it goes into `upcoming`."""
    taken = 0
    for item in items:
        if taken >= limit:
            upcoming.append(item)
            group.last = False
            return
        if isinstance(item, Chunk):
            taken += len(item.data)
            group.end = item.offset + len(item.data)
        else:
            group.lost_bytes += item.lost
        yield item


def read(
    reading: Reading, group: Group, *, origin: str, rejects: Rejects, config: HarvestConfig
) -> Records:
    """The records of a group."""
    if reading.kind == "wikidata":
        yield from read_entities(
            group.items, origin=origin, rejects=rejects, config=config.wikidata, seen=group.seen
        )
        group.left_out.update({_BAD_ID: group.seen.bad_ids} if group.seen.bad_ids else {})
    elif reading.kind == "umls":
        yield from _read_umls(reading, group, origin=origin, rejects=rejects, config=config)
    else:
        for record in _read_whole(
            reading, group.left_out, origin=origin, rejects=rejects, config=config
        ):
            group.seen.rows += not isinstance(record, Concept)
            yield record
        group.seen.rows += group.left_out.total() + rejects.count(origin)


def read_file(spec: SourceSpec, rejects: Rejects) -> Iterator[KnowledgeRecord]:
    """The records of a source that is one small file: no dump, and not UMLS."""
    (reading,) = plan_readings(spec, split_bytes=1 << 62)
    name, config = spec.source.name, HarvestConfig()
    return _read_whole(reading, Counter(), origin=name, rejects=rejects, config=config)


def _read_whole(
    reading: Reading,
    left_out: Counter[str],
    *,
    origin: str,
    rejects: Rejects,
    config: HarvestConfig,
) -> Iterator[KnowledgeRecord]:
    path = reading.split.path
    if reading.kind == "obo":
        return read_obo(read_lines(path), origin=origin, rejects=rejects)
    if reading.kind == "babelon":
        machine = config.machine_translations
        return read_babelon(
            path,
            origin=origin,
            rejects=rejects,
            machine_translations=machine,
            skipped=left_out,
        )
    if reading.kind == "sssom":
        return read_sssom(path, origin=origin, rejects=rejects, skipped=left_out)
    if reading.kind == "xrefs":
        return read_xrefs(path, origin=origin, rejects=rejects)
    return read_table(path, origin=origin, rejects=rejects)


def _read_umls(
    reading: Reading, group: Group, *, origin: str, rejects: Rejects, config: HarvestConfig
) -> Records:
    """The records of one of UMLS's files, which `reading.name` tells."""
    settings, items, seen = config.umls, group.items, group.seen
    origin = f"{origin}/{reading.split.path.name}"
    if reading.name == "MRCUI":
        return umls.read_mrcui(items, origin=origin, rejects=rejects, seen=seen)
    if reading.name == "DELETEDCUI":
        return umls.read_deleted(items, origin=origin, rejects=rejects, seen=seen)
    chosen = _chosen(reading.split.path.parent, settings)
    if reading.name == "MRCONSO":
        return umls.read_mrconso(
            items, origin=origin, rejects=rejects, config=settings, cuis=chosen, seen=seen
        )
    if reading.name == "MRDEF":
        return umls.read_mrdef(
            items, origin=origin, rejects=rejects, config=settings, cuis=chosen, seen=seen
        )
    return umls.read_mrsty(items, origin=origin, rejects=rejects, cuis=chosen, seen=seen)


@lru_cache(maxsize=1)
def _chosen(directory: Path, config: UmlsConfig) -> NDArray[np.int32] | None:
    """The concepts of the chosen semantic types; read once a process."""
    if not (config.semantic_types or config.semantic_groups):
        return None
    path = umls.find_rrf(directory, config=config)["MRSTY"]
    chunks = (
        chunk for split in plan_splits(path, split_bytes=1 << 40) for chunk in read_chunks(split)
    )
    return umls.choose_cuis(chunks, config=config)
