"""The quantised engine on a small model: export, cache, gate, agreement with torch."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval.encoder import load_model, open_encoder
from bioelx_ray.retrieval.probe import check_loss, read_probe, recall_at_1
from tests.encoders import ODD, tiny_bert

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert", hidden=128)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def surroundings(cache, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(cache))


def settings(model, engine="onnx-int8", **changes):
    return EncoderConfig(model=str(model), engine=engine, pooling="mean", **changes)


def artifacts(cache):
    return sorted((cache / "encoders").glob("onnx-*"))


@pytest.fixture
def encoder(model):
    return open_encoder(settings(model))


def test_engines_share_a_fingerprint_and_agree(model, encoder):
    reference = open_encoder(settings(model, "torch"))
    assert (encoder.engine, reference.engine) == ("onnx-int8", "torch")
    assert (encoder.fingerprint, encoder.dim) == (reference.fingerprint, reference.dim)
    queries = read_probe().queries
    cosines = (encoder.encode(queries) * reference.encode(queries)).sum(axis=1)
    assert cosines.mean() > 0.99


def test_batches_change_nothing(encoder):
    texts = [*read_probe().queries[:60], *ODD]
    together = encoder.encode(texts)
    for size in (1, 8, 64):
        parts = [encoder.encode(texts[a : a + size]) for a in range(0, len(texts), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-6)
    backwards = encoder.encode(texts[::-1])[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_no_text(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_threads_change_nothing(model, encoder):
    texts = read_probe().targets[:50]
    one = open_encoder(settings(model, threads=1))
    np.testing.assert_allclose(one.encode(texts), encoder.encode(texts), atol=1e-6)


def test_manifest_has_the_figures(cache, encoder):
    manifest = open_artifact(artifacts(cache)[0], "encoder").manifest
    figures = manifest.counts["probe_recall_at_1"]
    assert figures["onnx-int8"] == recall_at_1(encoder.encode, read_probe())
    assert manifest.inputs == {"encoder": encoder.fingerprint}


def test_exported_once(cache, model, encoder, caplog):
    open_encoder(settings(model, batch_tokens=64))
    assert len(artifacts(cache)) == 1
    assert not caplog.records
    assert not list((cache / "encoders").glob(".*draft"))


def test_second_opening_needs_neither_torch_nor_transformers(model, encoder):
    code = (
        "import sys; from bioelx_ray.config import EncoderConfig\n"
        "from bioelx_ray.retrieval.encoder import open_encoder\n"
        "encoder = open_encoder(EncoderConfig.model_validate_json(sys.argv[1]))\n"
        "print(encoder.encode(['fever']).shape[1], {'torch', 'transformers'} & set(sys.modules))\n"
    )
    given = settings(model).model_dump_json()
    run = subprocess.run(
        [sys.executable, "-c", code, given], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{encoder.dim} set()\n"


def test_auto_falls_back_to_torch_where_8_bits_do_not_suffice(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    path = tiny_bert(tmp_path / "outlier", hidden=128)
    model = load_model(path)
    with torch.no_grad():
        for layer in model.encoder.layer:
            # a number that nothing depends on, beside which 8 bits see no other
            layer.attention.self.value.bias[0] = 1e6
            layer.attention.output.dense.weight[:, 0] = 0
    model.save_pretrained(path)
    encoder = open_encoder(EncoderConfig(model=str(path), pooling="cls"))
    assert encoder.engine == "torch"
    assert re.search(
        r"engine torch instead of onnx-int8: .*Recall@1 .* 0\.\d\d%, fp32 has 3\.\d\d%", caplog.text
    )
    assert artifacts(tmp_path / "cache") == []


def test_gate():
    check_loss("x", found=0.796, reference=0.8)
    check_loss("x", found=0.9, reference=0.8)
    with pytest.raises(EncoderError, match=r"x is too inexact.*79\.00%.*80\.00%"):
        check_loss("x", found=0.79, reference=0.80)
