"""The name of a language model's content."""

from __future__ import annotations

from pathlib import Path

from bioelx_ray.artifacts import file_fingerprint, sha256_json

# what decides over a log-probability; of the weights only safetensors are ever read
_DECISIVE = (
    "*.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "*.model",
)


def model_identity(model: str) -> str:
    """The hash of a directory's weights, configuration and tokenizer; of a hub's model its name.

    All engines of a model share it, so a calibration fitted with one may be used with another.
    """
    path = Path(model)
    if not path.is_dir():
        return f"hub:{model}"
    files = sorted({file for pattern in _DECISIVE for file in path.glob(pattern)})
    return "sha256:" + sha256_json({file.name: file_fingerprint(file) for file in files})
