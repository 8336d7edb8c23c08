"""Aliases in the dictionary against aliases in training, in English alone and in all languages.

    python -m tests.benchmarks.two_by_two DATA --work DIR [--steps 300] [--only all/en ...]

DATA holds ``open_kb.tsv`` and the halves of XL-BEL v0.0 and Mantra. Encoders, all from the same
weights and with as many steps of as many pairs:

- ``untuned``
- ``en``         trained on English aliases
- ``all``        on all languages, without the rows of WikiMed-DE-BEL (a third of XL-BEL's German
                 mentions stand among these)
- ``no-leaks``   like ``all``, without aliases that are a test mention of their concept
- ``wikimed``    on all rows: not for a figure about German

Each is measured over two dictionaries, ``en`` and ``all`` (WikiMed rows included), by exact search
over its plain embeddings and by the index that users build, projection included; the best one also
as hybrid. The mentions are those with gold in *both* dictionaries, so that all cells have the same;
the larger dictionary's own mentions are in tables of their own.

All that is finished is kept in DIR (knowledge bases, pairs, checkpoints, adapters, ranks): a rerun
goes on. Encoding the full dictionary takes 8 to 20 minutes on two cores for each encoder;
``--dictionary slice:20000`` takes all names of gold concepts and as many others: a quick look,
whose figures are too high and are labelled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bioelx_ray.config import AdapterConfig, TrainConfig
from bioelx_ray.console import results
from bioelx_ray.evaluation.corpora import SUITES
from bioelx_ray.evaluation.report import Outcome, Report, as_json
from bioelx_ray.evaluation.run import compare
from bioelx_ray.evaluation.summary import summarise
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.retrieval.encoder import open_encoder
from tests.benchmarks.two_by_two_cells import (
    CORPORA,
    DICTIONARIES,
    ENCODERS,
    UNTUNED,
    WAYS,
    WIKIMED,
    Bench,
    Cell,
    K,
    Ranks,
    dictionary,
    encoder_of,
    training_pairs,
)


def report_of(bench: Bench, ranks: Ranks, *, suite: str, among=lambda _: True) -> Report:
    """The report over those measured mentions that `among` takes."""
    outcomes = {
        key: [
            Outcome(gold=item, rank=rank)
            for item, rank in zip(items, ranks[suite][key], strict=True)
            if rank is not None and among(item)
        ]
        for key, items in bench.gold[suite].items()
    }
    return summarise(outcomes, n={key: len(items) for key, items in outcomes.items()}, k=K)


Name = tuple[str, str, str]
"""Encoder, dictionary, way."""


def tables(bench: Bench, cells: dict[Name, Ranks], kbs: dict[str, KnowledgeBase]) -> dict[str, Any]:
    """Print all tables; give the figures for JSON."""
    figures: dict[str, Any] = {}
    known = {id_ for id_ in bench.gold_ids() if all(id_ in kb for kb in kbs.values())}
    parts = {"shared": lambda item: not known.isdisjoint(item.concept_ids)}
    if "all" in kbs:
        parts["dictionary all"] = lambda _: True
        wikimed = wikimed_forms(bench)
        parts["without WikiMed's"] = lambda item: wikimed.isdisjoint(
            (id_, normalise(item.mention.text, item.mention.lang)) for id_ in item.concept_ids
        )
    for suite in bench.gold:
        for part, among in parts.items():
            reports = {
                name: report_of(bench, ranks, suite=suite, among=among)
                for name, ranks in cells.items()
                if part == "shared" or name[1] == "all"
            }
            reports = {name: r for name, r in reports.items() if r.mean.n_in_kb}
            if not reports:
                continue
            size = "" if bench.slice_of is None else ", A SLICE: figures are too high"
            print_table(f"{suite}, {TITLES[part]}{size}", reports)
            figures[f"{suite}, {part}"] = {
                "/".join(name): as_json(report) | against_untuned(name, reports)
                for name, report in reports.items()
            }
    return figures


TITLES = {
    "shared": "mentions with gold in both dictionaries",
    "dictionary all": "mentions with gold in the dictionary of all languages",
    "without WikiMed's": "the same without mentions that WikiMed-DE-BEL gives their gold",
}


def wikimed_forms(bench: Bench) -> set[tuple[str, str]]:
    rows = (row for row in bench.rows()[1:] if row[3] == WIKIMED)
    return {(id_, normalise(text, lang)) for id_, lang, text, _ in rows}


def against_untuned(name: Name, reports: dict[Name, Report]) -> dict[str, Any]:
    """The difference in Recall@1 from the untuned encoder over the same dictionary, with its p."""
    base = reports.get((UNTUNED, *name[1:]))
    if base is None or name[0] == UNTUNED:
        return {}
    mean = compare(reports[name], base)["mean"]
    return {"against_untuned": {"mean": mean.mean, "p_value": mean.p_value}}


def print_table(title: str, reports: dict[Name, Report]) -> None:
    """Recall@1/64 by key and in the mean, with the interval of the mean's Recall@1."""
    first = next(iter(reports.values()))
    rows = [row for row in first.rows if row.n_in_kb]
    counts = [str(row.n_in_kb) for row in rows] + [str(first.mean.n_in_kb), "", ""]
    lines = [
        f"\n{title}: Recall@1/{K} in %\n",
        line(["encoder / dictionary / search", *(r.key for r in rows), "mean", "95 %", "untuned"]),
        line(["---"] * (len(rows) + 4)),
        line(["n", *counts]),
    ]
    for name, report in reports.items():
        one = report.mean.recall[1]
        gain = against_untuned(name, reports).get("against_untuned")
        cells = [recall_cell(row) for row in report.rows if row.n_in_kb] + [
            f"**{recall_cell(report.mean)}**",
            f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            f"{100 * gain['mean']:+.1f} (p {gain['p_value']:.3f})" if gain else "",
        ]
        lines.append(line([" / ".join(name), *cells]))
    results.out("\n".join(lines), highlight=False)


def recall_cell(row) -> str:
    return f"{100 * row.recall[1].value:.1f}/{100 * row.recall[K].value:.1f}"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def training_table(bench: Bench, names: list[str]) -> None:
    lines = ["\ntraining\n", line(["encoder", "pairs", "concepts", "cross-lingual", "epochs"])]
    lines.append(line(["---"] * 5))
    for name in names:
        counts = training_pairs(bench, name).manifest.counts
        seen = (bench.config.max_steps or 0) * bench.config.batch_pairs / counts["pairs"]
        cross = f"{counts['kinds']['cross'] / counts['pairs']:.0%}"
        sizes = [f"{counts['pairs']:,}", f"{counts['concepts']:,}"]
        lines.append(line([name, *sizes, cross, f"{seen:.2f}"]))
    results.out("\n".join(lines), highlight=False)


def wanted_cells(only: list[str]) -> list[tuple[str, str]]:
    cells = [(one, other) for one in ENCODERS for other in DICTIONARIES]
    chosen = [c for c in cells if not only or c[0] in only or "/".join(c) in only]
    if unknown := {o for o in only if not any(o in (c[0], "/".join(c)) for c in cells)}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {cells}")
    return chosen


def main(
    data: Path,
    work: Annotated[Path, typer.Option()],
    only: Annotated[list[str] | None, typer.Option(help="ENCODER or ENCODER/DICTIONARY")] = None,
    dictionary_size: Annotated[str, typer.Option("--dictionary", help="full or slice:N")] = "full",
    steps: int = 300,
    batch: int = 256,
    lr: float = 1e-4,
    warmup: float = 0.05,
    loss: str = "multi-similarity",
    adapter: str = "full",
    layers: int = 0,
    rank: int = 32,
    form: Annotated[str, typer.Option(help="What is kept: auto, adapter, directory.")] = "auto",
    seed: int = 33,
    precision: Annotated[
        str, typer.Option(help="bf16 is twice as fast on a CPU that has it.")
    ] = "fp32",
    micro_tokens: int = 1024,
    prefix: Annotated[str | None, typer.Option(help="Other than the model's own.")] = None,
    hybrid: Annotated[bool, typer.Option(help="The best encoder also as hybrid.")] = True,
    keep: Annotated[bool, typer.Option(help="Keep the embeddings, 300 MB an encoder.")] = False,
    workers: Annotated[int, typer.Option(help="Of Ray Train; 0 trains in this process.")] = 0,
    dropout: float = 0.0,
) -> None:
    config = TrainConfig.model_validate(
        {
            "max_steps": steps,
            "batch_pairs": batch,
            "lr": lr,
            "warmup": warmup,
            "seed": seed,
            "precision": precision,
            "micro_tokens": micro_tokens,
            "dropout": dropout,
            "loss": {"name": loss},
            "adapter": AdapterConfig(kind=adapter, layers=layers, rank=rank),
        }
    )
    whole, _, size = dictionary_size.partition(":")
    if (whole, bool(size)) not in {("full", False), ("slice", True)}:
        raise typer.BadParameter("--dictionary is full or slice:N")
    bench = Bench(
        data=data,
        work=work,
        slice_of=int(size) if size else None,
        config=config,
        prefix=prefix,
        workers=str(workers),
        form=form,
        gold={suite: SUITES[suite](data / place) for suite, place in CORPORA.items()},
    )
    chosen = wanted_cells(only or [])
    kbs = {langs: dictionary(bench, langs) for langs in DICTIONARIES}
    names = list(dict.fromkeys(name for name, _ in chosen))
    cells: dict[Name, Ranks] = {}
    opened_cells: dict[tuple[str, str], Cell] = {}
    for name in names:
        config = encoder_of(bench, name)
        encoder, larger = open_encoder(config), None
        for langs in ("all", "en"):
            cell = Cell(
                bench, encoder, kbs[langs], name=f"{name}-{langs}", config=config, larger=larger
            )
            larger = larger or cell
            if (name, langs) in chosen:
                opened_cells[name, langs] = cell
                cells |= {(name, langs, way): cell.ranks(way) for way in WAYS}
    if hybrid:
        best = max(
            (c for c in chosen if c[1] == "all") if any(c[1] == "all" for c in chosen) else chosen,
            key=lambda c: (
                report_of(bench, cells[*c, "projected"], suite="xlbel").mean.recall[1].value
            ),
        )
        cells[*best, "hybrid"] = opened_cells[best].ranks("hybrid")
    if not keep:
        for cell in opened_cells.values():
            cell.clear()
    training_table(bench, [name for name in names if name != UNTUNED])
    figures = tables(bench, cells, kbs)
    settings = {"dictionary": dictionary_size, "prefix": prefix, **config.model_dump()}
    (work / f"two_by_two-{whole}{size}.json").write_text(
        json.dumps({"settings": settings, "figures": figures}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    typer.run(main)
