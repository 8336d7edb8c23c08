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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from bioelx_ray.config import TrainConfig
from bioelx_ray.retrieval.batched import pack, padded
from bioelx_ray.retrieval.collectives import gather_numbers, gather_rows, place, sum_gradients
from bioelx_ray.retrieval.loss import Loss

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.half}


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
    group: ProcessGroup | None = None,
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
    device = next(module.parameters()).device
    batches = list(_micro_batches(texts, labels, micro_tokens=config.micro_tokens, device=device))
    outputs = _embed(module, batches, config=config, device=device)
    shares = gather_numbers(_share(batches, outputs), device, group)
    counts, tokens, padded_tokens, dims = zip(*shares, strict=True)
    value, gradient = _joint_loss(
        torch.cat([torch.zeros(0, max(dims), device=device), *(o.detach() for o in outputs)]),
        torch.cat([torch.zeros(0, dtype=torch.int64, device=device), *(b.labels for b in batches)]),
        loss=loss,
        counts=counts,
        group=group,
    )
    pieces = torch.split(gradient, [len(batch.ids) for batch in batches])
    if config.cache_gradients:
        for batch, piece in zip(batches, pieces, strict=True):
            _forward(module, batch, config).backward(piece)  # type: ignore[no-untyped-call]
    elif outputs:
        torch.autograd.backward(outputs, pieces)
    sum_gradients(module.parameters(), group)
    return StepFigures(
        loss=value.item(),
        texts=sum(counts),
        tokens=sum(tokens),
        padded_tokens=sum(padded_tokens),
    )


@torch.no_grad()
def embed_all(module: Module, texts: Sequence[NDArray[np.integer]], config: TrainConfig) -> Tensor:
    """The embeddings of one text or more, float16 [texts, dim] on the module's device.

    Without dropout; the module is left in the mode that it was in.
    """
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    batches = _micro_batches(
        texts, range(len(texts)), micro_tokens=config.micro_tokens, device=device
    )
    places, vectors = zip(
        *((batch.labels, _forward(module, batch, config).half()) for batch in batches), strict=True
    )
    module.train(training)
    return torch.cat(vectors)[torch.argsort(torch.cat(places))]


def precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What a module computes in on a device.

    `auto` is bf16 where the device computes in it, else fp16 on CUDA and fp32 on a CPU.
    """
    if config.precision != "auto":
        return _PRECISIONS[config.precision]
    # emulated, bf16 is slower than fp32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.half
    native = torch.cpu.get_capabilities()
    has_bf16 = native.get("avx512_bf16") or native.get("amx_bf16")
    return torch.bfloat16 if has_bf16 else torch.float32


class _MicroBatch(NamedTuple):
    """Ids and mask int64 [n, longest], labels int64 [n], and the number of the texts' tokens."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    tokens: int


def _micro_batches(
    texts: Sequence[NDArray[np.integer]],
    labels: Sequence[int] | NDArray[np.integer],
    *,
    micro_tokens: int,
    device: torch.device,
) -> Iterator[_MicroBatch]:
    for rows in pack([len(text) for text in texts], micro_tokens):
        # 0 is an id of every vocabulary; which one it is matters not, the mask hides it
        ids, mask = padded([texts[row] for row in rows], 0)  # type: ignore[misc]
        own = np.array([labels[row] for row in rows], dtype=np.int64)
        given = [torch.from_numpy(array).to(device) for array in (ids, mask, own)]
        yield _MicroBatch(given[0], given[1], given[2], int(mask.sum()))


def _embed(
    module: Module, batches: Sequence[_MicroBatch], *, config: TrainConfig, device: torch.device
) -> list[Tensor]:
    """The embeddings [n, dim] of each micro-batch, with their graphs unless gradients are cached.

    Then the random state is put back, for the second pass to draw the same dropout.
    """
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices, enabled=config.cache_gradients),
        torch.set_grad_enabled(not config.cache_gradients),
    ):
        return [_forward(module, batch, config) for batch in batches]


def _forward(module: Module, batch: _MicroBatch, config: TrainConfig) -> Tensor:
    # A cast for each micro-batch: autograd would sum their gradients in the precision of a shared
    # one, and under a cache made without gradients there would be none.
    device = batch.ids.device
    half = precision(config, device)
    with (
        torch.autocast(device.type, dtype=half, enabled=half != torch.float32),
        _attention(device),
    ):
        embeddings: Tensor = module(batch.ids, batch.mask)
    return embeddings


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """How attention is computed: on a CPU plainly, on CUDA as torch chooses.

    On a CPU the blocks of the fused kernel are far longer than an alias: its backward pass makes a
    whole step 1.5 times as long.
    """
    plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return nullcontext() if device.type == "cuda" else plain


def _share(batches: Sequence[_MicroBatch], outputs: Sequence[Tensor]) -> list[int]:
    """Of this process: texts, their tokens, these with padding, and the dimension, 0 if unknown."""
    return [
        sum(len(batch.ids) for batch in batches),
        sum(batch.tokens for batch in batches),
        sum(batch.ids.numel() for batch in batches),
        outputs[0].shape[1] if outputs else 0,
    ]


def _joint_loss(
    own: Tensor,
    labels: Tensor,
    *,
    loss: Loss,
    counts: Sequence[int],
    group: ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """The loss over the embeddings of all processes, and its gradient by this one's."""
    joint = gather_rows(own, counts, group).requires_grad_()
    value = loss(joint, gather_rows(labels, counts, group))
    (gradient,) = torch.autograd.grad(value, joint)
    first = sum(counts[: place(group)[0]])
    return value.detach(), gradient[first : first + len(own)]
