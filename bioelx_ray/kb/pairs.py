"""A knowledge base to synonym pairs for training.

::

    build_pairs(Path("pairs"), kb, config=PairsConfig(), progress=lambda *_: None)
    for batch in read_pairs(open_artifact(Path("pairs"), "pairs")):
        ...

An artifact of the kind ``pairs`` holds Parquet files ``pairs-00000.parquet`` and so on, with the
columns of `records.SynonymPair`, zstd. The pairs stand in the order of the concepts, since they are
written as the aliases are read: training has to shuffle, files and rows. Which pairs there are is
said in `sampling`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bioelx_ray.artifacts import Artifact, Manifest, code_version, publish, sha256_file
from bioelx_ray.config import PairsConfig
from bioelx_ray.errors import InputError
from bioelx_ray.kb.exclusion import Exclusion, read_exclusion
from bioelx_ray.kb.sampling import is_cross_lingual, language_weights, sample_pairs
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.records import Alias, SynonymPair
from bioelx_ray.tables import SCHEMAS, to_table

__all__ = ["build_pairs", "read_pairs", "sample_pairs"]

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 1 << 16
_ALIASES_AT_A_TIME = 1 << 13

Progress = Callable[[str, int, int], None]
"""Told the step, and how much of it is done and in all."""


def build_pairs(
    target: Path,
    kb: KnowledgeBase,
    *,
    config: PairsConfig,
    exclude: Sequence[Path] = (),
    progress: Progress,
) -> Artifact:
    """Draw the pairs of every concept (see `sampling.sample_pairs`) and publish them as `target`.

    Memory holds the aliases of one concept and the rows of one row group at a time. `exclude`
    lists forms not to train on (see `exclusion`).

    The counts of the manifest: `pairs`; `kinds`, cross or mono; `languages`, the pairs that have a
    side in a language, by tag; `concepts` with a pair; and the aliases `left_out` since they are
    excluded, since they are ambiguous, or since they are alone, their concept having no pair.

    Raises:
        InputError: a list cannot be read, or no concept has a pair.
    """
    exclusion = read_exclusion(*exclude)
    manifest = Manifest(
        kind="pairs",
        code_version=code_version(),
        config=config.model_dump(),
        inputs={"kb": kb.artifact.manifest.fingerprint},
        sources=kb.artifact.manifest.sources,
    )
    for number, path in enumerate(exclude):
        manifest.inputs[f"exclude-{number}"] = f"sha256:{sha256_file(path)}"
    tally = _Tally()
    with publish(target, manifest) as draft:
        _write(draft, _draw(kb, exclusion, config=config, tally=tally, progress=progress))
        if not tally.concepts:
            raise InputError(
                f"{kb.artifact.path}: no concept has two forms to make a pair of; left out are "
                f"{dict(tally.left_out)} aliases"
            )
        manifest.counts = tally.as_dict()
    return Artifact(path=target, manifest=manifest)


def read_pairs(artifact: Artifact) -> Iterator[pa.RecordBatch]:
    """The pairs of an artifact in batches of up to 65,536 rows, columns of `SynonymPair`."""
    for name in sorted(artifact.manifest.files):
        with pq.ParquetFile(artifact.file(name)) as file:
            yield from file.iter_batches(batch_size=_ROWS_PER_GROUP)


@dataclass(slots=True)
class _Tally:
    """What was drawn, and what was left out."""

    concepts: int = 0
    kinds: Counter[str] = field(default_factory=lambda: Counter(cross=0, mono=0))
    languages: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(
        default_factory=lambda: Counter(excluded=0, ambiguous=0, alone=0)
    )

    def add(self, pairs: list[SynonymPair]) -> None:
        """Count the pairs of a concept."""
        self.concepts += 1
        for pair in pairs:
            self.kinds["cross" if is_cross_lingual(pair) else "mono"] += 1
            self.languages[pair.left_lang] += 1
            self.languages[pair.right_lang] += pair.left_lang != pair.right_lang

    def as_dict(self) -> dict[str, Any]:
        """As the manifest counts them."""
        return {
            "pairs": self.kinds.total(),
            "concepts": self.concepts,
            "kinds": dict(self.kinds),
            "languages": dict(sorted(self.languages.items())),
            "left_out": dict(self.left_out),
        }


def _draw(
    kb: KnowledgeBase,
    exclusion: Exclusion,
    *,
    config: PairsConfig,
    tally: _Tally,
    progress: Progress,
) -> Iterator[SynonymPair]:
    counted = pc.value_counts(kb.aliases.column("lang")).to_pylist()
    weights = language_weights({row["values"]: row["counts"] for row in counted})
    aliases = chain.from_iterable(_batches(kb.aliases, progress))
    for _, own in groupby(aliases, key=attrgetter("concept_id")):
        kept = [alias for alias in own if _is_kept(alias, exclusion, tally.left_out)]
        pairs = sample_pairs(
            kept, per_concept=config.per_concept, seed=config.seed, weights=weights
        )
        if pairs:
            tally.add(pairs)
        else:
            tally.left_out["alone"] += len(kept)
        yield from pairs


def _is_kept(alias: Alias, exclusion: Exclusion, left_out: Counter[str]) -> bool:
    if alias in exclusion:
        left_out["excluded"] += 1
    elif alias.ambiguous:
        left_out["ambiguous"] += 1
    else:
        return True
    return False


def _batches(table: pa.Table, progress: Progress) -> Iterator[Iterator[Alias]]:
    """The aliases of a table in its order, without `also`: lists are slow to read."""
    names = [name for name in SCHEMAS[Alias].names if name != "also"]
    done = 0
    for batch in table.select(names).to_batches(max_chunksize=_ALIASES_AT_A_TIME):
        columns = [batch.column(name).to_pylist() for name in names]
        yield (Alias(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
        done += batch.num_rows
        progress("pairs", done, table.num_rows)


def _write(directory: Path, pairs: Iterator[SynonymPair]) -> None:
    for number in count():
        rows = islice(pairs, ROWS_PER_FILE)
        group = list(islice(rows, _ROWS_PER_GROUP))
        if not group:
            return
        path = directory / f"pairs-{number:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMAS[SynonymPair], compression="zstd") as writer:
            while group:
                writer.write_table(to_table(group, SynonymPair))
                group = list(islice(rows, _ROWS_PER_GROUP))
