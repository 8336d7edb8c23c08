"""What the processes of a training exchange: rows of unequal numbers, and sums of gradients.

`group` None means all processes where torch.distributed is initialised. Where it is not, a process
is alone, and nothing is exchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

_BUCKET = 1 << 23
"""Elements of gradients that are summed at a time: 32 MiB in float32."""


def place(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """This process's rank in a group, and the number of processes; (0, 1) if alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def gather_numbers(
    numbers: Sequence[int], device: torch.device, group: dist.ProcessGroup | None = None
) -> list[list[int]]:
    """The numbers of every process, by rank. All give equally many."""
    _, world = place(group)
    if world == 1:
        return [list(numbers)]
    own = torch.tensor(numbers, dtype=torch.int64, device=device)
    each = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(each, own, group=group)
    gathered: list[list[int]] = torch.stack(each).tolist()
    return gathered


def gather_rows(
    rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup | None = None
) -> Tensor:
    """The rows [n, ...] of every process, by rank; `counts` says how many each of them has.

    The result is not linked to autograd's graph.
    """
    if len(counts) == 1:
        return rows.detach()
    # collectives want equal shapes
    own = rows.new_zeros(max(counts), *rows.shape[1:])
    own[: len(rows)] = rows.detach()
    each = [torch.empty_like(own) for _ in counts]
    dist.all_gather(each, own, group=group)
    return torch.cat([part[:count] for part, count in zip(each, counts, strict=True)])


def gather_dealt(rows: Tensor, total: int, group: dist.ProcessGroup | None = None) -> Tensor:
    """All `total` rows in order, of which process r of n has the rows r, r + n, r + 2 n and so on.

    The result is not linked to autograd's graph.
    """
    _, world = place(group)
    counts = [len(range(first, total, world)) for first in range(world)]
    gathered = gather_rows(rows, counts, group)
    whole = torch.empty_like(gathered)
    for first, part in enumerate(torch.split(gathered, counts)):
        whole[first::world] = part
    return whole


def sum_gradients(parameters: Iterable[Parameter], group: dist.ProcessGroup | None = None) -> None:
    """Replace the gradients by their sums over the processes, which have the same parameters.

    None counts as zeros where another process has a gradient, and stays None where none has: an
    optimiser decays the weight of the former, not of the latter, as it would in one process.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if place(group)[1] == 1 or not trained:
        return
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)
    used = used.to(trained[0].device)
    dist.all_reduce(used, dist.ReduceOp.MAX, group=group)
    for bucket in _buckets(p for p, some in zip(trained, used.tolist(), strict=True) if some):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat, group=group)
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(parameters: Iterable[Parameter]) -> Iterator[list[Tensor]]:
    """Gradients of one type and device, up to `_BUCKET` elements together."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        own = parameter.grad
        size = sum(gradient.numel() for gradient in bucket) + own.numel()
        alike = all((g.dtype, g.device) == (own.dtype, own.device) for g in bucket[:1])
        if bucket and (size > _BUCKET or not alike):
            yield bucket
            bucket = []
        bucket.append(own)
    if bucket:
        yield bucket
