"""Models by their name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from bioelx_ray.errors import EncoderError

# no pickles, and none of the copies for other runtimes that lie in subdirectories
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_UNWANTED = ("onnx/*", "openvino/*", "tf_model*", "flax_model*")


def download(name: str) -> Path:
    """The directory of a model of the hub, downloaded unless it is in the hub's cache.

    Raises:
        EncoderError: no such name, or the hub cannot be reached and the cache lacks the model.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED))
        )
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"model {name!r}: no such directory, and the Hugging Face hub does not give it "
            f"({error}); check the name, download it where there is a network, or use 'embedded'"
        ) from error
