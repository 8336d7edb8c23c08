"""Which concepts of different vocabularies are one concept.

1. Ids and mappings become a graph: a node an id, whether or not it is a concept of the kb; a link
   an exact mapping or a cross reference between two vocabularies. Other kinds never merge.
2. Each link gets evidence (`evidence`): names that both ends share, or how alike they are; types
   that go together elsewhere; ids of third vocabularies linked to both; ranks; repetition.
3. The evidence becomes log odds, and these a probability that heeds the rivals (`gate`): an id has
   at most one match in a vocabulary, so several links of it into one compete.
4. Links of high probability join ids, the most probable first, if no two ids of one vocabulary
   come together. What is left over stays a cross reference, marked ambiguous or dropped.
5. All concepts of a component go home to the one of the most trusted source.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from bioelx_ray.kb.crosswalk import gate
from bioelx_ray.kb.crosswalk.evidence import MERGES, gather

_DECISIONS = {
    gate.ALONE: "merged",
    gate.BEST: "merged",
    gate.UNSHARED: "kept",
    gate.DISAGREES: "dropped",
    gate.BEATEN: "ambiguous",
    gate.UNDECIDED: "ambiguous",
    gate.TWO_OF_ONE: "ambiguous",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crosswalk:
    """How many concepts went into others, and how many mappings met which decision and reason."""

    unified: int
    decisions: dict[str, dict[str, int]]


def resolve(connection: DuckDBPyConnection, *, unify: bool = True) -> Crosswalk:
    """Decide on the table `mappings`, and make the tables `homes` and `xrefs`.

    ``homes(id, home)`` has each concept that goes into another. ``xrefs(concept_id, xref, kind,
    source, decision, reason, score)`` has each mapping once; `concept_id` is as its source gives
    it, `score` the probability that the two are one, where that was asked. Decisions:

    - merged: the ids are one, and more than one of their component is a concept of the kb
    - kept: the kind does not merge, the ids are of one vocabulary, or nothing else has the id
    - ambiguous: another id of the vocabulary fits better or as well
    - dropped: what is known of both ends contradicts the link

    The result does not depend on the order of rows.

    Args:
        connection: holds the tables `aliases`, `concepts` and `mappings`.
        unify: False merges nothing, and keeps all mappings.
    """
    if unify:
        _decide(connection)
    else:
        connection.execute("CREATE OR REPLACE TABLE homes (id VARCHAR, home VARCHAR)")
        connection.execute(_NO_VERDICTS)
    connection.execute(_XREFS)
    return _figures(connection)


def write_report(connection: DuckDBPyConnection, path: Path) -> int:
    """Write the ambiguous and dropped mappings with names and score as TSV; how many there are.

    Most probable first within a subject.
    """
    target = str(path).replace("'", "''")
    connection.execute(
        f"COPY ({_REPORT}) TO '{target}' (FORMAT csv, DELIMITER '\t', HEADER, QUOTE '', ESCAPE '')"
    )
    row = connection.execute(
        "SELECT count(*) FROM xrefs WHERE decision IN ('ambiguous', 'dropped')"
    ).fetchone()
    return int(row[0]) if row else 0


def _decide(connection: DuckDBPyConnection) -> None:
    links = gather(connection)
    verdict = gate.judge(links)
    decisions = np.array([_DECISIONS[code] for code in range(len(gate.REASONS))])
    connection.register(
        "gate_verdict",
        pa.table(
            {
                "a": links.a,
                "b": links.b,
                "score": verdict.probability,
                "code": verdict.reason,
            }
        ),
    )
    connection.register(
        "gate_reasons",
        pa.table(
            {
                "code": np.arange(len(decisions), dtype=np.int8),
                "decision": decisions.tolist(),
                "reason": list(gate.REASONS),
            }
        ),
    )
    connection.register(
        "gate_components",
        pa.table(
            {
                "code": np.arange(len(verdict.component), dtype=np.int32),
                "component": verdict.component,
            }
        ),
    )
    connection.execute(_VERDICTS)
    connection.execute(_HOMES)
    for name in ("gate_verdict", "gate_reasons", "gate_components"):
        connection.unregister(name)


def _figures(connection: DuckDBPyConnection) -> Crosswalk:
    decisions: dict[str, dict[str, int]] = {}
    rows = connection.execute(
        "SELECT decision, reason, count(*) FROM xrefs GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for decision, reason, count in rows:
        decisions.setdefault(decision, {})[reason] = count
    unified = connection.execute("SELECT count(*) FROM homes").fetchone()
    return Crosswalk(unified=int(unified[0]) if unified else 0, decisions=decisions)


_NO_VERDICTS = """
CREATE OR REPLACE TEMP TABLE gate_verdicts
(subject_id VARCHAR, object_id VARCHAR, decision VARCHAR, reason VARCHAR, score DOUBLE)
"""

_VERDICTS = """
CREATE OR REPLACE TEMP TABLE gate_verdicts AS
WITH named AS (
    SELECT l.id AS l, r.id AS r, decision, reason, score FROM gate_verdict
    JOIN gate_reasons USING (code)
    JOIN gate_nodes AS l ON l.code = a JOIN gate_nodes AS r ON r.code = b
)
SELECT l AS subject_id, r AS object_id, decision, reason, score FROM named
UNION ALL SELECT r, l, decision, reason, score FROM named
"""

_HOMES = """
CREATE OR REPLACE TABLE homes AS
WITH members AS (
    SELECT id, trust, component FROM gate_nodes JOIN gate_components USING (code) WHERE trust >= 0
), ranked AS (
    SELECT id, first_value(id) OVER (PARTITION BY component ORDER BY trust, id) AS home
    FROM members
)
SELECT id, home FROM ranked WHERE id <> home ORDER BY id
"""

_XREFS = f"""
CREATE OR REPLACE TABLE xrefs AS
WITH distinct_mappings AS (
    SELECT DISTINCT subject_id, object_id, kind, source, {MERGES} AS merges FROM mappings
)
SELECT m.subject_id AS concept_id, m.object_id AS xref, kind, source,
    CASE WHEN merges THEN coalesce(decision, 'kept') ELSE 'kept' END AS decision,
    CASE WHEN merges THEN coalesce(reason, 'merging is switched off')
        WHEN kind NOT IN ('exact', 'xref') THEN 'kind does not merge'
        ELSE 'ids are of one vocabulary, or of none' END AS reason,
    CASE WHEN merges THEN score END AS score
FROM distinct_mappings AS m LEFT JOIN gate_verdicts AS v
    ON m.subject_id = v.subject_id AND m.object_id = v.object_id
ORDER BY ALL
"""

_REPORT = r"""
WITH named AS (
    SELECT id, arg_min(replace(replace(name, chr(9), ' '), chr(10), ' '), (src, name)) AS name
    FROM concepts WHERE name <> '' GROUP BY id
)
SELECT decision, reason, round(score, 3) AS score, concept_id, coalesce(s.name, '') AS name,
    xref, coalesce(o.name, '') AS xref_name, kind, source
FROM xrefs LEFT JOIN named AS s ON s.id = concept_id LEFT JOIN named AS o ON o.id = xref
WHERE decision IN ('ambiguous', 'dropped')
ORDER BY concept_id, score DESC, xref, kind, source
"""
