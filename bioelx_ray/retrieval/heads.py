"""The linear map behind pooling, as sentence-transformers keeps it (its module Dense)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.model_settings import DENSE_CONFIG, DENSE_WEIGHTS, IDENTITY

_WEIGHT, _BIAS = "linear.weight", "linear.bias"


def load_head(directory: Path, *, width: int) -> torch.nn.Linear:
    """The map of a Dense directory, in fp32, for vectors of length `width`.

    Raises:
        EncoderError: the file is no safetensors, or holds no map from this width.
    """
    file = directory / DENSE_WEIGHTS
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{file}: cannot be read as safetensors ({error})") from error
    weight, bias = tensors.get(_WEIGHT), tensors.get(_BIAS)
    if weight is None or weight.ndim != 2 or weight.shape[1] != width:
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise EncoderError(f"{file}: holds {found}; expected a {_WEIGHT} [dim, {width}]")
    return linear(weight, bias)


def save_head(head: torch.nn.Linear, directory: Path) -> None:
    """Write a Dense directory."""
    directory.mkdir()
    content = {
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": head.bias is not None,
        "activation_function": IDENTITY,
    }
    text = json.dumps(content, indent=2) + "\n"
    (directory / DENSE_CONFIG).write_text(text, encoding="utf-8")
    tensors = {f"linear.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file(
        {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()},
        directory / DENSE_WEIGHTS,
    )
    (directory / DENSE_WEIGHTS).chmod(0o644)  # safetensors lets only the owner read it


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Linear:
    """The layer of a weight [out, in] and a bias [out], in fp32."""
    rows, columns = weight.shape
    made = torch.nn.Linear(columns, rows, bias=bias is not None, device="meta")
    made.weight = torch.nn.Parameter(weight.float())
    if bias is not None:
        made.bias = torch.nn.Parameter(bias.float())
    return made
