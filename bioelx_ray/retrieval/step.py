"""One step's gradient: a batch of texts, over any number of processes, as if it were one.

The loss compares every text of a batch with every other one, whichever process holds it. So each
process embeds its own texts, gathers the embeddings of all, computes the loss of the joint batch
and its gradient by the embeddings, keeps the rows that are its own and takes them back through its
transformer. Summed over the processes, that is the gradient of a single process with the whole
batch: no average, no approximation, and no need of equal shares.

The texts of a process are sorted by length into micro-batches. Their graphs are kept until the
gradient by the embeddings is there. With `cache_gradients` they are not, and the texts are embedded
a second time, under the same dropout, one micro-batch's activations being held at a time (Gao et
al. 2021, arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module, Parameter

from bioelx_ray.config import TrainConfig
from bioelx_ray.retrieval.batched import pack, padded
from bioelx_ray.retrieval.loss import Loss

_BUCKET = 1 << 23
"""Elements of gradients that are summed over the processes at a time: 32 MiB in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """The loss, and what was embedded, in all processes together.

    `padded_tokens` are those that the transformer was given, `tokens` those of the texts.
    """

    loss: float
    texts: int
    tokens: int
    padded_tokens: int


def backward(
    module: Module,
    texts: Sequence[NDArray[np.integer]],
    labels: Sequence[int] | NDArray[np.integer],
    *,
    loss: Loss,
    config: TrainConfig,
    group: dist.ProcessGroup | None = None,
) -> StepFigures:
    """Set the gradients of a module's parameters to those of the joint batch's loss.

    What gradients there were is dropped. A parameter that no text of any process reaches has None.
    Under dropout the processes should have different seeds.

    For fp16 give `loss` scaled, ``lambda e, y: scaler.scale(loss(e, y))``: the gradients and the
    figure then are scaled, too.

    Args:
        module: int64 ids and mask [n, length] -> embeddings [n, dim], as `torch_engine.Pooled`.
        texts: the token ids of this process's texts. It may have none.
        labels: their concepts' numbers.
        loss: of the joint embeddings, in any order.
        config: `micro_tokens`, `cache_gradients` and `precision` count here.
        group: the processes, all of which call this; by default all where torch.distributed is
            initialised, and otherwise this one alone.
    """
    module.zero_grad(set_to_none=True)
    batches = _micro_batches(texts, _device(module), micro_tokens=config.micro_tokens)
    ...
