"""Reports: what an evaluation found, as records, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from bioelx_ray.errors import InputError
from bioelx_ray.records import GoldMention


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % bootstrap interval, all shares from 0 to 1. NaN without mentions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rank of the first gold concept of a mention; 0 means not among the first k."""

    gold: GoldMention
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one key: `recall` by cutoff and `mrr`, over the `n_in_kb` of `n` mentions.

    Only mentions with a gold concept in the knowledge base count, and have an outcome.
    """

    key: str
    n: int
    n_in_kb: int
    recall: Mapping[int, Estimate]
    mrr: Estimate
    outcomes: tuple[Outcome, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows by key and their unweighted mean, which leaves out rows without mentions.

    `k` is how many concepts were asked for: MRR is that of the first `k`. The mean's counts and
    outcomes are those of all rows.
    """

    k: int
    rows: tuple[Row, ...]
    mean: Row


def as_json(report: Report) -> dict[str, Any]:
    """The figures as JSON values. NaN, which JSON lacks, is None; outcomes are left out."""
    return {
        "k": report.k,
        "rows": [_row_json(row) for row in report.rows],
        "mean": _row_json(report.mean),
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "n": row.n,
        "n_in_kb": row.n_in_kb,
        "recall": {str(k): _estimate_json(figure) for k, figure in row.recall.items()},
        "mrr": _estimate_json(row.mrr),
    }


def _estimate_json(figure: Estimate) -> dict[str, float | None]:
    shares = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {name: None if math.isnan(share) else share for name, share in shares.items()}


def as_table(reports: Mapping[str, Report], *, title: str | None = None) -> Table:
    """Reports by name side by side, one line a key, in percent.

    A single report shows intervals and MRR; several leave them to the JSON, for want of room. `n`
    is that of the first report; ``in kb`` stands once where all agree.

    Raises:
        InputError: no reports, or reports over different keys.
    """
    keys = {tuple(row.key for row in _lines(report)) for report in reports.values()}
    if len(keys) != 1:
        raise InputError(f"reports over {len(keys)} sets of keys: give reports over the same one")
    first = _lines(next(iter(reports.values())))
    columns = [("", [row.key for row in first]), ("n", [str(row.n) for row in first])]
    columns += _counts(reports)
    for name, report in reports.items():
        columns += _figures(name, report, alone=len(reports) == 1)
    table = Table(
        title=title,
        caption="in percent, over the mentions with gold in the kb",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading, _ in columns:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for number in range(len(first)):
        cells = [cells[number] for _, cells in columns]
        table.add_row(*cells, end_section=number == len(first) - 2)
    return table


_Column = tuple[str, list[str]]


def _lines(report: Report) -> list[Row]:
    return [*report.rows, report.mean]


def _counts(reports: Mapping[str, Report]) -> list[_Column]:
    counts = [[str(row.n_in_kb) for row in _lines(report)] for report in reports.values()]
    if all(count == counts[0] for count in counts):
        return [("in kb", counts[0])]
    return [(f"{name}\nin kb", count) for name, count in zip(reports, counts, strict=True)]


def _figures(name: str, report: Report, *, alone: bool) -> list[_Column]:
    rows = _lines(report)
    columns = [
        (f"{name}\nR@{cutoff}", [_percent(row.recall[cutoff], alone) for row in rows])
        for cutoff in report.mean.recall
    ]
    if alone:
        columns.append((f"{name}\nMRR", [_percent(row.mrr, alone) for row in rows]))
    return columns


def _percent(figure: Estimate, with_interval: bool) -> str:
    if math.isnan(figure.value):
        return "-"
    text = f"{100 * figure.value:.1f}"
    if not with_interval:
        return text
    return f"{text} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
