"""Commands that build knowledge bases and what is made of them alone.

`harvest`, `show`, `diff`, `apply` and `pairs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from bioelx_ray.cli.options import Config, Out
from bioelx_ray.config import load_config
from bioelx_ray.console import messages, results, showing_progress


def harvest(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="hpo, starter, files (.obo, .babelon.tsv, .sssom.tsv, .json.gz or .json.bz2 of "
            "Wikidata, tables as .tsv, .csv, .parquet), or directories of them, or of UMLS's RRF."
        ),
    ],
    *,
    out: Out,
    config: Config = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read.")] = 1,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Keep what is read there: later builds read what is new."),
    ] = None,
    max_reject_share: Annotated[float | None, typer.Option(min=0, max=1)] = None,
) -> None:
    """Build a knowledge base from sources; of sources that differ the earlier wins."""
    from bioelx_ray.kb.harvest import build_kb, summary
    from bioelx_ray.kb.packaged import parse_sources

    given = {} if max_reject_share is None else {"harvest.max_reject_share": max_reject_share}
    settings = load_config(config, given).harvest
    specs = [spec for source in sources for spec in parse_sources(source)]
    with showing_progress() as progress:
        built = build_kb(out, specs, config=settings, workers=workers, work=work, progress=progress)
    results.print(summary(built), highlight=False, markup=False, soft_wrap=True)


def show(
    kb: Annotated[Path, typer.Argument(help="A knowledge base.")],
    languages: Annotated[
        int, typer.Option(min=1, help="How many languages have a column; the rest is one.")
    ] = 8,
) -> None:
    """Show where a knowledge base comes from, and its aliases by source and language."""
    from bioelx_ray.artifacts import open_artifact
    from bioelx_ray.kb.harvest import summary

    built = open_artifact(kb, "kb")
    results.print(summary(built), highlight=False, markup=False, soft_wrap=True)
    results.print(_by_source(built.manifest.counts, languages))
    for source in built.manifest.sources:
        told = ", ".join(filter(None, [source.licence, source.version]))
        results.print(f"{source.name}: {told}", highlight=False, markup=False, soft_wrap=True)


def _by_source(counts: dict[str, Any], n: int) -> Table:
    """Aliases by source and language; an alias that several sources give counts for the first."""
    languages: dict[str, int] = counts["languages"]
    shown = sorted(languages, key=lambda lang: (-languages[lang], lang))[:n]
    table = Table("source", box=box.SIMPLE_HEAD)
    for column in ("aliases", *shown, "others"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = {**counts["by_source"], "all": languages}
    for name, by_language in rows.items():
        of_shown = [by_language.get(lang, 0) for lang in shown]
        total = sum(by_language.values())
        cells = [total, *of_shown, total - sum(of_shown)]
        table.add_row(escape(name), *(f"{cell:,}" if cell else "" for cell in cells))
    return table


def diff(
    old: Annotated[Path, typer.Argument(help="A knowledge base.")],
    new: Annotated[Path, typer.Argument(help="A newer one.")],
    *,
    out: Out,
) -> None:
    """What a newer knowledge base changes, as a delta for those who have the older one."""
    from bioelx_ray.kb.delta import build_delta, summary

    with messages.status("comparing"):
        built = build_delta(out, old, new)
    results.print(f"{out}: {summary(built)}", highlight=False, markup=False, soft_wrap=True)


def apply(
    kb: Annotated[Path, typer.Argument(help="The knowledge base that the delta was made from.")],
    delta: Annotated[Path, typer.Argument(help="See `bioelx diff`.")],
    *,
    out: Out,
) -> None:
    """Make the newer knowledge base out of the older one and a delta, byte for byte."""
    from bioelx_ray.kb.delta import apply_delta

    with messages.status("applying"):
        built = apply_delta(out, kb, delta)
    counts = built.manifest.counts
    results.print(
        f"{out}: {counts['concepts']:,} concepts, {counts['aliases']:,} aliases",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def holdout(
    kb: Annotated[Path, typer.Argument(help="A knowledge base (see `bioelx harvest`).")],
    *,
    out: Out,
    per_language: Annotated[int, typer.Option(min=1, help="Queries a language at most.")] = 100,
    seed: int = 0,
) -> None:
    """Hold out aliases that training is measured on; `pairs --exclude OUT/exclude.tsv` obeys."""
    from bioelx_ray.kb.store import KnowledgeBase
    from bioelx_ray.retrieval.development import build_development

    with messages.status("holding out"):
        built = build_development(out, KnowledgeBase.open(kb), per_language=per_language, seed=seed)
    counts = built.manifest.counts
    results.print(
        f"{out}: {counts['queries']:,} queries in {len(counts['languages'])} languages over "
        f"{counts['forms']:,} forms; {counts['hidden']:,} aliases not to be trained on",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def pairs(
    kb: Annotated[Path, typer.Argument(help="A knowledge base (see `bioelx harvest`).")],
    *,
    out: Out,
    config: Config = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            help="Forms to leave out (bioelx audit --list, bioelx holdout); may be given again.",
        ),
    ] = None,
    per_concept: Annotated[
        int | None, typer.Option(min=1, help="Pairs a concept at most; without it the settings'.")
    ] = None,
) -> None:
    """Draw synonym pairs for training, cross-lingual ones first."""
    from bioelx_ray.kb.pairs import build_pairs
    from bioelx_ray.kb.store import KnowledgeBase

    overrides: dict[str, Any] = {} if per_concept is None else {"pairs.per_concept": per_concept}
    settings = load_config(config, overrides).pairs
    with showing_progress() as progress:
        built = build_pairs(
            out, KnowledgeBase.open(kb), config=settings, exclude=exclude or (), progress=progress
        )
    counts = built.manifest.counts
    left_out = ", ".join(f"{n:,} {reason}" for reason, n in counts["left_out"].items())
    results.print(
        f"{out}: {counts['pairs']:,} pairs of {counts['concepts']:,} concepts, "
        f"{counts['kinds']['cross'] / counts['pairs']:.1%} cross-lingual, in "
        f"{len(counts['languages'])} languages; aliases left out: {left_out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
