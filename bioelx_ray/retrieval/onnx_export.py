"""A torch encoder -> an ONNX graph in 8 bits, published only if it finds what fp32 finds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import onnx
import torch

from bioelx_ray.artifacts import Manifest, code_version, publish
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.batched import BatchedEncoder, Forward, Tokens
from bioelx_ray.retrieval.model_files import ModelFiles, sources_of
from bioelx_ray.retrieval.onnx_engine import (
    ENGINE,
    GRAPH,
    OUTPUT,
    QUANTISATION,
    TOKENIZER,
    onnx_forward,
)
from bioelx_ray.retrieval.onnx_rows import quantise, save
from bioelx_ray.retrieval.probe import check_loss, read_probe, recall_at_1
from bioelx_ray.retrieval.torch_engine import Pooled, torch_forward

_OPSET = 20  # the first that has Gelu
_log = logging.getLogger(__name__)


def build_onnx(
    target: Path,
    pooled: Pooled,
    tokens: Tokens,
    *,
    files: ModelFiles,
) -> None:
    """Export and quantise a model, compare it with fp32 and publish it as `target`.

    Raises:
        EncoderError: it cannot be exported, or finds less than fp32 (see `probe.check_loss`);
            nothing is published then.
    """
    _log.info("quantising %s for onnxruntime; this is done once", files.path)
    manifest = Manifest(
        kind="encoder",
        code_version=code_version(),
        config={"quantisation": QUANTISATION, "dim": pooled.dim, "pad_id": tokens.pad_id},
        inputs={"encoder": files.fingerprint},
        sources=sources_of(files),
    )
    with publish(target, manifest) as draft:
        save(quantise(export(pooled)), draft / GRAPH)
        tokens.tokenizer.save(str(draft / TOKENIZER))
        recall = partial(_recall, tokens=tokens, dim=pooled.dim, files=files)
        reference = recall(torch_forward(pooled, device="cpu"))
        found = recall(onnx_forward(draft / GRAPH))
        manifest.counts = {"probe_recall_at_1": {"torch": reference, ENGINE: found}}
        check_loss(f"{ENGINE} of {files.path}", found=found, reference=reference)
    _log.info("Recall@1 on the built-in probe: %s %.4f, fp32 %.4f", ENGINE, found, reference)


def _recall(forward: Forward, *, tokens: Tokens, dim: int, files: ModelFiles) -> float:
    encoder = BatchedEncoder(
        tokens=tokens,
        forward=forward,
        dim=dim,
        fingerprint=files.fingerprint,
        engine=ENGINE,
        prefix=files.prefix,
        batch_tokens=1024,
    )
    return recall_at_1(encoder.encode, read_probe())


def export(pooled: Pooled) -> onnx.ModelProto:
    """The ONNX model of a module: input_ids and attention_mask int64 [b, n] -> float32 [b, dim].

    Raises:
        EncoderError: torch cannot export it.
    """
    # torch's fused attention becomes twice as many nodes
    pooled.model.set_attn_implementation("eager")  # type: ignore[operator]
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    ids, mask = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    try:
        with _quiet_export():
            program = torch.onnx.export(
                pooled,
                (ids, mask),
                input_names=["input_ids", "attention_mask"],
                output_names=[OUTPUT],
                dynamic_shapes=(shape, shape),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except RuntimeError as error:  # of which torch.onnx's own errors are
        raise EncoderError(f"torch cannot export the model to ONNX ({error})") from error
    if program is None:
        raise EncoderError("torch exported the model to ONNX without a result")
    return program.model_proto


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Without the exporter's hundreds of lines on its own passes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
