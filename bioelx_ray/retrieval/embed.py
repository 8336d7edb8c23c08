"""Texts to embeddings in shards on disk, so that an interrupted run goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.artifacts import sha256_json
from bioelx_ray.retrieval.encoder import Encoder

SHARD = 4096
Progress = Callable[[int, int], None]


def embed(
    texts: Sequence[str], encoder: Encoder, *, work: Path, progress: Progress
) -> NDArray[np.float16]:
    """Unit vectors float16 [n, dim] of texts, in their order.

    Finished shards lie in a directory under `work` that is named after the texts and the encoder;
    a run with the same ones takes them over, one with others starts anew. `work` may be removed
    once the vectors have been used. `progress` is told (done, all).
    """
    shards = work / sha256_json([encoder.fingerprint, encoder.engine, SHARD, list(texts)])[:24]
    if work.exists():
        for other in set(work.iterdir()) - {shards}:
            shutil.rmtree(other, ignore_errors=True)
    shards.mkdir(parents=True, exist_ok=True)
    # by length, so that a batch pads little; equal lengths stay together whatever the order
    order = np.array(sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row])))
    vectors = np.empty((len(texts), encoder.dim), dtype=np.float16)
    for number, start in enumerate(range(0, len(texts), SHARD)):
        rows = order[start : start + SHARD]
        vectors[rows] = _shard(shards / f"{number:06}.npy", [texts[row] for row in rows], encoder)
        progress(min(start + SHARD, len(texts)), len(texts))
    return vectors


def _shard(path: Path, texts: Sequence[str], encoder: Encoder) -> NDArray[np.float16]:
    if path.exists():
        done: NDArray[np.float16] = np.load(path)
        if done.shape == (len(texts), encoder.dim):
            return done
    vectors: NDArray[np.float16] = encoder.encode(texts).astype(np.float16)
    draft = path.with_suffix(".draft.npy")
    np.save(draft, vectors)
    draft.rename(path)
    return vectors
