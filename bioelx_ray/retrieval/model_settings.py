"""What a model's own files say of its use: ours, and those of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

from bioelx_ray.errors import EncoderError

Pooling = Literal["cls", "mean"]

SETTINGS = "encoder.json"
"""Our own file: a mapping of pooling, prefix and max_length."""

DENSE = "2_Dense"
DENSE_CONFIG, DENSE_WEIGHTS = "config.json", "model.safetensors"
IDENTITY = "torch.nn.modules.linear.Identity"

_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")


def read_settings(path: Path) -> dict[str, Any]:
    """Those of pooling, prefix and max_length that a Hugging Face directory gives.

    Raises:
        EncoderError: it pools otherwise than by cls or mean, or a file is no JSON.
    """
    return _sentence_transformers(path) | read_json(path / SETTINGS)


def head_directory(path: Path) -> Path | None:
    """The directory of the linear map between pooling and unit length, None if there is none.

    Raises:
        EncoderError: the model asks for modules that we cannot run, or not in their order.
    """
    modules = cast("list[dict[str, str]]", read_json(path / "modules.json") or [])
    types = [module["type"].rpartition(".")[2] for module in modules]
    if types != [name for name in _ORDER if name in types]:
        raise EncoderError(
            f"{path}: its modules.json asks for {', '.join(types)}; only {', '.join(_ORDER)}, in "
            "this order and each once at most, can be run"
        )
    if "Dense" not in types:
        return None
    directory = path / Path(modules[types.index("Dense")].get("path", "")).name
    _check_dense(path, directory)
    return directory


def _check_dense(path: Path, directory: Path) -> None:
    dense = {} if directory == path else read_json(directory / DENSE_CONFIG)
    activation = dense.get("activation_function", "torch.nn.modules.activation.Tanh")
    wrong = [
        f"no {file} in {directory}"
        for file in (DENSE_CONFIG, DENSE_WEIGHTS)
        if directory == path or not (directory / file).is_file()
    ]
    if activation.rpartition(".")[2] != "Identity":
        wrong.append(f"activation {activation}")
    if dense.get("use_residual"):
        wrong.append("a residual")
    if wrong:
        raise EncoderError(
            f"{path}: its modules.json asks for Dense with {wrong[0]}; only a linear map whose "
            f"{DENSE_WEIGHTS} is there can be run"
        )


def positions(path: Path) -> int | None:
    """How many tokens the model can read, None if there is no bound.

    Raises:
        EncoderError: there is no config.json.
    """
    config = read_json(path / "config.json")
    if not config:
        raise EncoderError(f"{path}: holds no config.json; expected a Hugging Face model")
    found: int | None = config.get("max_position_embeddings")
    if found and "roberta" in config.get("model_type", ""):
        found -= int(config.get("pad_token_id", 1)) + 1  # RoBERTa counts from behind padding
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A file's content, empty if there is no such file.

    Raises:
        EncoderError: it is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        return cast("dict[str, Any]", json.loads(path.read_bytes()))
    except ValueError as error:
        raise EncoderError(f"{path}: cannot be read as JSON ({error})") from error


def _sentence_transformers(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if pooling := read_json(path / "1_Pooling" / "config.json"):
        settings["pooling"] = _pooling(path, pooling)
    prompts = read_json(path / "config_sentence_transformers.json")
    name = prompts.get("default_prompt_name") or "query"
    if prompt := prompts.get("prompts", {}).get(name):
        settings["prefix"] = prompt
    if length := read_json(path / "sentence_bert_config.json").get("max_seq_length"):
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
