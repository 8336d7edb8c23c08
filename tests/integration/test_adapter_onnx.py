"""The quantised engine runs an adapter and a head, and keeps them apart from the bare model."""

import pytest
import torch

from bioelx_ray.artifacts import Source, open_artifact
from bioelx_ray.config import AdapterConfig, EncoderConfig
from bioelx_ray.retrieval.adapter import adapter_tensors, prepare, save_adapter
from bioelx_ray.retrieval.encoder import load_pooled, open_encoder
from bioelx_ray.retrieval.model_files import locate
from bioelx_ray.retrieval.probe import read_probe
from tests.encoders import tiny_bert

pytestmark = pytest.mark.integration


def test_8_bits_with_adapter_and_head(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    path = tiny_bert(tmp_path / "bert", hidden=128)
    bare = EncoderConfig(model=str(path), engine="torch", pooling="mean")
    files = locate(bare)
    module = load_pooled(files)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in prepare(module, AdapterConfig(kind="lora", rank=4), on_gpu=False):
            parameter += 0.02 * torch.randn_like(parameter)
    head = torch.eye(128) + 0.2 * torch.randn(128, 128)
    source = Source(name="made up", licence="CC0")
    saved = save_adapter(
        tmp_path / "adapter",
        adapter_tensors(module) | {"head.weight": head},
        base=files,
        training={},
        figures={},
        sources=[source],
    )
    adapted = bare.model_copy(update={"adapter": str(saved.path)})
    reference = open_encoder(adapted)
    quantised = open_encoder(adapted.model_copy(update={"engine": "onnx-int8"}))
    assert quantised.fingerprint == reference.fingerprint != files.fingerprint
    texts = read_probe().queries[:50]
    assert (quantised.encode(texts) * reference.encode(texts)).sum(1).mean() > 0.99
    assert (quantised.encode(texts) * open_encoder(bare).encode(texts)).sum(1).max() < 0.9
    [made] = (tmp_path / "cache" / "encoders").glob("onnx-*")
    manifest = open_artifact(made, "encoder").manifest
    assert manifest.inputs == {"encoder": reference.fingerprint}
    assert manifest.sources == [source]
