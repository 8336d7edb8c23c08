"""Where a model and its adapter lie, what their files say of their use, and their fingerprint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bioelx_ray.artifacts import MANIFEST, Artifact, Source, open_artifact, sha256_file, sha256_json
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import ArtifactMismatch, EncoderError
from bioelx_ray.retrieval.embedded import EMBEDDED, embedded_directory, packaged_adapter
from bioelx_ray.retrieval.hub import download
from bioelx_ray.retrieval.model_settings import (
    DENSE_CONFIG,
    DENSE_WEIGHTS,
    Pooling,
    head_directory,
    positions,
    read_settings,
)

ADAPTER_WEIGHTS = "adapter.safetensors"
NO_ADAPTER = "none"

_DEFAULTS = {"pooling": "cls", "prefix": "", "max_length": 64}  # SapBERT's
_WEIGHTS = "*.safetensors"
# what decides over a vector, besides the weights
_DECISIVE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A Hugging Face directory and how it is to be used.

    `head` is the directory of a linear map behind pooling. `base` names the content of the model's
    files alone, `fingerprint` all that decides over a vector: files, adapter and settings.
    """

    path: Path
    head: Path | None
    adapter: Path | None
    pooling: Pooling
    prefix: str
    max_length: int
    base: str
    fingerprint: str


def locate(config: EncoderConfig) -> ModelFiles:
    """Find a model. What the configuration leaves open is read from the model's files.

    Raises:
        EncoderError: no such model, none with safetensors, or one that needs more than pooling and
            a linear map.
        ArtifactCorrupt: a directory has a manifest, and its files differ from it.
        ArtifactNotFound: no adapter where the configuration names one.
        ArtifactMismatch: the adapter was trained for another model.
    """
    path, settings = _found(config.model)
    if not any(path.glob(_WEIGHTS)):
        raise EncoderError(
            f"{path}: holds no {_WEIGHTS}; pickled weights (*.bin, *.pt) can run code and are not "
            "read: convert them with transformers' save_pretrained"
        )
    head = head_directory(path)
    digests = _digests(path, head)
    base = f"sha256:{sha256_json(digests)}"
    if adapter := _adapter(config, base):
        settings |= {name: adapter.manifest.config[name] for name in _DEFAULTS}
        digests["adapter"] = adapter.manifest.files[ADAPTER_WEIGHTS].sha256
    settings |= config.model_dump(include=set(_DEFAULTS), exclude_none=True)
    _check(path, settings)
    # the adapter by its own checksum: what it adds up to differs in the last bit between machines
    fingerprint = f"sha256:{sha256_json([digests, settings, 'unit length'])}"
    return ModelFiles(
        path=path,
        head=head,
        adapter=adapter.path if adapter else None,
        base=base,
        fingerprint=fingerprint,
        **settings,
    )


def open_adapter(path: Path, base: str) -> Artifact:
    """Open an adapter that was trained for the model `base` (see `ModelFiles`).

    Raises:
        ArtifactError: none is there, it is damaged, or it was trained for another model.
    """
    artifact = open_artifact(path, "adapter")
    trained = artifact.manifest.inputs.get("base", "")
    if trained != base:
        raise ArtifactMismatch(
            f"{path} was trained for the model {trained[:19]}…, not for this one ({base[:19]}…): "
            "name that model, or none as the adapter"
        )
    artifact.file(ADAPTER_WEIGHTS)
    return artifact


def sources_of(files: ModelFiles) -> list[Source]:
    """What a model and its adapter were made from, as far as their manifests say."""
    known = (files.path / MANIFEST).is_file()
    sources = open_artifact(files.path, "encoder").manifest.sources if known else []
    if files.adapter:
        sources = sources + open_artifact(files.adapter, "adapter").manifest.sources
    return sources


def tokenizer_files(path: Path) -> list[Path]:
    """The files of a Hugging Face directory from which its tokenizer is made."""
    names = {name for name in _names(path, _DECISIVE) if name != "config.json"}
    return [path / name for name in sorted(names)]


def _check(path: Path, settings: dict[str, Any]) -> None:
    try:
        EncoderConfig.model_validate(settings)
    except ValidationError as error:
        expected = "expected pooling cls or mean, a prefix and a max_length from 8 to 8192"
        raise EncoderError(f"{path}: its files ask for {settings}; {expected}") from error
    if (limit := positions(path)) and settings["max_length"] > limit:
        raise EncoderError(
            f"{path}: max_length {settings['max_length']} is more than the model's {limit}"
        )


def _found(model: str) -> tuple[Path, dict[str, Any]]:
    if model == EMBEDDED:
        path, settings = embedded_directory()
        return path, _DEFAULTS | settings
    path = Path(model).expanduser()
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "~")):
            raise EncoderError(f"{model}: no such directory; expected a Hugging Face model in it")
        path = download(model)
    return path, _DEFAULTS | read_settings(path)


def _adapter(config: EncoderConfig, base: str) -> Artifact | None:
    if config.adapter == NO_ADAPTER:
        return None
    if config.adapter:
        return open_adapter(Path(config.adapter).expanduser(), base)
    packaged = packaged_adapter() if config.model == EMBEDDED else None
    if not packaged:
        return None
    try:
        return open_adapter(packaged, base)
    except ArtifactMismatch as error:  # the hub's weights, where the packages are not installed
        _log.warning("the embedded encoder goes without its adapter: %s", error)
        return None


def _digests(path: Path, head: Path | None) -> dict[str, str]:
    """SHA-256 of the decisive files, by name."""
    names = _names(path, (_WEIGHTS, *_DECISIVE))
    if head:
        place = head.relative_to(path).as_posix()
        names += [f"{place}/{file}" for file in (DENSE_CONFIG, DENSE_WEIGHTS)]
    if (path / MANIFEST).is_file():
        files = open_artifact(path, "encoder").manifest.files
        return {name: files[name].sha256 for name in names if name in files}
    return {name: sha256_file(path / name) for name in names}


def _names(path: Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted({found.name for pattern in patterns for found in path.glob(pattern)})
