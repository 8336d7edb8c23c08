"""What the shipped adapter adds to the embedded encoder, on names that it was not trained on.

    python -m tests.benchmarks.starter_retrieval [--adapter DIR]

The dictionary are the English names of the Human Phenotype Ontology, the questions the names that
the starter table has of its concepts in other languages. The adapter's training data hold none of
the table; but where HPO's translations were in them, they may hold the same name, so the languages
that HPO is not translated into (in training they have hardly a name) are shown apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from bioelx_ray.config import EncoderConfig
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.packaged import hpo, starter
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.retrieval.encoder import open_encoder
from bioelx_ray.retrieval.model_files import NO_ADAPTER

UNTRAINED = ("ar", "hi", "ko", "pl", "ru", "th")


def names(kb: KnowledgeBase) -> tuple[dict[str, set[str]], dict[str, list[tuple[str, str]]]]:
    """The concepts of each English form of HPO; by language the starter's forms, and concepts."""
    rows = kb.aliases.select(["concept_id", "text", "lang", "source"]).to_pylist()
    english: dict[str, set[str]] = {}
    for row in rows:
        if row["lang"] == "en" and row["source"] != "starter":
            english.setdefault(normalise(row["text"], "en"), set()).add(row["concept_id"])
    known = set().union(*english.values())
    asked: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        if row["source"] == "starter" and row["lang"] != "en" and row["concept_id"] in known:
            form = normalise(row["text"], row["lang"])
            asked.setdefault(row["lang"], set()).add((form, row["concept_id"]))
    return english, {lang: sorted(found) for lang, found in sorted(asked.items())}


def ranks(
    config: EncoderConfig, english: dict[str, set[str]], asked: Sequence[tuple[str, str]]
) -> np.ndarray:
    """How many forms of other concepts are nearer than the nearest of the right one."""
    encoder = open_encoder(config)
    scores = encoder.encode([form for form, _ in asked]) @ encoder.encode(list(english)).T
    right = np.array([[concept in found for found in english.values()] for _, concept in asked])
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    return (np.where(right, -np.inf, scores) >= best).sum(axis=1)


def main(
    adapter: Annotated[
        Path | None, typer.Option(help="By default the one that ships with the package.")
    ] = None,
) -> None:
    with TemporaryDirectory() as scratch:
        build_kb(Path(scratch) / "kb", [hpo(), starter()])
        english, asked = names(KnowledgeBase.open(Path(scratch) / "kb"))
    questions = [one for found in asked.values() for one in found]
    langs = np.array([lang for lang, found in asked.items() for _ in found])
    tuned = EncoderConfig(adapter=str(adapter) if adapter else None)
    columns = {
        "untuned": ranks(EncoderConfig(adapter=NO_ADAPTER), english, questions),
        "with the adapter": ranks(tuned, english, questions),
    }
    shown = Table("lang", "n", *columns, title=f"Recall@1/5 in %, {len(english):,} English names")
    groups = [(lang, langs == lang) for lang in asked]
    trained = ~np.isin(langs, UNTRAINED)
    groups += [("untrained", ~trained), ("others", trained)]
    for name, mask in groups:
        cells = [
            f"{100 * (found[mask] < 1).mean():.1f}/{100 * (found[mask] < 5).mean():.1f}"
            for found in columns.values()
        ]
        shown.add_row(name, str(mask.sum()), *cells)
    Console().print(shown)


if __name__ == "__main__":
    typer.run(main)
