"""Results of DuckDB as Arrow files whose bytes depend on their rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

BATCH = 65_536


def batches(db: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """The rows of a query, as they come."""
    reader = db.sql(query).to_arrow_reader(BATCH)
    yield from reader


def write_arrow(rows: Iterator[pa.RecordBatch], path: Path, schema: pa.Schema) -> int:
    """Write an uncompressed Arrow file in batches of `BATCH` rows, and count its rows.

    The batches that come in may have any size: the same rows give the same bytes.
    """
    n, held = 0, pa.Table.from_batches([], schema)
    with pa.ipc.new_file(path, schema) as writer:
        for batch in rows:
            n += batch.num_rows
            fitted = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            held = pa.concat_tables([held, fitted])
            while held.num_rows >= BATCH:
                writer.write_table(held.slice(0, BATCH).combine_chunks())
                held = held.slice(BATCH)
        if held.num_rows:
            # made anew, for the unused bits of a bitmap's last byte may be anything
            writer.write_table(pa.Table.from_pylist(held.to_pylist(), schema))
    return n
