"""STAGE 1's encoder: texts -> unit vectors.

A model is a Hugging Face directory, a hub name or ``embedded``; it runs in torch or, quantised to
8 bits, in onnxruntime. Both engines of a model share its fingerprint: an index that one of them
built may be searched with the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import EncoderError
from bioelx_ray.quiet import quiet_transformers
from bioelx_ray.retrieval.batched import BatchedEncoder, Tokens
from bioelx_ray.retrieval.model_files import ModelFiles, locate

if TYPE_CHECKING:
    from torch.nn import Module

    from bioelx_ray.retrieval.torch_engine import Pooled

_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Texts to unit vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the model and how texts are given to it, whatever runs it and where."""
        ...

    @property
    def engine(self) -> str:
        """What runs the model."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 [n, dim] in the order of the texts; [0, dim] for none.

        Raises:
            EncoderError: the model gives no finite vectors.
        """
        ...


def open_encoder(config: EncoderConfig) -> Encoder:
    """Open a model with an engine.

    `auto` takes onnx-int8 where the extra ``onnx`` is installed and there is no CUDA device, and
    torch otherwise, or if the quantised model cannot be made or is too inexact.

    Raises:
        EncoderError: there is no such model, it cannot be used, or not with the wanted engine.
        ArtifactCorrupt: the model's directory has a manifest, and its files differ from it.
        ArtifactError: the adapter is missing, damaged, or was trained for another model.
    """
    files = locate(config)
    if config.engine == "torch" or (config.engine == "auto" and not _prefers_onnx()):
        return _torch_encoder(files, config)
    try:
        return _onnx_encoder(files, config)
    except EncoderError as error:
        if config.engine != "auto":
            raise
        _log.warning("engine torch instead of onnx-int8: %s", error)
        return _torch_encoder(files, config)


def _prefers_onnx() -> bool:
    import torch

    from bioelx_ray.retrieval.onnx_engine import missing_packages

    return not missing_packages() and not torch.cuda.is_available()


def _torch_encoder(files: ModelFiles, config: EncoderConfig) -> Encoder:
    from bioelx_ray.retrieval.torch_engine import torch_forward

    module = load_pooled(files)
    return BatchedEncoder(
        tokens=load_tokens(files.path, max_length=files.max_length),
        forward=torch_forward(module, threads=config.threads),
        dim=module.dim,
        fingerprint=files.fingerprint,
        engine="torch",
        prefix=files.prefix,
        batch_tokens=config.batch_tokens,
    )


def _onnx_encoder(files: ModelFiles, config: EncoderConfig) -> Encoder:
    from bioelx_ray.retrieval.onnx_engine import open_onnx

    return open_onnx(
        files,
        model=partial(load_pooled, files),
        tokens=partial(load_tokens, files.path, max_length=files.max_length),
        config=config,
    )


def load_pooled(files: ModelFiles) -> Pooled:
    """A model with its head and its adapter, in fp32, for inference.

    Raises:
        EncoderError: transformers cannot load the model, or its head does not fit it.
        ArtifactError: the adapter is damaged or does not fit the model.
    """
    from bioelx_ray.retrieval.adapter import load_adapter
    from bioelx_ray.retrieval.heads import load_head
    from bioelx_ray.retrieval.torch_engine import Pooled

    module = Pooled(load_model(files.path), pooling=files.pooling)
    if files.head:
        module.head = load_head(files.head, width=module.width)
    if files.adapter:
        load_adapter(files.adapter, module, base=files.base)
    return module.eval()


def load_model(directory: Path) -> Module:
    """The transformer of a Hugging Face directory, in fp32, for inference.

    Raises:
        EncoderError: transformers cannot load it, or the directory lacks some of its weights.
    """
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                directory,
                dtype="float32",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EncoderError(f"{directory}: transformers cannot load the model ({error})") from error
    # a pooler that the checkpoint lacks is not used; anything else would be random numbers
    if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise EncoderError(
            f"{directory}: its weights lack {len(missing)} tensors of the model that config.json "
            f"describes, such as {missing[0]}: take another checkpoint"
        )
    loaded: Module = model.eval()
    return loaded


def save_model(model: Module, directory: Path, *, pooler: bool) -> None:
    """Write a transformer's config.json and safetensors, with or without its pooler's weights."""
    state = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if pooler or "pooler" not in name
    }
    with quiet_transformers():
        model.save_pretrained(directory, state_dict=state)  # type: ignore[operator]
    for file in directory.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors lets only the owner read it


def load_tokens(directory: Path, *, max_length: int) -> Tokens:
    """The tokenizer of a Hugging Face directory.

    Raises:
        EncoderError: there is none, or transformers has no fast one for the model.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        backend = tokenizer.backend_tokenizer
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, ImportError) as error:
        raise EncoderError(
            f"{directory}: transformers finds no fast tokenizer ({error})"
        ) from error
    pad = tokenizer.pad_token_id
    return Tokens(backend, pad_id=0 if pad is None else int(pad), max_length=max_length)
