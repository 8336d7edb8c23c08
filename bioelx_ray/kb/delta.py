"""What a new knowledge base changes in an older one, as an artifact of its own.

Of a new release mostly little changes. A delta holds the concepts that were added or changed, with
all their aliases and xrefs, and the ids that are gone; `apply_delta` makes the new knowledge base
out of the older one and the delta, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa

from bioelx_ray.artifacts import (
    Artifact,
    Manifest,
    code_version,
    open_artifact,
    publish,
    sha256_file,
)
from bioelx_ray.errors import ArtifactCorrupt, ArtifactError, ArtifactMismatch
from bioelx_ray.kb.arrow_files import batches, write_arrow
from bioelx_ray.kb.store import ALIASES, CONCEPTS, RETIRED, XREF_SCHEMA, XREFS
from bioelx_ray.records import Alias, Concept, Retired
from bioelx_ray.tables import SCHEMAS

REMOVED, UNRETIRED = "removed.arrow", "unretired.arrow"
_TABLES = {CONCEPTS: SCHEMAS[Concept], ALIASES: SCHEMAS[Alias], XREFS: XREF_SCHEMA}
_KEYS = {CONCEPTS: "id", ALIASES: "concept_id", XREFS: "concept_id"}
_ORDERS = {CONCEPTS: "id", ALIASES: "concept_id, place", XREFS: "xref, concept_id"}
_IDS = pa.schema([pa.field("id", pa.string(), nullable=False)])
_SEPARATOR = "chr(31)"
_MEMORY = "1536MiB"
_CHANGED = pa.schema([*SCHEMAS[Concept], pa.field("change", pa.string(), nullable=False)])


def build_delta(target: Path, old: Path, new: Path) -> Artifact:
    """Publish as `target` what makes the knowledge base `new` out of `old`.

    Raises:
        ArtifactError: one of them is no sound knowledge base.
    """
    before, after = open_artifact(old, "kb"), open_artifact(new, "kb")
    manifest = Manifest(
        kind="kb-delta",
        code_version=code_version(),
        config={"result": after.manifest.model_dump(mode="json")},
        inputs={"base": before.manifest.fingerprint, "result": after.manifest.fingerprint},
        sources=after.manifest.sources,
    )
    with publish(target, manifest) as draft:
        with _working(draft) as (db, _):
            for name in (*_TABLES, RETIRED):
                _register(db, f"old_{_stem(name)}", before.file(name))
                _register(db, f"new_{_stem(name)}", after.file(name))
            _find_changes(db)
            manifest.counts = _write_changes(db, draft)
        with _working(draft) as (db, scratch):
            _write_result(db, scratch, base=before.path, change=draft)
            _verify(scratch, after.manifest)
        for name in set(after.manifest.files) - set(_TABLES) - {RETIRED}:
            shutil.copy2(after.file(name), draft / name)
    return Artifact(path=target, manifest=manifest)


def apply_delta(target: Path, kb: Path, delta: Path) -> Artifact:
    """Publish as `target` the newer knowledge base that `delta` makes of `kb`.

    Raises:
        ArtifactMismatch: the delta was made for another knowledge base.
        ArtifactError: one of them is damaged.
    """
    base, change = open_artifact(kb, "kb"), open_artifact(delta, "kb-delta")
    if change.manifest.inputs["base"] != base.manifest.fingerprint:
        raise ArtifactMismatch(
            f"{delta} changes the knowledge base {change.manifest.inputs['base'][:19]}…, {kb} is "
            f"{base.manifest.fingerprint[:19]}…: apply it to the one that it was made from"
        )
    result = Manifest.model_validate(change.manifest.config["result"])
    manifest = result.model_copy(deep=True)
    with publish(target, manifest) as draft:
        with _working(draft) as (db, _):
            _write_result(db, draft, base=base.path, change=change.path)
        _verify(draft, result)
        for name in set(result.files) - set(_TABLES) - {RETIRED}:
            shutil.copy2(change.file(name), draft / name)
    return Artifact(path=target, manifest=manifest)


@contextmanager
def _working(directory: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A connection that spills into a directory of its own, which is given too."""
    try:
        with (
            TemporaryDirectory(prefix=".delta-", dir=directory) as scratch,
            closing(duckdb.connect()) as db,
        ):
            quoted = scratch.replace("'", "''")
            db.execute(f"SET temp_directory = '{quoted}/spill'").fetchall()
            db.execute(f"SET memory_limit = '{_MEMORY}'").fetchall()
            yield db, Path(scratch)
    except (duckdb.Error, OSError) as error:
        raise ArtifactError(
            f"{directory.parent}: comparing failed ({error}); free disk space there and run again"
        ) from error


def _find_changes(db: duckdb.DuckDBPyConnection) -> None:
    """The table `changes`: id, and whether it was added, changed or removed.

    Rows are hashed with MD5: DuckDB's own hash joins columns by xor, so that two rows of a concept
    in which the same flag changes would cancel out.
    """
    for side in ("old", "new"):
        db.execute(
            f"""
            CREATE TABLE {side}_hashes AS
                SELECT id, bit_xor(md5_number_lower(row_)) AS h FROM (
                    SELECT id, concat_ws({_SEPARATOR}, 'c', name, semantic_types,
                        coalesce(definition, {_SEPARATOR}), xrefs) AS row_ FROM {side}_concepts
                    UNION ALL SELECT concept_id, concat_ws({_SEPARATOR}, 'a', text, lang, source,
                        preferred, ambiguous, also) FROM {side}_aliases
                    UNION ALL SELECT concept_id, concat_ws({_SEPARATOR}, 'x', xref, kind)
                        FROM {side}_xrefs
                ) GROUP BY id
            """
        ).fetchall()
    db.execute(
        """
        CREATE TABLE changes AS
            SELECT id, CASE WHEN o.h IS NULL THEN 'added' WHEN n.h IS NULL THEN 'removed'
                ELSE 'changed' END AS change
            FROM old_hashes o FULL JOIN new_hashes n USING (id) WHERE o.h IS DISTINCT FROM n.h
        """
    ).fetchall()


def _write_changes(db: duckdb.DuckDBPyConnection, draft: Path) -> dict[str, int]:
    for name, schema in _TABLES.items():
        extra = ", change" if name == CONCEPTS else ""
        query = f"""
            SELECT n.*{extra} FROM new_{_stem(name)} n JOIN changes ON n.{_KEYS[name]} = changes.id
            ORDER BY {_ORDERS[name].replace("id", "n.id", 1) if name == CONCEPTS else _ORDERS[name]}
        """
        write_arrow(batches(db, query), draft / name, _CHANGED if extra else schema)
    replaced = """
        SELECT c.id, coalesce(r.replaced_by, min(x.concept_id)) AS replaced_by, 'delta' AS source
        FROM changes c LEFT JOIN new_retired r ON r.id = c.id LEFT JOIN new_xrefs x ON x.xref = c.id
        WHERE change = 'removed' GROUP BY c.id, r.replaced_by ORDER BY c.id
    """
    write_arrow(batches(db, replaced), draft / REMOVED, SCHEMAS[Retired])
    columns = "id, replaced_by, source"
    fresh = f"SELECT {columns} FROM new_retired EXCEPT SELECT {columns} FROM old_retired"
    gone = f"SELECT {columns} FROM old_retired EXCEPT SELECT {columns} FROM new_retired"
    write_arrow(batches(db, f"{fresh} ORDER BY id"), draft / RETIRED, SCHEMAS[Retired])
    write_arrow(batches(db, f"SELECT id FROM ({gone}) ORDER BY id"), draft / UNRETIRED, _IDS)
    found = dict(db.sql("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
    return {change: found.get(change, 0) for change in ("added", "changed", "removed")}


def _write_result(db: duckdb.DuckDBPyConnection, draft: Path, *, base: Path, change: Path) -> None:
    for name in (*_TABLES, RETIRED):
        _register(db, f"old_{_stem(name)}", base / name)
        _register(db, f"new_{_stem(name)}", change / name)
    for name in (REMOVED, UNRETIRED):
        _register(db, _stem(name), change / name)
    db.execute(
        "CREATE TABLE touched AS SELECT id FROM new_concepts UNION SELECT id FROM removed"
    ).fetchall()
    for name, schema in _TABLES.items():
        columns, stem = ", ".join(schema.names), _stem(name)
        query = f"""
            SELECT {columns} FROM (
                SELECT {columns}, place FROM old_{stem}
                    WHERE {_KEYS[name]} NOT IN (SELECT id FROM touched)
                UNION ALL SELECT {columns}, place FROM new_{stem}
            ) ORDER BY {_ORDERS[name]}
        """
        write_arrow(batches(db, query), draft / name, schema)
    query = """
        SELECT * EXCLUDE place FROM (
            FROM old_retired WHERE id NOT IN (SELECT id FROM unretired)
            UNION ALL FROM new_retired
        ) ORDER BY id
    """
    write_arrow(batches(db, query), draft / RETIRED, SCHEMAS[Retired])


def _verify(draft: Path, result: Manifest) -> None:
    names = (*_TABLES, RETIRED)
    wrong = [n for n in names if sha256_file(draft / n) != result.files[n].sha256]
    if wrong:
        raise ArtifactCorrupt(
            f"the delta gives other bytes than the new knowledge base has: {', '.join(wrong)}; "
            "build the delta again with this version of the package"
        )


def _register(db: duckdb.DuckDBPyConnection, name: str, file: Path) -> None:
    """A table of an Arrow file, with the number of each row as `place`."""
    table = pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all()
    db.register(name, table.append_column("place", pa.array(np.arange(table.num_rows))))


def _stem(name: str) -> str:
    return name.partition(".")[0]


def summary(delta: Artifact) -> str:
    """The counts in words."""
    counts = delta.manifest.counts
    return ", ".join(f"{counts[change]:,} {change}" for change in ("added", "changed", "removed"))
