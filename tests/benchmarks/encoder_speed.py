"""How fast the engines encode names of the Human Phenotype Ontology.

``python -m tests.benchmarks.encoder_speed [--names 1024] [--rounds 5] [--threads 0]``

The engines take turns, so that a busy machine slows all of them alike; the figures are medians of
the rounds. The baseline is torch in fp32 with batches of 32 names as they come.
"""

import argparse
import random
import statistics
import time

from rich.console import Console
from rich.table import Table

from bioelx_ray.config import EncoderConfig
from bioelx_ray.kb.packaged import hpo
from bioelx_ray.kb.readers.reading import read_file
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias
from bioelx_ray.retrieval.batched import padded
from bioelx_ray.retrieval.encoder import open_encoder

BATCH = 32


def sample(count):
    """Names of the ontology, drawn at random, always the same."""
    names = [record.text for record in read_file(hpo(), Rejects()) if isinstance(record, Alias)]
    return random.Random(0).sample(names, count)


def unsorted_batches(encoder):
    """The baseline's way: batches of 32 in the given order, each padded to its longest."""

    def encode(texts):
        for start in range(0, len(texts), BATCH):
            given = [encoder.prefix + text for text in texts[start : start + BATCH]]
            encoder.forward(*padded(encoder.tokens.ids(given), encoder.tokens.pad_id))

    return encode


def measure(engines, texts, *, rounds):
    """Strings a second of wall time and of CPU time, by engine, one pair a round."""
    speeds = {name: [] for name in engines}
    for encode in engines.values():
        encode(texts[:BATCH])
    for _ in range(rounds):
        for name, encode in engines.items():
            wall, cpu = time.perf_counter(), time.process_time()
            encode(texts)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            speeds[name].append((len(texts) / wall, len(texts) / cpu))
    return speeds


def table(speeds):
    """The medians, and the ratio to the first engine of the same round."""
    shown = Table("engine", "strings/s", "a CPU second", "ratio to the first")
    base = next(iter(speeds.values()))
    for name, rounds in speeds.items():
        ratios = [wall / first for (wall, _), (first, _) in zip(rounds, base, strict=True)]
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        shown.add_row(name, f"{wall:.0f}", f"{cpu:.0f}", f"{statistics.median(ratios):.2f}")
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    torch = open_encoder(EncoderConfig(engine="torch", threads=given.threads))
    int8 = open_encoder(EncoderConfig(engine="onnx-int8", threads=given.threads))
    engines = {
        f"torch fp32, unsorted, batch {BATCH}": unsorted_batches(torch),
        "torch fp32": torch.encode,
        "onnx-int8": int8.encode,
    }
    Console().print(table(measure(engines, sample(given.names), rounds=given.rounds)))


if __name__ == "__main__":
    main()
