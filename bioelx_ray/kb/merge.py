"""Parts of all sources into one knowledge base, out of core.

DuckDB joins and sorts on disk within a bound of memory; the last step walks the sorted aliases and
keeps one of each concept, language and form.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from bioelx_ray.config import HarvestConfig
from bioelx_ray.errors import ArtifactError
from bioelx_ray.kb.arrow_files import batches, write_arrow
from bioelx_ray.kb.crosswalk import resolve, write_report
from bioelx_ray.kb.distinct import distinct_aliases
from bioelx_ray.kb.parts import FILES, SCHEMA_OF, Figures, KnowledgeRecord
from bioelx_ray.kb.store import ALIASES, CONCEPTS, RETIRED, XREF_SCHEMA, XREFS
from bioelx_ray.records import Alias, Concept, Retired
from bioelx_ray.tables import SCHEMAS

AMBIGUOUS = "ambiguous_mappings.tsv"
_MAX_CHAIN = 16
_CHAINED = "FROM redirects WHERE target IN (SELECT id FROM redirects) LIMIT 1"
_NO_IDENTITY = "'pubmed', 'doi', 'isbn', 'http', 'https', 'url', 'wikipedia', 'wikipedia.en'"
"""What a cross-reference to these names is about the concept, not the concept itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceParts:
    """The directories of a source's parts, and their figures, in order."""

    name: str
    parts: list[Path]
    figures: list[Figures]


def merge(
    sources: Sequence[SourceParts],
    directory: Path,
    *,
    config: HarvestConfig,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Write the tables of a knowledge base into a directory, and give their counts.

    Sources stand in the order of trust. A concept that several give keeps its first name and
    definition, and has all their types and xrefs. Concepts that `crosswalk.resolve` joins become
    the one of the most trusted source. Of aliases that are alike in concept, language and form the
    first is kept, with the names of the other sources, and preferred if any of them is.

    Raises:
        ArtifactError: the disk is full.
    """
    steps = (_retire, _load, _join, _write_concepts, _write_retired, _write_aliases, _write_xrefs)
    counts: dict[str, Any] = {}
    try:
        # in the draft, so that what a killed build leaves is removed with it
        with TemporaryDirectory(prefix=".merge-", dir=directory) as scratch:
            db = duckdb.connect(str(Path(scratch) / "merge.duckdb"))
            with closing(db):
                _configure(db, Path(scratch), config)
                for number, step in enumerate(steps):
                    progress("merge", number, len(steps))
                    counts |= step(db, _Job(sources, directory, config))
                progress("merge", len(steps), len(steps))
    except (duckdb.Error, OSError) as error:
        raise ArtifactError(
            f"{directory.parent}: the merge failed ({error}); free disk space there, or raise "
            "harvest.memory_mib, and run again: what was read is kept"
        ) from error
    return counts


@dataclass(frozen=True, slots=True)
class _Job:
    sources: Sequence[SourceParts]
    directory: Path
    config: HarvestConfig


def _configure(db: duckdb.DuckDBPyConnection, scratch: Path, config: HarvestConfig) -> None:
    _run(db, f"SET memory_limit = '{config.memory_mib}MiB'")
    _run(db, f"SET temp_directory = '{_quoted(scratch / 'spill')}'")
    _run(db, f"SET threads = {os.cpu_count() or 1}")
    # every result that is kept is ordered by its query
    _run(db, "SET preserve_insertion_order = false")


def _retire(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    """Views of the parts, and where retired ids lead: the table `redirects`."""
    for kind in FILES:
        _view(db, kind, job.sources)
    _run(
        db,
        """
        CREATE TABLE redirects AS
            SELECT id, min(row(replaced_by IS NULL, src, replaced_by, source)) AS best
            FROM retired_parts r
            WHERE NOT EXISTS (FROM concept_parts c WHERE c.id = r.id AND c.src = r.src)
            GROUP BY id;
        CREATE OR REPLACE TABLE redirects AS
            SELECT id, best[3] AS target, best[4] AS source FROM redirects;
        """,
    )
    for _ in range(_MAX_CHAIN):
        if not db.sql(_CHAINED).fetchall():
            break
        _run(
            db,
            """
            CREATE OR REPLACE TABLE redirects AS
                SELECT r.id, CASE WHEN next.id IS NULL THEN r.target ELSE next.target END AS target,
                    r.source
                FROM redirects r LEFT JOIN redirects next ON r.target = next.id
            """,
        )
    return {}


def _load(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:  # noqa: ARG001
    """The tables and views that the next steps read, in today's ids.

    An alias of a concept that no source gives makes it one.
    """
    _run(
        db,
        f"""
        CREATE VIEW aliases AS
            SELECT coalesce(target, concept_id) AS concept_id,
                text, lang, a.source, preferred, form, src
            FROM alias_parts a LEFT JOIN redirects r ON concept_id = r.id
            WHERE r.id IS NULL OR target IS NOT NULL;
        CREATE TABLE concepts AS
            SELECT coalesce(target, c.id) AS id,
                CASE WHEN r.id IS NULL THEN name ELSE '' END AS name,
                semantic_types, definition, src
            FROM concept_parts c LEFT JOIN redirects r ON c.id = r.id
            WHERE r.id IS NULL OR target IS NOT NULL;
        INSERT INTO concepts
            SELECT concept_id, '', [], NULL, min(src) FROM aliases
            WHERE concept_id NOT IN (SELECT id FROM concepts) GROUP BY concept_id;
        CREATE TABLE mappings AS
            SELECT coalesce(s.target, subject_id) AS subject_id,
                coalesce(o.target, object_id) AS object_id,
                CASE WHEN split_part(object_id, ':', 1) IN ({_NO_IDENTITY}) THEN 'related'
                    ELSE kind END AS kind,
                m.source, preferred, src
            FROM (
                SELECT subject_id, object_id, kind, source, preferred, src FROM idmapping_parts
                UNION ALL
                SELECT id, unnest(xrefs), 'xref', split_part(id, ':', 1), false, src
                FROM concept_parts
            ) m
                LEFT JOIN redirects s ON subject_id = s.id
                LEFT JOIN redirects o ON object_id = o.id;
        """,
    )
    ((lost,),) = db.sql(
        """
        SELECT count(*) FROM alias_parts
        WHERE concept_id IN (SELECT id FROM redirects WHERE target IS NULL)
        """
    ).fetchall()
    return {"aliases_of_retired": lost}


def _view(
    db: duckdb.DuckDBPyConnection, kind: type[KnowledgeRecord], sources: Sequence[SourceParts]
) -> None:
    """All parts of a kind of record, with `src`, the place of their source."""
    name, selects = f"{kind.__name__.lower()}_parts", []
    for src, source in enumerate(sources):
        files = [part / FILES[kind] for part in source.parts if (part / FILES[kind]).exists()]
        if files:
            listed = ", ".join(f"'{_quoted(file)}'" for file in files)
            selects.append(f"SELECT *, {src} AS src FROM read_parquet([{listed}])")
    if not selects:
        empty = pa.Table.from_batches([], SCHEMA_OF[kind].append(pa.field("src", pa.int32())))
        db.register(f"{name}_empty", empty)
        selects = [f"FROM {name}_empty"]
    _run(db, f"CREATE VIEW {name} AS {' UNION ALL '.join(selects)}")


def _join(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    """Which concept goes into which: the tables `homes` and `xrefs`."""
    crosswalk = resolve(db, unify=job.config.unify)
    if {"ambiguous", "dropped"} & set(crosswalk.decisions):
        write_report(db, job.directory / AMBIGUOUS)
    return {"unified": crosswalk.unified, "mappings": crosswalk.decisions}


def _write_concepts(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    _run(
        db,
        """
        CREATE TABLE placed AS
            SELECT coalesce(home, id) AS home, id, name, semantic_types, definition, src
            FROM concepts LEFT JOIN homes USING (id);
        CREATE TABLE named AS
            SELECT home AS id,
                min(row(src, id <> home, name)) FILTER (name <> '') AS best,
                min(row(src, id <> home, definition)) FILTER (definition IS NOT NULL) AS defined
            FROM placed GROUP BY home;
        CREATE TABLE aliased AS
            SELECT coalesce(home, concept_id) AS id,
                min(row(NOT preferred, lang <> 'en', src, text)) AS best
            FROM aliases LEFT JOIN homes ON concept_id = homes.id
            WHERE coalesce(home, concept_id) IN (SELECT id FROM named WHERE best IS NULL)
            GROUP BY 1;
        CREATE TABLE typed AS
            SELECT home AS id, list_sort(list(DISTINCT type)) AS types
            FROM (SELECT home, unnest(semantic_types) AS type FROM placed) GROUP BY home;
        CREATE TABLE final AS
            SELECT id, coalesce(named.best[3], aliased.best[4]) AS name, types,
                named.defined[3] AS definition
            FROM named LEFT JOIN aliased USING (id) LEFT JOIN typed USING (id)
            WHERE name IS NOT NULL;
        CREATE TABLE all_xrefs AS
            SELECT xref, concept_id, min(kind) AS kind FROM (
                SELECT xref, coalesce(home, concept_id) AS concept_id, kind
                FROM xrefs LEFT JOIN homes ON concept_id = homes.id WHERE decision <> 'dropped'
                UNION ALL SELECT id, home, 'exact' FROM homes
            ) WHERE xref <> concept_id AND concept_id IN (SELECT id FROM final)
            GROUP BY xref, concept_id;
        CREATE TABLE listed AS
            SELECT concept_id AS id, list(xref ORDER BY xref) AS xrefs FROM all_xrefs GROUP BY 1;
        """,
    )
    query = """
        SELECT id, name, coalesce(types, []) AS semantic_types, definition,
            coalesce(xrefs, []) AS xrefs
        FROM final LEFT JOIN listed USING (id) ORDER BY id
    """
    n = write_arrow(batches(db, query), job.directory / CONCEPTS, SCHEMAS[Concept])
    return {"concepts": n}


def _write_retired(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    """Retired ids with the concept that stands for them today."""
    query = """
        SELECT r.id, final.id AS replaced_by, source
        FROM redirects r LEFT JOIN homes ON r.target = homes.id
            LEFT JOIN final ON final.id = coalesce(home, target) ORDER BY r.id
    """
    n = write_arrow(batches(db, query), job.directory / RETIRED, SCHEMAS[Retired])
    return {"retired": n}


def _write_aliases(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    _run(
        db,
        """
        CREATE TABLE shared AS
            SELECT lang, form FROM aliases LEFT JOIN homes ON concept_id = homes.id
            GROUP BY lang, form
            HAVING min(hash(coalesce(home, concept_id))) <> max(hash(coalesce(home, concept_id)))
        """,
    )
    query = """
        SELECT coalesce(home, concept_id) AS concept_id, text, a.lang, source, preferred,
            shared.form IS NOT NULL AS ambiguous, a.form
        FROM aliases a LEFT JOIN homes ON a.concept_id = homes.id
            LEFT JOIN shared ON a.lang = shared.lang AND a.form = shared.form
        ORDER BY 1, a.lang, a.form, src, NOT preferred, text, source
    """
    by_language: Counter[str] = Counter()
    by_source: dict[str, Counter[str]] = {}

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in distinct_aliases(batches(db, query)):
            groups = pa.table(batch.select(["source", "lang"])).group_by(["source", "lang"])
            for row in groups.aggregate([([], "count_all")]).to_pylist():
                by_language[row["lang"]] += row["count_all"]
                by_source.setdefault(row["source"], Counter())[row["lang"]] += row["count_all"]
            yield batch

    n = write_arrow(counted(), job.directory / ALIASES, SCHEMAS[Alias])
    (ambiguous,) = db.sql("SELECT count(*) FROM shared").fetchall()[0]
    return {
        "aliases": n,
        "languages": dict(sorted(by_language.items())),
        "by_source": {name: dict(sorted(c.items())) for name, c in sorted(by_source.items())},
        "ambiguous_forms": ambiguous,
    }


def _write_xrefs(db: duckdb.DuckDBPyConnection, job: _Job) -> dict[str, Any]:
    query = "SELECT xref, concept_id, kind FROM all_xrefs ORDER BY xref, concept_id"
    return {"xrefs": write_arrow(batches(db, query), job.directory / XREFS, XREF_SCHEMA)}


def _run(db: duckdb.DuckDBPyConnection, statements: str) -> None:
    db.execute(statements).fetchall()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
