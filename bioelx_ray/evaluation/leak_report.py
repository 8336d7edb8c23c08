"""Leaks for people, as JSON, and as the list that pairs are built without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from bioelx_ray.evaluation.leaks import Leaks, Way
from bioelx_ray.kb.exclusion import FORM, GOLD, GOLD_SEPARATOR, TEXT

_LIST_COLUMNS = ("key", TEXT, FORM, GOLD, "where", "match", "concept_id")
_NO_BREAKS = str.maketrans("\t\r\n", "   ")


def as_json(leaks: Leaks) -> dict[str, Any]:
    """Counts and shares by place, concept and match as JSON values, and the shares' means."""
    rows: list[dict[str, Any]] = []
    for row in leaks.rows:
        figures = {
            way: {"n": row.found[way], "share": row.share(way) if row.n else None}
            for way in leaks.ways()
        }
        rows.append({"key": row.key, "n": row.n, "n_in_kb": row.n_in_kb, **_nested(figures)})
    return {"rows": rows, "mean": _nested({way: leaks.mean(way) for way in leaks.ways()})}


def _nested(figures: Mapping[Way, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (where, of, match), figure in figures.items():
        nested.setdefault(where, {}).setdefault(of, {})[match] = figure
    return nested


def as_table(leaks: Leaks, *, title: str | None = None) -> Table:
    """Counts and shares in percent, one line a key; the last line is the unweighted mean."""
    ways = leaks.ways()
    table = Table(
        title=title,
        caption="mentions that are an alias of their gold, or of any concept; in percent of n",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("", "n", "in kb", *("\n".join(way) for way in ways)):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for number, row in enumerate(leaks.rows, start=1):
        cells = [f"{row.found[way]} {_percent(row.share(way))}" for way in ways]
        last = number == len(leaks.rows)
        table.add_row(row.key, str(row.n), str(row.n_in_kb), *cells, end_section=last)
    totals = (sum(row.n for row in leaks.rows), sum(row.n_in_kb for row in leaks.rows))
    table.add_row("mean", *map(str, totals), *(_percent(leaks.mean(way)) for way in ways))
    return table


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:5.1f}"


def write_list(leaks: Leaks, path: Path) -> None:
    """Write the leaks as a TSV, which `kb.exclusion.read_exclusion` reads.

    Columns: key, text, form, gold (ids joined by ``|``), where, match, concept_id. Tabs and line
    breaks in a mention are written as spaces.
    """
    lines = ["\t".join(_LIST_COLUMNS)]
    for leak in leaks.leaks:
        gold = GOLD_SEPARATOR.join(leak.gold)
        text = leak.text.translate(_NO_BREAKS)
        cells = (leak.key, text, leak.form, gold, leak.where, leak.match, leak.concept_id)
        lines.append("\t".join(cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
