"""How fast alias training is beside SapBERT's procedure.

    python -m tests.benchmarks.training_speed PAIRS [--pairs 256] [--rounds 5] [--threads 0]

PAIRS is an artifact of `bioelx pairs`. Needs pytorch-metric-learning (extra ``dev``).

1. The loss alone, forward and backward: the library's miner over triplets and its loss, against
   `retrieval.loss`, on random embeddings of which the miner keeps a part.
2. A training step of the embedded encoder with dropout, word embeddings frozen, AdamW. SapBERT's:
   each side padded to 25 tokens and embedded in one piece, the library's miner and loss. Against
   `retrieval.step`, in fp32, by default (bf16 where the CPU computes in it), and that without
   dropout. All have the same pairs, tokenised beforehand.

The procedures take turns, so that a busy machine slows both alike: the ratios are medians of the
rounds, by wall time and by CPU time. In the second part each runs in a process of its own; "MiB
more" is its peak memory less what it has with the encoder loaded. With more threads than idle
cores, waiting for one another is most of what is measured: take --threads 1 there.
"""

import argparse
import os
import resource
import statistics
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from rich.console import Console
from rich.table import Table

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import EncoderConfig, LossConfig, TrainConfig
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.retrieval.batched import padded
from bioelx_ray.retrieval.encoder import load_model, load_tokens
from bioelx_ray.retrieval.loss import make_loss
from bioelx_ray.retrieval.model_files import locate
from bioelx_ray.retrieval.step import backward
from bioelx_ray.retrieval.torch_engine import Pooled

LENGTH = 25


def library():
    """As SapBERT's authors call it."""
    loss = MultiSimilarityLoss(alpha=1, beta=60, base=0.5)
    miner = TripletMarginMiner(margin=0.2, type_of_triplets="all")
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


def pairs_of(number, dim):
    """Both sides stacked, around a common direction as a language model's embeddings are."""
    torch.manual_seed(0)
    own = torch.randn(number, dim).repeat(2, 1)
    rows = 1.5 * torch.randn(dim) + own + 1.0 * torch.randn(2 * number, dim)
    return torch.nn.functional.normalize(rows), torch.arange(number).repeat(2)


def loss_seconds(loss, embeddings, labels):
    given = embeddings.clone().requires_grad_()
    start = time.perf_counter()
    value = loss(given, labels)
    value.backward()
    return time.perf_counter() - start, value.item(), given.grad


def measure_loss(number, dim, *, rounds):
    """Seconds of the library and of ours, and how far the gradients differ."""
    embeddings, labels = pairs_of(number, dim)
    losses = library(), make_loss(LossConfig())
    found = [[loss_seconds(loss, embeddings, labels) for loss in losses] for _ in range(rounds + 1)]
    (_, value, one), (_, _, other) = found[0]
    off = ((one - other).norm() / one.norm()).item()
    return value, off, [[seconds for seconds, *_ in pair] for pair in found[1:]]


def batches(path, *, number, rounds):
    """For each round a batch of token ids, left sides then right ones, and the labels."""
    files = locate(EncoderConfig())
    tokens = load_tokens(files.path, max_length=LENGTH)
    rows = [row for batch in read_pairs(open_artifact(path, "pairs")) for row in batch.to_pylist()]
    order = np.random.default_rng(33).permutation(len(rows))
    for start in range(0, number * rounds, number):
        own = [rows[at] for at in order[start : start + number]]
        texts = [files.prefix + row[side] for side in ("left", "right") for row in own]
        _, labels = np.unique([row["concept_id"] for row in own], return_inverse=True)
        yield [np.array(ids, dtype=np.int32) for ids in tokens.ids(texts)], np.tile(labels, 2)


def encoder():
    files = locate(EncoderConfig())
    module = Pooled(load_model(files.path), pooling=files.pooling).train()
    module.model.embeddings.word_embeddings.requires_grad_(False)
    return module


def sapbert(module):
    """SapBERT's step."""
    loss, trained = library(), [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, weight_decay=0.01)

    def step(texts, labels):
        optimizer.zero_grad()
        half = len(texts) // 2
        sides = [padded([*side, np.zeros(LENGTH)], 0) for side in (texts[:half], texts[half:])]
        embeddings = [module(*(torch.from_numpy(a[:-1]) for a in side)) for side in sides]
        value = loss(torch.cat(embeddings), torch.from_numpy(labels))
        value.backward()
        optimizer.step()
        return value.item()

    return step


def ours(module, **settings):
    config = TrainConfig(**settings)
    if config.dropout is not None:
        module.set_dropout(config.dropout)
    loss, trained = make_loss(config.loss), [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, weight_decay=0.01, fused=True)

    def step(texts, labels):
        figures = backward(module, texts, labels, loss=loss, config=config)
        optimizer.step()
        return figures.loss

    return step


PROCEDURES = {
    "SapBERT's": sapbert,
    "ours, fp32": partial(ours, precision="fp32"),
    "ours": ours,
    "ours, without dropout": partial(ours, dropout=0.0),
}


def serve(name, threads, pipe):
    """Run the steps that come through a pipe; answer loss, seconds, CPU seconds, peak MiB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = PROCEDURES[name](encoder())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    while given := pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        value = step(*given)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send((value, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure_steps(path, *, number, rounds, threads):
    """By procedure, the MiB of the process with the encoder, and the answers of each round."""
    context, pipes, processes = get_context("spawn"), {}, []
    for name in PROCEDURES:
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, threads, end), daemon=True))
        processes[-1].start()
    before = {name: pipe.recv() for name, pipe in pipes.items()}
    answers = {name: [] for name in PROCEDURES}
    for batch in batches(path, number=number, rounds=rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(batch)
            answers[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    return before, {name: found[1:] for name, found in answers.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", metavar="PAIRS", type=Path)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    threads = given.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    console = Console()
    console.print(f"{threads} threads, load {os.getloadavg()[0]:.1f}, {given.pairs} pairs")
    shown = Table("loss", "loss ", "gradients differ by", "library ms", "ours ms", "ratio")
    for dim in (384, 1024):
        value, off, seconds = measure_loss(given.pairs, dim, rounds=given.rounds)
        theirs, own = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
        ratio = statistics.median(one / other for one, other in seconds)
        shown.add_row(
            str(dim), f"{value:.4f}", f"{off:.0e}", f"{theirs:.0f}", f"{own:.1f}", f"{ratio:.1f}"
        )
    console.print(shown)
    before, answers = measure_steps(
        given.path, number=given.pairs, rounds=given.rounds, threads=threads
    )
    shown = Table("step", "pairs/s", "a CPU second", "mean loss", "MiB more", "ratio", "by CPU")
    first = next(iter(answers.values()))
    for name, found in answers.items():
        losses, walls, cpus, peaks = zip(*found, strict=True)
        wall = statistics.median(one[1] / own[1] for one, own in zip(first, found, strict=True))
        cpu = statistics.median(one[2] / own[2] for one, own in zip(first, found, strict=True))
        shown.add_row(
            name,
            f"{given.pairs / statistics.median(walls):.1f}",
            f"{given.pairs / statistics.median(cpus):.1f}",
            f"{statistics.mean(losses):.4f}",
            f"{max(peaks) - before[name]:.0f}",
            f"{wall:.2f}",
            f"{cpu:.2f}",
        )
    console.print(shown)
    console.print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
