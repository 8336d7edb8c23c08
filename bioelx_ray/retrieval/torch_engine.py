"""The encoder in torch: fp32 on a CPU, half precision on a CUDA device."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bioelx_ray.retrieval.batched import Forward, Vectors


class Pooled(torch.nn.Module):
    """A transformer whose output is one unit vector a text.

    `head`, if there is one, maps what was pooled before it is brought to unit length.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        pooling: Literal["cls", "mean"],
        head: torch.nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.head = head

    @property
    def width(self) -> int:
        """Length of a token's vector in the transformer's last layer."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def dim(self) -> int:
        """Length of a text's vector."""
        return self.head.out_features if self.head is not None else self.width

    def set_dropout(self, share: float) -> None:
        """Of each layer's values so many, from 0 to below 1, are dropped in training."""
        for part in self.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = share
            elif "attention_dropout" in vars(part):  # a number that a model hands to the kernel
                vars(part)["attention_dropout"] = share

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Int64 [batch, length], padded on the right -> float32 [batch, dim]."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state.float()
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        if self.head is not None:
            pooled = self.head(pooled).float()
        return torch.nn.functional.normalize(pooled, dim=-1)


def torch_forward(module: Pooled, *, threads: int = 0, device: str | None = None) -> Forward:
    """Run a module on a device; by default the first CUDA device, or the CPU if there is none.

    On a CPU a text's vector depends on its batch by about 1e-7. On CUDA, where half precision and
    the kernel chosen for a shape come in, by about 1e-3.

    `threads`, unless it is 0, holds for all of the process's work in torch.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = place.type == "cuda"
    half = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.half
    if threads:
        torch.set_num_threads(threads)
    module.to(place)

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        given = [torch.from_numpy(array).to(place) for array in (ids, mask)]
        autocast = torch.autocast(place.type, dtype=half, enabled=on_gpu)
        with torch.inference_mode(), autocast:
            vectors: Vectors = module(*given).float().cpu().numpy()
        return vectors

    return forward
