import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import Config, EncoderConfig, PairsConfig
from bioelx_ray.errors import ArtifactMismatch, ArtifactNotFound, ConfigError, EncoderError
from bioelx_ray.kb.pairs import build_pairs
from bioelx_ray.retrieval.development import EXCLUDE, build_development
from bioelx_ray.retrieval.encoder import open_encoder
from bioelx_ray.retrieval.together import together
from bioelx_ray.retrieval.tune import Order, checked, run_name, tune
from tests.encoders import tiny_bert
from tests.training import made_pairs, plain_pairs, silent
from tests.unit.test_kb_pairs import alias, made_kb

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def order(home, **train):
    train = {"batch_pairs": 16, "lr": 3e-3, "epochs": 2, **train}
    config = Config.model_validate({"encoder": {"model": str(home / "model")}, "train": train})
    return Order(pairs=home / "pairs", out=home / "out", work=home / "work", config=config)


@pytest.fixture
def home(tmp_path):
    tiny_bert(tmp_path / "model")
    made_pairs(tmp_path / "pairs", plain_pairs(60, each=1))
    return tmp_path


def encoded(home, **given):
    config = EncoderConfig(engine="torch", **{"model": str(home / "model"), **given})
    return open_encoder(config).encode(["heart 001", "001 von traeh", "肝"])


def test_an_adapter_is_published_and_found_again(home):
    given = checked(order(home, adapter={"kind": "lora", "rank": 4}))
    assert given.form == "adapter"
    line = tune(given, device=CPU)
    assert line.startswith(f"{home / 'out'}: an adapter of step 8 of 8; checkpoints")
    manifest = open_artifact(home / "out", "adapter").manifest
    assert manifest.config["training"]["adapter"]["rank"] == 4
    assert manifest.counts["steps"] == 8
    assert [source.name for source in manifest.sources] == ["made"]
    changed = encoded(home, adapter=str(home / "out"))
    assert np.abs(changed - encoded(home)).max() > 1e-3
    adapted = given.config.encoder.model_copy(update={"adapter": str(home / "out")})
    config = given.config.model_copy(update={"encoder": adapted})
    with pytest.raises(EncoderError, match="on which no second one can be put"):
        checked(Order(pairs=given.pairs, out=given.out, work=given.work, config=config))


def test_a_model_is_published_as_a_directory_and_in_small(home):
    given = checked(order(home))
    assert given.form == "directory"
    assert "a model of step 8 of 8" in tune(given, device=CPU)
    whole = encoded(home, model=str(home / "out"))
    assert np.abs(whole - encoded(home)).max() > 1e-3
    manifest = open_artifact(home / "out", "encoder").manifest
    assert manifest.config["training"]["pairs"].startswith("sha256:")
    assert "made" in (home / "out" / "README.md").read_text()
    small = Order(
        pairs=given.pairs,
        out=home / "small",
        work=given.work,
        config=given.config,
        form="adapter",
    )
    tune(checked(small), device=CPU)
    assert open_artifact(home / "small", "adapter").manifest.counts["lost"] < 1e-3
    again = encoded(home, adapter=str(home / "small"))
    np.testing.assert_allclose(again, whole, atol=2e-3)


def test_weights_that_a_model_lacks_are_alike_in_every_process(home):
    """The tiny model has no pooler: transformers makes one at random, which must not matter."""
    given = checked(order(home, save_every=3))
    tune(given, device=CPU)
    torch.rand(7)
    assert "of step 8 of 8" in tune(given, device=CPU)


def test_the_best_step_on_held_out_aliases_is_published(home, caplog):
    aliases = [
        alias(n, lang, f"{word} {n:02}")
        for n in range(60)
        for lang, words in {"de": ("Herz", "Lunge"), "en": ("heart", "lung")}.items()
        for word in words
    ]
    kb = made_kb(home / "kb", aliases)
    build_development(home / "dev", kb, per_language=30, seed=0)
    build_pairs(
        home / "kept",
        kb,
        config=PairsConfig(),
        exclude=[home / "dev" / EXCLUDE],
        progress=silent,
    )
    given = order(home, evaluate_every=3)
    told = []
    asked = Order(
        pairs=home / "kept",
        dev=home / "dev",
        out=given.out,
        work=given.work,
        config=given.config,
    )
    with caplog.at_level(logging.INFO):
        line = tune(checked(asked), device=CPU, report=told.append)
    assert "was not built with" not in caplog.text
    assert "Recall@1" in line
    assert "over 2 languages" in line
    counts = open_artifact(home / "out", "encoder").manifest.counts
    means = {step.step: sum(step.dev.values()) / 2 for step in told if step.dev}
    best = counts["best_step"]
    assert best == 0 or means[best] == max(means.values())
    assert set(counts["recall_at_1"]) == {"de", "en"}
    assert "Recall@1" in caplog.text
    other = Order(
        pairs=home / "pairs",
        dev=home / "dev",
        out=given.out,
        work=given.work,
        config=given.config,
    )
    checked(other)
    assert "was not built with --exclude" in caplog.text
    assert run_name(other) != run_name(asked) != run_name(given)


def test_hard_negatives_need_the_knowledge_base_of_the_pairs(home, caplog):
    aliases = [
        alias(n, lang, f"{word} {n:02}")
        for n in range(30)
        for lang, word in {"de": "Herz", "en": "heart"}.items()
    ]
    kb, other = made_kb(home / "kb", aliases), made_kb(home / "other", aliases[:20])
    build_pairs(home / "drawn", kb, config=PairsConfig(), progress=silent)
    given = order(home, negatives={"every": 2})
    asked = replace(given, pairs=home / "drawn", kb=kb.artifact.path)
    with caplog.at_level(logging.INFO):
        assert "of step 4 of 4" in tune(checked(asked), device=CPU)
    assert "mining hard negatives for 30 pairs at step 2" in caplog.text
    with pytest.raises(ArtifactMismatch, match="hard negatives need the pairs' own"):
        checked(replace(asked, kb=other.artifact.path))


def test_dropout_is_set(home):
    model = json.loads((home / "model" / "config.json").read_text())
    assert model["hidden_dropout_prob"] > 0
    found = []
    for dropout in (None, 0.0, 0.5):
        given = replace(order(home, dropout=dropout), out=home / f"out-{dropout}")
        tune(checked(given), device=CPU)
        found.append(encoded(home, model=str(given.out)))
    assert all(np.abs(found[a] - found[b]).max() > 1e-4 for a, b in [(0, 1), (1, 2), (0, 2)])


def test_mistakes_are_found_before_training(home):
    with pytest.raises(ConfigError, match="which are safe stands in the knowledge base"):
        checked(order(home, negatives={"every": 10}))
    with pytest.raises(ArtifactNotFound, match="no artifact at"):
        checked(
            Order(pairs=home / "none", out=home / "out", work=home / "w", config=order(home).config)
        )
    bad = Config.model_validate({"encoder": {"model": str(home / "nothing")}})
    with pytest.raises(EncoderError, match="no such directory"):
        checked(Order(pairs=home / "pairs", out=home / "out", work=home / "w", config=bad))


def _part(rank, world, home, sizes):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{home}/r", rank=rank, world_size=world)
    calls = []

    def encode(texts):
        calls.append(len(texts))
        rows = [[float(len(text)), float(ord(text[0]))] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(-1, 2)

    for size in sizes:
        texts = [f"{chr(65 + n)}{'x' * (n % 7)}" for n in range(size)]
        found = together(encode, device=CPU)(texts)
        np.testing.assert_array_equal(found, encode(texts))
        assert calls[-2] == len(range(rank, size, world))
    dist.destroy_process_group()


def test_processes_encode_together(tmp_path):
    torch.multiprocessing.start_processes(
        _part, args=(3, tmp_path, [0, 1, 2, 3, 10, 1000]), nprocs=3, start_method="fork"
    )


def test_one_process_encodes_alone():
    def encode(texts):
        return np.zeros((len(texts), 2), dtype=np.float32)

    assert together(encode, device=CPU) is encode
