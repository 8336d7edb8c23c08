"""A step in several processes: what each of them does. They import little, to start quickly."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from bioelx_ray.config import LossConfig, TrainConfig
from bioelx_ray.retrieval import collectives
from bioelx_ray.retrieval.loss import make_loss
from bioelx_ray.retrieval.step import backward


def batch(pairs=12):
    """Both sides stacked: the left ones, then the right ones, of random lengths."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, 100, rng.integers(1, 26), dtype=np.int32) for _ in range(2 * pairs)]
    return texts, np.tile(np.arange(pairs), 2)


def train_config(**changes):
    # the margin keeps enough of a random model's pairs, and drops some
    usual = {"micro_tokens": 64, "precision": "fp32", "loss": LossConfig(margin=0.1)}
    return TrainConfig(**usual | changes)


def step(module, texts, labels, *, config=None, group=None, loss=None):
    config = config or train_config()
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7.0) if parameter.requires_grad else None
    loss = loss or make_loss(config.loss)
    figures = backward(module, texts, labels, loss=loss, config=config, group=group)
    return figures, {name: p.grad for name, p in module.named_parameters()}


class Case(NamedTuple):
    counts: tuple[int, ...]
    config: Mapping[str, Any] = MappingProxyType({})
    frozen: str = "none"


INFO_NCE = {"loss": LossConfig(name="info-nce")}
CASES = {
    "even": Case((12, 12)),
    "uneven": Case((17, 7)),
    "one row": Case((1, 23)),
    "first is empty": Case((0, 24)),
    "last is empty": Case((24, 0)),
    "all empty": Case((0, 0)),
    "cached": Case((12, 12), {"cache_gradients": True}),
    "cached, uneven": Case((7, 17), {"cache_gradients": True}),
    "cached, empty": Case((24, 0), {"cache_gradients": True}),
    "one micro-batch": Case((13, 11), {"micro_tokens": 4096}),
    "a text each": Case((13, 11), {"micro_tokens": 32, "cache_gradients": True}),
    "info-nce": Case((13, 11), INFO_NCE),
    "frozen": Case((13, 11), frozen="words"),
    "frozen, empty": Case((0, 24), frozen="words"),
    "three": Case((8, 8, 8)),
    "three, uneven": Case((3, 14, 7)),
    "three, two empty": Case((0, 24, 0)),
    "three, cached": Case((11, 0, 13), {"cache_gradients": True}),
    "three, info-nce": Case((11, 6, 7), INFO_NCE),
}


class Small(torch.nn.Module):
    """Ids and mask -> unit vectors, without transformers, whose import takes seconds."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(100, 32)
        # a norm first, or an evaluated layer takes a path without gradients
        layer = torch.nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler = torch.nn.Linear(32, 32)

    def forward(self, input_ids, attention_mask):
        given = attention_mask.unsqueeze(-1).float()
        hidden = self.layers(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        return torch.nn.functional.normalize((hidden * given).sum(1) / given.sum(1))


def module_of(case):
    torch.manual_seed(0)
    module = Small()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(case.frozen not in name)
    return module


def work(rank, directory):
    """What a process does: its share of every case of its group, results to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{directory}/store",
        rank=rank,
        world_size=3,
        timeout=timedelta(seconds=60),
    )
    collectives._BUCKET = 3000  # several buckets, and gradients larger than one
    two = dist.new_group([0, 1])
    results = {}
    for name, case in CASES.items():
        if rank < len(case.counts):
            texts, labels = batch()
            first = sum(case.counts[:rank])
            own = slice(first, first + case.counts[rank])
            results[name] = step(
                module_of(case),
                texts[own],
                labels[own],
                config=train_config(**case.config),
                group=two if len(case.counts) == 2 else None,
            )
    torch.save(results, f"{directory}/{rank}.pt")
    dist.destroy_process_group()
