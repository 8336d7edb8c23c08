"""Adapters: what is trained of a model, and how it is kept in a few MB.

An adapter's file holds for a parameter P either its new values, under its name, or ``P.lora_a``
[rank, columns] and ``P.lora_b`` [rows, rank], whose product b a is added to it. Matrices have half
precision, vectors single: the embeddings of multilingual-e5-small lose 2e-7 of a cosine by it with
low rank or a head, 4e-6 with whole matrices. Applied, an adapter is part of the weights: every
engine runs it at no cost.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Linear, Module, ModuleList, Parameter

from bioelx_ray.artifacts import Artifact, Manifest, Source, code_version, publish
from bioelx_ray.config import AdapterConfig
from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, ConfigError, EncoderError
from bioelx_ray.retrieval.heads import linear
from bioelx_ray.retrieval.model_files import ADAPTER_WEIGHTS, ModelFiles, open_adapter
from bioelx_ray.retrieval.torch_engine import Pooled

A, B = ".lora_a", ".lora_b"
_HEAD = "head.weight"


class LowRank(Linear):
    """A linear layer W x that computes (W + scale B A) x: LoRA (arXiv 2106.09685).

    W and its bias keep their names. B is 0 at first, A random as a linear layer's weights are.
    """

    def __init__(
        self, layer: Linear, *, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = scale
        bound = 1 / math.sqrt(layer.in_features)
        a = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_a = Parameter(a.to(layer.weight.device))
        self.lora_b = Parameter(layer.weight.new_zeros(layer.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        whole = super().forward(input)
        low = torch.nn.functional.linear(input, self.lora_a).flatten(0, -2)
        # adds in place of the product: a tenth of a step's time on a CPU
        added = torch.addmm(whole.flatten(0, -2), low, self.lora_b.T, alpha=self.scale)
        return added.view(whole.shape)

    def merged(self) -> Tensor:
        """W + scale B A."""
        return self.weight.detach() + self.scale * (self.lora_b @ self.lora_a).detach()


def prepare(
    module: Pooled, config: AdapterConfig, *, on_gpu: bool, seed: int = 0
) -> list[Parameter]:
    """Make trainable what the configuration names, freeze the rest. Changes `module`.

    Its vectors stay the same until something is trained. Equal seeds give equal weights.

    Returns:
        The parameters to train, in the module's order.

    Raises:
        ConfigError: more layers than the model has, or settings that exclude each other.
        EncoderError: the model has no layers that can be told apart, or none that is linear.
    """
    module.requires_grad_(False)
    if config.kind == "head":
        if module.head is None:
            identity = torch.eye(module.width, device=next(module.parameters()).device)
            module.head = linear(identity)
        module.head.requires_grad_(True)
    elif config.kind == "lora":
        _add_low_rank(module, config, torch.Generator().manual_seed(seed))
    else:
        _unfreeze(module, config, on_gpu=on_gpu)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _add_low_rank(module: Pooled, config: AdapterConfig, generator: torch.Generator) -> None:
    found = False
    for part in _parts(module, config.layers):
        layers = {name: m for name, m in part.named_modules() if isinstance(m, Linear)}
        for name, layer in layers.items():
            if "pooler" not in name:
                new = LowRank(layer, rank=config.rank, scale=config.scale, generator=generator)
                part.set_submodule(name, new)
                found = True
    if not found:
        raise EncoderError(
            "the model has no linear layers to add low-rank updates to: train the head, or all"
        )


def _unfreeze(module: Pooled, config: AdapterConfig, *, on_gpu: bool) -> None:
    if config.layers and config.freeze_embeddings is False:
        raise ConfigError(
            "freeze_embeddings false with layers above 0: the embeddings lie below all layers"
        )
    for part in _parts(module, config.layers):
        for name, parameter in part.named_parameters():
            # nothing depends on the pooler
            parameter.requires_grad_("pooler" not in name)
    frozen = not on_gpu if config.freeze_embeddings is None else config.freeze_embeddings
    if frozen:
        module.model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]


def _parts(module: Pooled, layers: int) -> list[Module]:
    """The uppermost layers; the whole transformer for 0."""
    if not layers:
        return [module.model]
    total = int(module.model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    if layers > total:
        raise ConfigError(f"{layers} layers are to be trained; the model has {total}")
    for stack in module.model.modules():
        if isinstance(stack, ModuleList) and len(stack) == total:
            return list(stack)[-layers:]
    raise EncoderError(f"the model has no list of {total} layers: train all of it (layers 0)")


def trained_state(module: Pooled) -> dict[str, Tensor]:
    """The tensors that are trained, by their names in the module's state."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def folded(module: Pooled) -> Pooled:
    """A copy whose low-rank updates are part of the weights, for inference."""
    made = copy.deepcopy(module)
    layers = {name: m for name, m in made.named_modules() if isinstance(m, LowRank)}
    for name, layer in layers.items():
        made.set_submodule(name, linear(layer.merged(), layer.bias))
    return made.eval().requires_grad_(False)


def adapter_tensors(module: Pooled) -> dict[str, Tensor]:
    """What is trained in the form of an adapter's file (see above), in single precision."""
    scales = {name: m.scale for name, m in module.named_modules() if isinstance(m, LowRank)}
    tensors: dict[str, Tensor] = {}
    for name, tensor in trained_state(module).items():
        layer, _, kind = name.rpartition(".")
        if f".{kind}" in {A, B}:
            factor = scales[layer] if f".{kind}" == B else 1.0
            tensors[f"{layer}.weight.{kind}"] = tensor.float() * factor
        else:
            tensors[name] = tensor.float()
    return tensors


def save_adapter(
    target: Path,
    tensors: Mapping[str, Tensor],
    *,
    base: ModelFiles,
    training: Mapping[str, Any],
    figures: Mapping[str, Any],
    sources: list[Source],
) -> Artifact:
    """Publish an adapter (`adapter_tensors` or `low_rank.compress`) of the model `base`.

    `training` and `figures` go to the manifest as they are.

    Raises:
        EncoderError: nothing was trained, a value is not finite in half precision, or `base` has an
            adapter already, on which no second one can be put.
    """
    if base.adapter:
        raise EncoderError(
            f"{base.path} was trained with the adapter {base.adapter} in place: start with "
            "adapter none, compress the difference to the model without it, or write a directory"
        )
    packed = {name: _packed(name, tensor) for name, tensor in tensors.items()}
    if not packed:
        raise EncoderError(f"{target}: nothing was trained")
    settings = {"pooling": base.pooling, "prefix": base.prefix, "max_length": base.max_length}
    manifest = Manifest(
        kind="adapter",
        code_version=code_version(),
        config={**settings, "training": dict(training)},
        inputs={"base": base.base},
        counts={"parameters": sum(t.numel() for t in packed.values()), **figures},
        sources=sources,
    )
    with publish(target, manifest) as draft:
        save_file(packed, draft / ADAPTER_WEIGHTS)
        (draft / ADAPTER_WEIGHTS).chmod(0o644)  # safetensors lets only the owner read it
    return Artifact(path=target, manifest=manifest)


def _packed(name: str, tensor: Tensor) -> Tensor:
    packed = tensor.detach().cpu().to(torch.half if tensor.ndim > 1 else torch.float)
    if not packed.isfinite().all():
        raise EncoderError(f"{name} has values that are not finite in {packed.dtype}")
    return packed.contiguous()


def load_adapter(path: Path, module: Pooled, *, base: str) -> None:
    """Add an adapter to the weights of its untouched model; `base` is `ModelFiles.base`.

    Raises:
        ArtifactError: none is there, it is damaged, or it does not fit the model.
    """
    file = open_adapter(path, base).file(ADAPTER_WEIGHTS)
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ArtifactCorrupt(f"{file}: cannot be read as safetensors ({error})") from error
    apply_adapter(module, tensors, name=str(path))


@torch.no_grad()
def apply_adapter(module: Pooled, tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Add the tensors of an adapter's file to a module's weights. `name` is for messages.

    Raises:
        ArtifactMismatch: the module has no such parameters, or of another shape; it is as it was.
    """
    parameters: dict[str, Tensor] = dict(module.named_parameters())
    head = module.head
    if _HEAD in tensors and head is None:
        head = linear(torch.eye(module.width, device=next(module.parameters()).device))
        parameters[_HEAD] = head.weight
    changes = list(_changes(tensors, parameters, name=name))
    for parameter, value in changes:
        parameter.copy_(value)
    module.head = head


def _changes(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], *, name: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters and their new values."""
    for key in sorted({key.removesuffix(A).removesuffix(B) for key in tensors}):
        parameter = parameters.get(key)
        if parameter is None:
            raise ArtifactMismatch(f"{name} changes {key}, which the model does not have")
        given = [tensors.get(key), tensors.get(key + A), tensors.get(key + B)]
        if not _fits(given, parameter):
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in given]
            raise ArtifactMismatch(
                f"{name} gives for {key} itself, {A} and {B} tensors of the shapes {shapes}; the "
                f"model's has {tuple(parameter.shape)}"
            )
        value, a, b = (None if tensor is None else tensor.to(parameter) for tensor in given)
        if a is not None and b is not None:
            yield parameter, parameter + b @ a
        elif value is not None:
            yield parameter, value


def _fits(given: list[Tensor | None], parameter: Tensor) -> bool:
    """Either a whole value of the parameter's shape or two factors of it, and nothing else."""
    shapes = [None if tensor is None else tensor.shape for tensor in given]
    match shapes:
        case [whole, None, None] if whole:
            return whole == parameter.shape
        case [None, a, b] if a and b and len(a) == len(b) == 2:
            return a[0] == b[1] and (b[0], a[1]) == parameter.shape
    return False
