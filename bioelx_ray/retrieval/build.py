"""A knowledge base and an encoder to an index artifact."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bioelx_ray.artifacts import Artifact, Manifest, code_version, publish
from bioelx_ray.config import EncoderConfig, IndexConfig
from bioelx_ray.errors import InputError
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval.embed import embed
from bioelx_ray.retrieval.encoder import Encoder
from bioelx_ray.retrieval.fitting import choose_projection, fit_fusion
from bioelx_ray.retrieval.forms import Forms, FormTable, make_forms, write_forms
from bioelx_ray.retrieval.index import DenseIndex, build_faiss, language_probes
from bioelx_ray.retrieval.lexical import LexicalIndex, write_lexical
from bioelx_ray.retrieval.opened import MATRIX, MEAN, OTHER_SCRIPTS, Index
from bioelx_ray.retrieval.projection import Projection

REOPENED = ("model", "adapter", "pooling", "prefix", "max_length")
"""The settings that decide which encoder it is; the others say how it runs."""

Progress = Callable[[str, int, int], None]
"""Told the step, and how much of it is done and in all."""


def build_index(
    target: Path,
    kb: KnowledgeBase,
    encoder: Encoder,
    *,
    config: IndexConfig,
    encoder_config: EncoderConfig,
    progress: Progress,
) -> Artifact:
    """Embed the forms of `kb`, fit, index and publish them as `target`.

    The embeddings, which take nearly all of the time, are kept beside the target until the index
    is published: an interrupted build goes on with them. `encoder_config`, with which
    `encoder` was opened, is kept to open the index without naming the encoder again.

    Raises:
        InputError: the knowledge base has no alias.
        IndexBuildError: the index would miss the wanted recall.
    """
    table = make_forms(kb.aliases, kb.concepts)
    if not table.forms:
        raise InputError(f"{kb.artifact.path} has no alias to index")
    work = target.with_name(f".{target.name}.embeddings")
    manifest = Manifest(
        kind="index",
        code_version=code_version(),
        config={
            "encoder": encoder_config.model,
            "encoder_settings": encoder_config.model_dump(include=set(REOPENED)),
            "engine": encoder.engine,
            **config.model_dump(),
        },
        inputs={"kb": kb.artifact.manifest.fingerprint, "encoder": encoder.fingerprint},
        sources=kb.artifact.manifest.sources,
    )
    embeddings = embed(
        table.forms, encoder, work=work, progress=lambda n, of: progress("embed", n, of)
    )
    progress("fit", 0, 1)
    projection, figures = choose_projection(embeddings, table, seed=config.seed)
    vectors = projection(embeddings)
    manifest.config["projection"] = figures
    with publish(target, manifest) as draft:
        _write(draft, table, projection, vectors=vectors, config=config, manifest=manifest)
        _fit(draft, table, projection, encoder=encoder, seed=config.seed, manifest=manifest)
        progress("fit", 1, 1)
    shutil.rmtree(work, ignore_errors=True)
    progress("publish", 1, 1)
    return Artifact(path=target, manifest=manifest)


def _write(
    draft: Path,
    table: FormTable,
    projection: Projection,
    *,
    vectors: np.ndarray[Any, np.dtype[np.float32]],
    config: IndexConfig,
    manifest: Manifest,
) -> None:
    write_forms(table, draft)
    np.save(draft / MEAN, projection.mean)
    np.save(draft / MATRIX, projection.matrix)
    probes = language_probes(
        vectors, table.languages(), queries=config.probe_queries, seed=config.seed
    )
    built = build_faiss(vectors, draft, config=config, probes=probes)
    manifest.counts = {
        "forms": len(table.forms),
        "aliases": len(table.aliases),
        "concepts": len(table.concepts),
        "ngrams": write_lexical(table.forms, draft),
    }
    manifest.config["faiss"] = built.as_dict()


def _fit(
    draft: Path,
    table: FormTable,
    projection: Projection,
    *,
    encoder: Encoder,
    seed: int,
    manifest: Manifest,
) -> None:
    """The hybrid's weights, over the index as it will be opened."""
    index = Index(
        artifact=Artifact(path=draft, manifest=manifest),
        forms=Forms(draft),
        dense=DenseIndex(draft, nprobe=manifest.config["faiss"]["nprobe"]),
        lexical=LexicalIndex(draft, forms=len(table.forms)),
        project=projection,
        fusion={OTHER_SCRIPTS: 0.0},
    )
    weights, figures = fit_fusion(index, table, encoder, seed=seed)
    manifest.config |= {"fusion": weights, "fusion_fit": figures}
