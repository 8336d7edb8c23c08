"""The encoder in onnxruntime, quantised to 8 bits: exported once, checked, kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.artifacts import build_once, cache_dir, sha256_json
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.batched import BatchedEncoder, Forward, Tokens, Vectors
from bioelx_ray.retrieval.model_files import ModelFiles
from bioelx_ray.retrieval.threads import cpu_count

if TYPE_CHECKING:
    from bioelx_ray.retrieval.torch_engine import Pooled

ENGINE = "onnx-int8"
QUANTISATION = "rows-a8-w7-1"
"""Of `onnx_rows`; another name makes cached models be made anew."""

GRAPH, TOKENIZER, OUTPUT = "model.onnx", "tokenizer.json", "unit_vectors"
_EXTRA = ("onnx", "onnxruntime", "onnxscript")
_EXPORTERS = ("torch", "transformers", "onnx", "onnxscript")


def open_onnx(
    files: ModelFiles,
    *,
    model: Callable[[], Pooled],
    tokens: Callable[[], Tokens],
    config: EncoderConfig,
) -> BatchedEncoder:
    """Open a model's quantised form. It is made the first time (half a minute), then kept.

    `model` and `tokens` are called only where it is made.

    Raises:
        EncoderError: the extra ``onnx`` is not installed, the model cannot be exported, or its
            quantised form finds less than the original.
    """
    if missing := missing_packages():
        raise EncoderError(
            f"engine {ENGINE} needs {', '.join(missing)}: run pip install 'bioelx-ray[onnx]', "
            "or use engine torch"
        )

    def build(target: Path) -> None:
        from bioelx_ray.retrieval.onnx_export import build_onnx

        build_onnx(target, model(), tokens(), files=files)

    made = build_once(cache_dir() / "encoders" / f"onnx-{_key(files)[:24]}", "encoder", build)
    return BatchedEncoder(
        tokens=_tokens(made.file(TOKENIZER), made.manifest.config["pad_id"], files.max_length),
        forward=onnx_forward(made.file(GRAPH), threads=config.threads),
        dim=made.manifest.config["dim"],
        fingerprint=files.fingerprint,
        engine=ENGINE,
        prefix=files.prefix,
        batch_tokens=config.batch_tokens,
    )


def missing_packages() -> list[str]:
    """What of the extra ``onnx`` is not installed."""
    return [name for name in _EXTRA if find_spec(name) is None]


def _key(files: ModelFiles) -> str:
    import onnxruntime  # its distribution has several names

    versions = {name: metadata.version(name) for name in _EXPORTERS}
    return sha256_json([files.fingerprint, QUANTISATION, versions, onnxruntime.__version__])


def _tokens(path: Path, pad_id: int, max_length: int) -> Tokens:
    from tokenizers import Tokenizer

    return Tokens(Tokenizer.from_file(str(path)), pad_id=pad_id, max_length=max_length)


def onnx_forward(path: Path, *, threads: int = 0) -> Forward:
    """Run an exported graph on the CPU. A text's vector depends on its batch by less than 1e-6.

    Raises:
        EncoderError: onnxruntime refuses the graph.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_count(threads)
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            # the fused operator is slower on a CPU than its parts: 15 % of the whole (1.31)
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except (errors.Fail, errors.InvalidGraph, errors.NotImplemented) as error:
        raise EncoderError(f"{path}: onnxruntime refuses the graph ({error})") from error

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        vectors: Vectors = session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    return forward
