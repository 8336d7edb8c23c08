"""Mentions a second of stage 1, against the procedure of SapBERT's evaluation script.

    python -m tests.benchmarks.linking_speed INDEX [--mentions 256] [--rounds 5]

That procedure, for one mention at a time: the scores of all names, and a full sort of them. Both
sides search the same vectors; encoding is left out on both. Rounds are interleaved, medians taken:
only the ratios say something, for machines differ and are shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bioelx_ray.config import EncoderConfig
from bioelx_ray.records import Mention
from bioelx_ray.retrieval import retriever as stage_one
from bioelx_ray.retrieval.encoder import Encoder, open_encoder
from bioelx_ray.retrieval.opened import Index, open_index


class Remembered:
    """An encoder that has encoded these texts before."""

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.dim, self.engine = encoder.dim, encoder.engine
        self.fingerprint = encoder.fingerprint
        self._vectors = dict(zip(texts, encoder.encode(texts), strict=True))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._vectors[text] for text in texts])


def typos(index: Index, *, n: int) -> list[str]:
    """Forms of the index without their last letter: near something, equal to nothing."""
    rows = np.random.default_rng(0).choice(len(index.forms), size=4 * n, replace=False)
    found = [text[:-1].strip() for text in index.forms.texts(np.sort(rows)) if len(text) > 4]
    return list(dict.fromkeys(found))[:n]


def sapbert(vectors: NDArray[np.float32], names: NDArray[np.float32]) -> None:
    for vector in vectors:
        np.argsort(-(names @ vector))


def main(
    path: Annotated[Path, typer.Argument(metavar="INDEX")],
    mentions: int = 256,
    rounds: int = 5,
) -> None:
    index = open_index(path)
    texts = typos(index, n=mentions)
    model = EncoderConfig(**index.artifact.manifest.config["encoder_settings"])
    encoder = Remembered(open_encoder(model), texts)
    asked = [Mention(text=text) for text in texts]
    names = index.dense.vectors()
    queries = index.project(encoder.encode(texts))[:16]
    kinds = {
        "dense": stage_one.dense(index, encoder),
        "lexical": stage_one.lexical(index),
        "hybrid": stage_one.hybrid(index, encoder),
    }
    procedures: dict[str, tuple[int, Callable[[], object]]] = {
        "SapBERT's procedure": (len(queries), lambda: sapbert(queries, names)),
        **{
            f"{name}, batch of {len(asked)}": (
                len(asked),
                lambda kind=kind: kind.retrieve(asked, k=64),
            )
            for name, kind in kinds.items()
        },
    }
    times: dict[str, list[float]] = {name: [] for name in procedures}
    for _ in range(rounds + 1):
        for name, (n, run) in procedures.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / n)
    table = Table("stage 1, 64 candidates", "ms a mention", "times as fast", title=f"{path}")
    first = median(times["SapBERT's procedure"][1:])
    for name, seconds in times.items():
        own = median(seconds[1:])
        table.add_row(name, f"{1000 * own:.2f}", f"{first / own:.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
