"""Commands that measure: `evaluate`, and `audit`, which tells what test data leaks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bioelx_ray.cli.options import retriever_name
from bioelx_ray.config import RetrievalConfig
from bioelx_ray.console import results, showing_progress
from bioelx_ray.errors import ConfigError


def evaluate(
    suite: Annotated[str, typer.Argument(help="xlbel or mantra")],
    directory: Annotated[Path, typer.Argument(help="The files as their authors publish them.")],
    index: Annotated[Path, typer.Option("--index")],
    kb: Annotated[Path, typer.Option("--kb", help="The knowledge base of the index.")],
    retriever: Annotated[
        list[str] | None, typer.Option(help="dense, lexical, hybrid; may be given again")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also without mentions that are aliases of their gold.")
    ] = False,
) -> None:
    """Recall@1, 5 and 64 over distinct concepts, for mentions whose gold is in the kb."""
    from bioelx_ray.evaluation import audit as audits
    from bioelx_ray.evaluation.corpora import SUITES
    from bioelx_ray.evaluation.report import Report, as_table
    from bioelx_ray.evaluation.report import as_json as report_json
    from bioelx_ray.evaluation.run import evaluate as run
    from bioelx_ray.kb.store import KnowledgeBase
    from bioelx_ray.linker import open_retriever

    if suite not in SUITES:
        raise ConfigError(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
    gold, known = SUITES[suite](directory), KnowledgeBase.open(kb)
    reports: dict[str, Report] = {}
    with showing_progress() as progress:
        for name in map(retriever_name, retriever or ["dense"]):
            stage_one = open_retriever(index, retrieval=RetrievalConfig(retriever=name))
            reports[name] = run(
                stage_one,
                gold,
                known=known,
                progress=partial(progress, name),
            )
    results.print(as_table(reports, title=f"{suite}: Recall over {index}"))
    figures = {name: report_json(report) for name, report in reports.items()}
    if audit:
        parts = {
            name: audits.audit(report, audits.seen_in(known)) for name, report in reports.items()
        }
        unseen = {name: part.unseen for name, part in parts.items()}
        results.print(as_table(unseen, title="mentions that are no alias of their gold concept"))
        figures |= {f"{name}, audit": audits.as_json(part) for name, part in parts.items()}
    if as_json:
        as_json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")


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
