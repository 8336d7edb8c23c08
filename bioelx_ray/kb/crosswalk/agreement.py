"""How far the names of two concepts agree.

Levels: a shared form; else, among the first names of both in one common language (English if it is
one), the same words in another order, or how many trigrams the likest names share.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from bioelx_ray.kb.crosswalk.likeness import SAME_WORDS, likeness, signatures

SHOWN_NAMES = 4
"""As many names a concept and language are compared where none is shared."""

SHORTEST_SHARED = 4
"""Bytes. Shorter forms are abbreviations, which unlike concepts share."""

UNKNOWN, UNLIKE, SLIGHT, FAIR, CLOSE, SAME, SHARED = range(-1, 6)
"""Levels of agreement of names, from no common language to a shared form."""

_BOUNDS = (0.2, 0.4, 0.6, SAME_WORDS)

PART = 1 << 18
BATCH = 1 << 16


def compare_names(connection: DuckDBPyConnection) -> None:
    """Make the table ``gate_agreement`` (pair, level) of the pairs that can be compared."""
    connection.execute(_SHARED)
    connection.execute(_NAMED)
    pairs, levels = [np.zeros(0, np.int64)], [np.zeros(0, np.int8)]
    for first, last in _parts(connection):
        query = _FIRST_NAMES.format(first=first, last=last)
        for batch in connection.sql(query).to_arrow_reader(BATCH):
            pairs.append(batch.column(0).to_numpy())
            levels.append(_levels(batch.column(1), batch.column(2)))
    graded = pa.table({"pair": np.concatenate(pairs), "level": np.concatenate(levels)})
    connection.register("gate_graded", graded)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE gate_agreement AS SELECT pair, level FROM gate_graded"
        f" UNION ALL SELECT pair, {SHARED}::TINYINT FROM gate_shared"
    )
    connection.unregister("gate_graded")


def _parts(connection: DuckDBPyConnection) -> list[tuple[int, int]]:
    """Ranges of pairs of which the names fit in memory: DuckDB cannot spill what groups them."""
    return connection.execute(
        f"""
        SELECT min(pair), max(pair) FROM (
            SELECT pair, (row_number() OVER (ORDER BY pair)) // {PART} AS part FROM gate_unlike
        ) GROUP BY part ORDER BY part
        """
    ).fetchall()


def _levels(left: pa.ListArray, right: pa.ListArray) -> NDArray[np.int8]:
    """The level of the likest names of each row."""
    left_of, right_of, row = _combinations(left, right)
    ours, theirs = signatures(left.flatten()), signatures(right.flatten())
    alike = likeness(ours.take(left_of), theirs.take(right_of))
    best = np.zeros(len(left), np.float32)
    np.maximum.at(best, row, alike)
    return np.searchsorted(np.array(_BOUNDS, np.float32), best, side="right").astype(np.int8)


def _combinations(
    left: pa.ListArray, right: pa.ListArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All combinations of the elements of both lists of a row: their places, and the row."""
    n_left = left.value_lengths().to_numpy().astype(np.int64)
    n_right = right.value_lengths().to_numpy().astype(np.int64)
    count = n_left * n_right
    row = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    start_left, start_right = np.cumsum(n_left) - n_left, np.cumsum(n_right) - n_right
    return start_left[row] + within // n_right[row], start_right[row] + within % n_right[row], row


# Forms as numbers, for strings of all concepts would not fit in memory.
_SHARED = f"""
CREATE OR REPLACE TEMP TABLE gate_forms AS
SELECT code, hash(form) AS key FROM aliases JOIN gate_nodes ON id = concept_id
WHERE strlen(form) >= {SHORTEST_SHARED}
AND code IN (SELECT u FROM gate_pairs UNION ALL SELECT v FROM gate_pairs);

CREATE OR REPLACE TEMP TABLE gate_shared AS
SELECT DISTINCT pair FROM gate_pairs
JOIN gate_forms AS l ON l.code = u JOIN gate_forms AS r ON r.code = v AND r.key = l.key;
DROP TABLE gate_forms
"""

_NAMED = """
CREATE OR REPLACE TEMP TABLE gate_langs AS
WITH rest AS (SELECT u, v FROM gate_pairs ANTI JOIN gate_shared USING (pair))
SELECT code, split_part(lang, '-', 1) AS lang FROM aliases JOIN gate_nodes ON id = concept_id
WHERE form <> '' AND code IN (SELECT u FROM rest UNION ALL SELECT v FROM rest)
GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE gate_unlike AS
SELECT pair, u, v, arg_min(l.lang, (l.lang <> 'en', l.lang)) AS lang
FROM (FROM gate_pairs ANTI JOIN gate_shared USING (pair))
JOIN gate_langs AS l ON l.code = u JOIN gate_langs AS r ON r.code = v AND r.lang = l.lang
GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE gate_named AS
WITH wanted AS (
    SELECT u AS code, lang FROM gate_unlike UNION SELECT v, lang FROM gate_unlike
)
SELECT code, wanted.lang AS lang, NOT preferred AS late, src, form
FROM aliases JOIN gate_nodes ON id = concept_id
JOIN wanted USING (code) WHERE wanted.lang = split_part(aliases.lang, '-', 1) AND form <> ''
"""

_FIRST_NAMES = f"""
WITH part AS (
    SELECT pair, u, v, lang FROM gate_unlike WHERE pair BETWEEN {{first}} AND {{last}}
), shown AS (
    SELECT code, lang, arg_min(form, (late, src, strlen(form), form), {SHOWN_NAMES}) AS forms
    FROM gate_named SEMI JOIN (
        SELECT u AS code, lang FROM part UNION ALL SELECT v, lang FROM part
    ) AS wanted USING (code, lang)
    GROUP BY ALL
)
SELECT pair, l.forms, r.forms FROM part AS p
JOIN shown AS l ON l.code = u AND l.lang = p.lang JOIN shown AS r ON r.code = v AND r.lang = p.lang
"""
