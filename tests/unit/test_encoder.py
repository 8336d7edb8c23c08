import logging
import shutil

import numpy as np
import pytest
import torch

from bioelx_ray.artifacts import Manifest, publish
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import ArtifactCorrupt, EncoderError
from bioelx_ray.retrieval.batched import pack
from bioelx_ray.retrieval.encoder import load_model, open_encoder
from bioelx_ray.retrieval.model_files import locate
from tests.encoders import ODD, tiny_bert, write_json


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # threads wait for one another longer than a tiny model takes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(model, **changes):
    return EncoderConfig(model=str(model), engine="torch", **changes)


def copy(model, target):
    return shutil.copytree(model, target / "copy")


def test_unit_rows_in_order(model):
    encoder = open_encoder(config(model))
    texts = ["heart attack", "x", "a much longer name than the others", "fever"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, encoder.dim) == (4, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], vectors, atol=1e-6)
    assert len({row.tobytes() for row in vectors}) == 4


def test_no_text(model):
    assert open_encoder(config(model)).encode([]).shape == (0, 32)


def test_batches_change_nothing(model):
    texts = [f"{'name ' * (i % 13)}{i}" for i in range(100)]
    encoder = open_encoder(config(model))
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    for size in (3, 8, 64, 100):
        parts = [encoder.encode(texts[a : a + size]) for a in range(0, 100, size)]
        np.testing.assert_allclose(np.concatenate(parts), alone, atol=1e-5)
    small = open_encoder(config(model, batch_tokens=64))
    np.testing.assert_allclose(small.encode(texts), alone, atol=1e-5)


def test_odd_texts(model):
    vectors = open_encoder(config(model)).encode(ODD)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_packing():
    lengths = [5, 3, 9, 3, 40, 4]
    batches = list(pack(lengths, 12))
    assert batches == [[1, 3, 5], [0], [2], [4]]
    assert list(pack([], 12)) == []


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_is_that_of_the_formula(model, pooling):
    encoder = open_encoder(config(model, pooling=pooling, prefix="q: "))
    ids = torch.tensor([encoder.tokens.ids(["q: fever"])[0]])
    with torch.inference_mode():
        hidden = load_model(model)(input_ids=ids).last_hidden_state[0]
    expected = hidden[0] if pooling == "cls" else hidden.mean(0)
    expected = expected / expected.norm()
    # beside a longer text, so that there is padding to leave out
    found = encoder.encode(["fever", "a longer text"])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_settings_default_to_those_of_sapbert(model):
    files = locate(config(model))
    assert (files.pooling, files.prefix, files.max_length) == ("cls", "", 64)


def test_settings_of_sentence_transformers(model, tmp_path):
    path = copy(model, tmp_path)
    modules = ["Transformer", "Pooling", "Normalize"]
    write_json(
        path / "modules.json", [{"type": f"sentence_transformers.models.{m}"} for m in modules]
    )
    write_json(
        path / "1_Pooling" / "config.json",
        {
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "word_embedding_dimension": 32,
        },
    )
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    write_json(path / "config_sentence_transformers.json", prompts)
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 100})
    files = locate(config(path))
    assert (files.pooling, files.prefix, files.max_length) == ("mean", "query: ", 100)
    write_json(path / "encoder.json", {"prefix": "ours: "})
    assert locate(config(path)).prefix == "ours: "
    assert locate(config(path, prefix="", pooling="cls")).prefix == ""


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "asks for Dense"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by pooling_mode_max"),
        ("encoder.json", {"pooling": "max"}, "expected pooling cls or mean"),
        ("encoder.json", {"max_length": 200}, "max_length 200 is more than the model's 128"),
    ],
)
def test_model_that_asks_for_more_is_refused(model, tmp_path, file, content, message):
    path = copy(model, tmp_path)
    write_json(path / file, content)
    with pytest.raises(EncoderError, match=message):
        locate(config(path))


def test_fingerprint_is_of_the_content(model, tmp_path):
    path = copy(model, tmp_path)
    first = locate(config(model)).fingerprint
    assert locate(config(path)).fingerprint == first
    assert locate(config(path, batch_tokens=64, threads=1)).fingerprint == first
    changes = [{"prefix": "q"}, {"pooling": "mean"}, {"max_length": 32}]
    others = {locate(config(path, **change)).fingerprint for change in changes}
    tokenizer = path / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    others.add(locate(config(path)).fingerprint)
    others.add(locate(config(tiny_bert(tmp_path / "other", seed=1))).fingerprint)
    assert len(others - {first}) == 5


def test_pickled_weights_are_refused(model, tmp_path):
    path = copy(model, tmp_path)
    (path / "model.safetensors").unlink()
    torch.save(load_model(model).state_dict(), path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="pickled weights"):
        open_encoder(config(path))


def test_missing_weights_are_not_made_up(model, tmp_path):
    path = copy(model, tmp_path)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(
        text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(EncoderError, match="weights lack 16 tensors"):
        open_encoder(config(path))


def test_weights_that_are_not_finite(model, tmp_path):
    broken = load_model(model)
    torch.nn.init.constant_(broken.embeddings.LayerNorm.weight, float("nan"))
    path = copy(model, tmp_path)
    broken.save_pretrained(path)
    with pytest.raises(EncoderError, match="not finite"):
        open_encoder(config(path)).encode(["fever"])


def test_damaged_model_directory_is_refused(model, tmp_path):
    with publish(tmp_path / "encoder", Manifest(kind="encoder", code_version="1")) as draft:
        shutil.copytree(model, draft, dirs_exist_ok=True)
    path = tmp_path / "encoder"
    assert locate(config(path)).fingerprint == locate(config(model)).fingerprint
    with (path / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"\xff")
    with pytest.raises(ArtifactCorrupt, match="checksum"):
        open_encoder(config(path))


def test_no_such_model(tmp_path):
    with pytest.raises(EncoderError, match="no such directory"):
        open_encoder(config(tmp_path / "nothing"))
    with pytest.raises(EncoderError, match=r"'nobody/nothing'.*hub does not give it"):
        open_encoder(EncoderConfig(model="nobody/nothing"))
    with pytest.raises(EncoderError, match=r"holds no \*\.safetensors"):
        open_encoder(config(tmp_path))


def test_transformers_is_left_as_it_was(model):
    before = logging.getLogger("transformers").level
    open_encoder(config(model))
    assert logging.getLogger("transformers").level == before
