"""Texts embedded by several processes together: for evaluations in the midst of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed import ProcessGroup

from bioelx_ray.retrieval.collectives import gather_dealt, place

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
        vectors: NDArray[np.float32] = gather_dealt(own, len(texts), group).cpu().numpy()
        return vectors

    return shared
