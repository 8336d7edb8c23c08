"""Texts embedded by several processes together: for evaluations in the midst of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed import ProcessGroup

from bioelx_ray.retrieval.collectives import gather_rows, place

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""See `encoder.Encoder.encode`."""


def together(encode: Encode, *, device: torch.device, group: ProcessGroup | None = None) -> Encode:
    """`encode`, of which every process does a part; all call it with the same texts, and get all.

    Args:
        encode: what one process does.
        device: where the vectors are exchanged: NCCL wants the process's CUDA device.
        group: by default all processes where torch.distributed is initialised.
    """
    rank, world = place(group)
    if world == 1:
        return encode

    def shared(texts: Sequence[str]) -> NDArray[np.float32]:
        own = torch.from_numpy(encode(texts[rank::world])).to(device)
        counts = [len(range(first, len(texts), world)) for first in range(world)]
        dealt = gather_rows(own, counts, group).cpu().numpy()
        vectors = np.empty_like(dealt)
        begin = 0
        for first, count in enumerate(counts):
            vectors[first::world] = dealt[begin : begin + count]
            begin += count
        return vectors

    return shared
