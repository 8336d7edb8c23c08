"""Where a model lies, what its files say of its use, and its fingerprint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from bioelx_ray.artifacts import MANIFEST, open_artifact, sha256_file, sha256_json
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.embedded import EMBEDDED, embedded_directory
from bioelx_ray.retrieval.hub import download

Pooling = Literal["cls", "mean"]

SETTINGS = "encoder.json"
"""Our own file: a mapping of pooling, prefix and max_length."""

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
_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A Hugging Face directory and how it is to be used."""

    path: Path
    pooling: Pooling
    prefix: str
    max_length: int
    fingerprint: str


def locate(config: EncoderConfig) -> ModelFiles:
    """Find a model. What the configuration leaves open is read from the model's files.

    Raises:
        EncoderError: no such model, none with safetensors, or one that needs more than pooling.
        ArtifactCorrupt: the directory has a manifest, and its files differ from it.
    """
    path, settings = _found(config.model)
    if not any(path.glob(_WEIGHTS)):
        raise EncoderError(
            f"{path}: holds no {_WEIGHTS}; pickled weights (*.bin, *.pt) can run code and are not "
            "read: convert them with transformers' save_pretrained"
        )
    settings |= config.model_dump(include=set(_DEFAULTS), exclude_none=True)
    _check(path, settings)
    if (limit := _positions(path)) and settings["max_length"] > limit:
        raise EncoderError(
            f"{path}: max_length {settings['max_length']} is more than the model's {limit}"
        )
    fingerprint = f"sha256:{sha256_json([_digests(path), settings, 'unit length'])}"
    return ModelFiles(path=path, fingerprint=fingerprint, **settings)


def _check(path: Path, settings: dict[str, Any]) -> None:
    try:
        EncoderConfig.model_validate(settings)
    except ValidationError as error:
        expected = "expected pooling cls or mean, a prefix and a max_length from 8 to 8192"
        raise EncoderError(f"{path}: its files ask for {settings}; {expected}") from error


def _found(model: str) -> tuple[Path, dict[str, Any]]:
    if model == EMBEDDED:
        path, settings = embedded_directory()
        return path, _DEFAULTS | settings
    path = Path(model).expanduser()
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "~")):
            raise EncoderError(f"{model}: no such directory; expected a Hugging Face model in it")
        path = download(model)
    return path, _DEFAULTS | _sentence_transformers(path) | _json(path / SETTINGS)


def _sentence_transformers(path: Path) -> dict[str, Any]:
    """Settings as sentence-transformers writes them."""
    modules = cast("list[dict[str, str]]", _json(path / "modules.json") or [])
    types = [module["type"].rpartition(".")[2] for module in modules]
    if unknown := set(types) - _MODULES:
        raise EncoderError(
            f"{path}: its modules.json asks for {', '.join(sorted(unknown))}; "
            f"only {', '.join(sorted(_MODULES))} can be run"
        )
    settings: dict[str, Any] = {}
    if pooling := _json(path / "1_Pooling" / "config.json"):
        settings["pooling"] = _pooling(path, pooling)
    prompts = _json(path / "config_sentence_transformers.json")
    name = prompts.get("default_prompt_name") or "query"
    if prompt := prompts.get("prompts", {}).get(name):
        settings["prefix"] = prompt
    if length := _json(path / "sentence_bert_config.json").get("max_seq_length"):
        settings["max_length"] = length
    return settings


def _pooling(path: Path, pooling: dict[str, Any]) -> Pooling:
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    modes = [
        name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True
    ]
    mode = pooling.get("pooling_mode") or "+".join(flags.get(name, name) for name in modes)
    if mode not in {"cls", "mean"}:
        raise EncoderError(f"{path}: pools by {mode or 'nothing'}; expected cls or mean")
    return cast("Pooling", mode)


def _positions(path: Path) -> int | None:
    """How many tokens the model can read, None if there is no bound."""
    config = _json(path / "config.json")
    if not config:
        raise EncoderError(f"{path}: holds no config.json; expected a Hugging Face model")
    positions: int | None = config.get("max_position_embeddings")
    if positions and "roberta" in config.get("model_type", ""):
        positions -= int(config.get("pad_token_id", 1)) + 1  # RoBERTa counts from behind padding
    return positions


def _json(path: Path) -> dict[str, Any]:
    """A file's content, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        return cast("dict[str, Any]", json.loads(path.read_bytes()))
    except ValueError as error:
        raise EncoderError(f"{path}: cannot be read as JSON ({error})") from error


def _digests(path: Path) -> dict[str, str]:
    """SHA-256 of the decisive files, by name."""
    names = sorted({p.name for pattern in (_WEIGHTS, *_DECISIVE) for p in path.glob(pattern)})
    if (path / MANIFEST).is_file():
        files = open_artifact(path, "encoder").manifest.files
        return {name: files[name].sha256 for name in names if name in files}
    return {name: sha256_file(path / name) for name in names}
