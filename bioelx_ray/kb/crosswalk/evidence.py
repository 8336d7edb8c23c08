"""What speaks for and against a link between two ids, in numbers: names, types, third parties.

All of it comes from the tables themselves. A link's ends are compared by names if both are
concepts with names; an end that is none of the kb is judged by the other concepts that are linked
to it, but never by those of the vocabulary of the link's other end, its rivals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from bioelx_ray.kb.crosswalk.agreement import SHARED, compare_names

Scalar = TypeVar("Scalar", bound=np.generic)

HUB = 32
"""An id with more neighbours than this is no evidence for any of them."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Comparisons of two concepts, each for a link; a link may have none or several.

    `via` is the link over which the other concept was reached, -1 if it is the link's own end.
    `level` is the agreement of names, `types` the log odds from types (0: not known).
    """

    link: NDArray[np.int32]
    via: NDArray[np.int32]
    level: NDArray[np.int8]
    types: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Links:
    """Undirected links, one a row, in the order of `a`, then `b`; all columns have length n.

    `a` and `b` are codes of nodes (int32, a < b, in the order of the ids), `vocabulary` and `trust`
    are by node: the code of its prefix, and the place of its first source, -1 if it is no concept.
    `exact` says that a source calls the link exact, `preferred` that one ranks it first, `repeated`
    that several sources or both ends list it. Of the third vocabularies to which both ends have
    links, `thirds` counts those where they share an id, `clashes` the others.
    """

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    exact: NDArray[np.bool_]
    preferred: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    thirds: NDArray[np.int8]
    clashes: NDArray[np.int8]
    vocabulary: NDArray[np.int32]
    trust: NDArray[np.int32]
    compared: Compared


def gather(connection: DuckDBPyConnection) -> Links:
    """The links of the table `mappings` that may merge, with the evidence.

    Leaves the tables ``gate_nodes`` (id, code, vocabulary, trust) and ``gate_links`` behind.
    """
    connection.execute(_NODES)
    connection.execute(_LINKS)
    connection.execute(_PAIRS)
    compare_names(connection)
    connection.execute(_TYPES)
    columns = connection.execute(_LINK_EVIDENCE).fetchnumpy()
    compared = connection.execute(_COMPARED).fetchnumpy()
    nodes = connection.execute(
        "SELECT vocabulary, trust FROM gate_nodes ORDER BY code"
    ).fetchnumpy()
    return Links(
        a=_plain(columns["a"], np.int32),
        b=_plain(columns["b"], np.int32),
        exact=_plain(columns["exact"], np.bool_),
        preferred=_plain(columns["preferred"], np.bool_),
        repeated=_plain(columns["repeated"], np.bool_),
        thirds=_plain(columns["thirds"], np.int8),
        clashes=_plain(columns["clashes"], np.int8),
        vocabulary=_plain(nodes["vocabulary"], np.int32),
        trust=_plain(nodes["trust"], np.int32),
        compared=Compared(
            link=_plain(compared["link"], np.int32),
            via=_plain(compared["via"], np.int32),
            level=_plain(compared["level"], np.int8),
            types=_plain(compared["types"], np.float32),
        ),
    )


def _plain(column: NDArray[Any], dtype: type[Scalar]) -> NDArray[Scalar]:
    return np.ascontiguousarray(column, dtype=dtype)


# A prefix, a colon and a local part that is no URL's.
_PREFIX = "regexp_extract({id}, '^([A-Za-z][A-Za-z0-9_.-]*):[^/]', 1)"

MERGES = "kind IN ('exact', 'xref') AND {a} <> '' AND {b} <> '' AND {a} <> {b}".format(
    a=_PREFIX.format(id="subject_id"), b=_PREFIX.format(id="object_id")
)
"""SQL: whether a mapping may merge two concepts, whatever the evidence."""

_NODES = f"""
CREATE OR REPLACE TEMP TABLE gate_nodes AS
WITH used AS (
    SELECT subject_id AS id FROM mappings WHERE {MERGES}
    UNION SELECT object_id FROM mappings WHERE {MERGES}
), known AS (
    SELECT id, min(src) AS trust FROM (
        SELECT id, src FROM concepts SEMI JOIN used USING (id)
        UNION ALL
        SELECT concept_id AS id, src FROM aliases SEMI JOIN used ON used.id = aliases.concept_id
    ) GROUP BY id
)
SELECT id,
    (row_number() OVER (ORDER BY id) - 1)::INTEGER AS code,
    (dense_rank() OVER (ORDER BY {_PREFIX.format(id="id")}) - 1)::INTEGER AS vocabulary,
    coalesce(trust, -1)::INTEGER AS trust
FROM used LEFT JOIN known USING (id)
"""

_LINKS = f"""
CREATE OR REPLACE TEMP TABLE gate_links AS
SELECT least(s.code, o.code) AS a, greatest(s.code, o.code) AS b,
    bool_or(kind = 'exact') AS exact, bool_or(preferred) AS preferred,
    count(DISTINCT source) > 1 OR count(DISTINCT s.code) > 1 AS repeated
FROM mappings JOIN gate_nodes s ON s.id = subject_id JOIN gate_nodes o ON o.id = object_id
WHERE {MERGES}
GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE gate_neighbours AS
SELECT a AS x, b AS y FROM gate_links UNION ALL SELECT b, a FROM gate_links
"""

# Paths u - w - v of two links between different vocabularies, not over hubs.
_PAIRS = f"""
CREATE OR REPLACE TEMP TABLE gate_small AS
SELECT x AS w, y FROM gate_neighbours
SEMI JOIN (SELECT x FROM gate_neighbours GROUP BY x HAVING count(*) <= {HUB}) AS few USING (x);

CREATE OR REPLACE TEMP TABLE gate_paths AS
SELECT l.y AS u, r.y AS v, l.w
FROM gate_small AS l JOIN gate_small AS r USING (w)
JOIN gate_nodes AS nu ON nu.code = l.y JOIN gate_nodes AS nv ON nv.code = r.y
WHERE l.y < r.y AND nu.vocabulary <> nv.vocabulary;

CREATE OR REPLACE TEMP TABLE gate_pairs AS
SELECT row_number() OVER (ORDER BY u, v) - 1 AS pair, u, v FROM (
    SELECT a AS u, b AS v FROM gate_links UNION SELECT u, v FROM gate_paths
)
JOIN gate_nodes AS nu ON nu.code = u AND nu.trust >= 0
JOIN gate_nodes AS nv ON nv.code = v AND nv.trust >= 0
"""

_TYPES = f"""
CREATE OR REPLACE TEMP TABLE gate_types AS
SELECT DISTINCT code, vocabulary, unnest(semantic_types) AS type
FROM concepts JOIN gate_nodes USING (id);

CREATE OR REPLACE TEMP TABLE gate_type_pairs AS
SELECT pair, l.vocabulary AS lv, l.type AS lt, r.vocabulary AS rv, r.type AS rt,
    coalesce(level = {SHARED}, false)::INTEGER AS agreed
FROM gate_pairs JOIN gate_types AS l ON l.code = u JOIN gate_types AS r ON r.code = v
LEFT JOIN gate_agreement USING (pair);

CREATE OR REPLACE TEMP TABLE gate_type_odds AS
WITH seen AS (
    SELECT lv, lt, rv, rt, sum(agreed) AS n FROM gate_type_pairs GROUP BY ALL
), odds AS (
    SELECT *, sum(n) OVER (PARTITION BY lv, rv, lt) AS nl,
        sum(n) OVER (PARTITION BY lv, rv, rt) AS nr, sum(n) OVER (PARTITION BY lv, rv) AS total
    FROM seen
)
-- A pair must not speak for itself.
SELECT pair, max(ln((n - agreed + 0.5) / (
    (nl - agreed) * (nr - agreed) / greatest(total - agreed, 1) + 0.5))) AS types
FROM gate_type_pairs JOIN odds USING (lv, lt, rv, rt) GROUP BY pair
"""

_LINK_EVIDENCE = """
WITH thirds AS (
    SELECT u AS a, v AS b, count(DISTINCT vocabulary) AS thirds
    FROM gate_paths JOIN gate_links ON a = u AND b = v JOIN gate_nodes ON code = w
    GROUP BY u, v
), known AS (
    SELECT DISTINCT y AS x, vocabulary FROM gate_small JOIN gate_nodes ON code = w
), both_know AS (
    SELECT a, b, count(*) AS n FROM gate_links
    JOIN known AS l ON l.x = a JOIN known AS r ON r.x = b AND r.vocabulary = l.vocabulary
    GROUP BY a, b
)
SELECT a, b, exact, preferred, repeated, least(coalesce(thirds, 0), 100) AS thirds,
    least(coalesce(n, 0) - coalesce(thirds, 0), 100) AS clashes
FROM gate_links LEFT JOIN thirds USING (a, b) LEFT JOIN both_know USING (a, b)
ORDER BY a, b
"""

_COMPARED = """
WITH numbered AS (
    SELECT a, b, row_number() OVER (ORDER BY a, b) - 1 AS link FROM gate_links
), judged AS (
    SELECT u AS a, v AS b, -1 AS x, -1 AS y, pair FROM gate_pairs
    UNION ALL
    SELECT least(u, w), greatest(u, w), least(v, w), greatest(v, w), pair
    FROM gate_paths JOIN gate_pairs USING (u, v)
    UNION ALL
    SELECT least(v, w), greatest(v, w), least(u, w), greatest(u, w), pair
    FROM gate_paths JOIN gate_pairs USING (u, v)
)
SELECT l.link AS link, coalesce(bridge.link, -1) AS via, coalesce(level, -1) AS level,
    coalesce(types, 0) AS types
FROM judged JOIN numbered AS l USING (a, b)
LEFT JOIN numbered AS bridge ON bridge.a = judged.x AND bridge.b = judged.y
LEFT JOIN gate_agreement USING (pair) LEFT JOIN gate_type_odds USING (pair)
WHERE level IS NOT NULL OR types IS NOT NULL
ORDER BY 1, 2, 3, 4
"""
