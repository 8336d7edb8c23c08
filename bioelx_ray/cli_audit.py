"""Commands that prepare training data: `bioelx audit` and `bioelx pairs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bioelx_ray.config import load_config
from bioelx_ray.console import results, showing_progress
from bioelx_ray.errors import ConfigError

# As in `cli`, the commands import what they need.


def audit(
    suite: Annotated[str, typer.Argument(help="xlbel or mantra")],
    directory: Annotated[Path, typer.Argument(help="The files as their authors publish them.")],
    kb: Annotated[Path, typer.Option("--kb", help="The knowledge base: the dictionary.")],
    *,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="The pairs that are trained on.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Write what leaks there, for bioelx pairs.")
    ] = None,
) -> None:
    """Count test mentions that stand in the dictionary, and in the pairs that are trained on."""
    from bioelx_ray.evaluation.corpora import SUITES
    from bioelx_ray.evaluation.leak_report import as_json as leaks_json
    from bioelx_ray.evaluation.leak_report import as_table, write_list
    from bioelx_ray.evaluation.leaks import find_leaks
    from bioelx_ray.kb.store import KnowledgeBase

    if suite not in SUITES:
        raise ConfigError(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
    gold, known = SUITES[suite](directory), KnowledgeBase.open(kb)
    with showing_progress() as progress:
        leaks = find_leaks(gold, known, pairs, progress=progress)
    results.print(as_table(leaks, title=f"{suite}: mentions that are aliases in {kb}"))
    if as_json:
        text = json.dumps(leaks_json(leaks), indent=2, ensure_ascii=False, allow_nan=False)
        as_json.write_text(text + "\n", encoding="utf-8")
    if listed:
        write_list(leaks, listed)


def pairs(
    kb: Annotated[Path, typer.Argument(help="A knowledge base (see `bioelx kb`).")],
    out: Annotated[Path, typer.Option("--out", help="The directory to publish.")],
    *,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in YAML.")] = None,
    exclude: Annotated[
        Path | None, typer.Option("--exclude", help="Forms to leave out (bioelx audit --list).")
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
            out, KnowledgeBase.open(kb), config=settings, exclude=exclude, progress=progress
        )
    counts = built.manifest.counts
    left_out = ", ".join(f"{n:,} {reason}" for reason, n in counts["left_out"].items())
    results.print(
        f"{out}: {counts['pairs']:,} pairs of {counts['concepts']:,} concepts, "
        f"{counts['kinds']['cross'] / counts['pairs']:.1%} cross-lingual, in "
        f"{len(counts['languages'])} languages; aliases left out: {left_out}",
        highlight=False,
    )
