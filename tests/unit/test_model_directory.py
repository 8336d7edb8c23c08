import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from bioelx_ray.artifacts import Manifest, Source, open_artifact, publish
from bioelx_ray.config import AdapterConfig, EncoderConfig
from bioelx_ray.errors import ArtifactCorrupt, EncoderError
from bioelx_ray.retrieval.adapter import adapter_tensors, prepare, save_adapter
from bioelx_ray.retrieval.encoder import load_pooled, load_tokens, open_encoder
from bioelx_ray.retrieval.heads import save_head
from bioelx_ray.retrieval.model_card import Card, render
from bioelx_ray.retrieval.model_directory import write_model_directory
from bioelx_ray.retrieval.model_files import locate
from tests.encoders import tiny_bert, write_json

TEXTS = ["heart attack", "심근경색", "x", "a much longer name than the others, " * 5]
CARD = Card(
    title="tiny",
    base_model="nobody/tiny",
    langs=("de", "zh-Hans", "en", "und", "zh"),
    sources=[Source(name="pipes | and\nlines", licence="CC BY 4.0", version="2024-01")],
    training={"lr": 2e-5, "loss": {"name": "multi-similarity"}, "langs": ("de",)},
    figures={"Recall@1": {"de": 0.51234, "th": 0.25}, "pairs": 12},
    measured_with="python -m x",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def asking(model, **changes):
    return EncoderConfig(model=str(model), engine="torch", **changes)


def trained(files, kind="lora"):
    module = load_pooled(files)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in prepare(module, AdapterConfig(kind=kind, rank=4), on_gpu=False):
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


def vectors(module, files):
    """Of TEXTS, one at a time, by the module itself."""
    rows = load_tokens(files.path, max_length=files.max_length).ids(
        [files.prefix + t for t in TEXTS]
    )
    with torch.inference_mode():
        found = [
            module.eval()(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))
            for ids in rows
        ]
    return torch.cat(found).numpy()


USES = [
    {"pooling": "mean", "prefix": "query: ", "max_length": 32},
    {"pooling": "cls", "prefix": "", "max_length": 64},
]


@pytest.mark.parametrize("kind", ["full", "lora", "head"])
@pytest.mark.parametrize("use", USES, ids=["mean", "cls"])
def test_opens_without_being_told_how(tmp_path, model, kind, use):
    files = locate(asking(model, **use))
    module = trained(files, kind)
    path = write_model_directory(tmp_path / "out", module, base=files, card=CARD).path
    found = locate(asking(path))
    assert {name: getattr(found, name) for name in use} == use
    expected = vectors(module, files)
    np.testing.assert_allclose(open_encoder(asking(path)).encode(TEXTS), expected, atol=1e-5)
    bare = open_encoder(asking(model, **use)).encode(TEXTS)
    assert (expected * bare).sum(1).max() < 0.999
    # what is read without our own file
    (path / "encoder.json").unlink()
    (path / "manifest.json").unlink()
    found = locate(asking(path))
    assert {name: getattr(found, name) for name in use} == use
    assert found.head == (path / "2_Dense" if kind == "head" else None)


def test_transformers_loads_it(tmp_path, model):
    files = locate(asking(model, **USES[0]))
    module = trained(files)
    path = write_model_directory(tmp_path / "out", module, base=files, card=CARD).path
    loaded, report = AutoModel.from_pretrained(path, output_loading_info=True)
    assert {key.partition(".")[0] for key in report["missing_keys"]} <= {"pooler"}
    assert not report["unexpected_keys"]
    given = AutoTokenizer.from_pretrained(path)(
        ["query: " + text for text in TEXTS],
        padding=True,
        truncation=True,
        max_length=32,
        return_tensors="pt",
    )
    mask = given["attention_mask"]
    with torch.inference_mode():
        hidden = loaded.eval()(
            input_ids=given["input_ids"], attention_mask=mask
        ).last_hidden_state * mask.unsqueeze(-1)
    mean = torch.nn.functional.normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=-1)
    np.testing.assert_allclose(mean.numpy(), vectors(module, files), atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "head"])
@pytest.mark.parametrize("use", USES, ids=["mean", "cls"])
def test_sentence_transformers_gives_the_same(tmp_path, model, kind, use):
    library = pytest.importorskip("sentence_transformers", reason="no sentence-transformers")
    files = locate(asking(model, **use))
    module = trained(files, kind)
    path = write_model_directory(tmp_path / "out", module, base=files, card=CARD).path
    loaded = library.SentenceTransformer(str(path), device="cpu", local_files_only=True)
    assert loaded.max_seq_length == use["max_length"]
    found = loaded.encode(TEXTS)
    np.testing.assert_allclose(found, open_encoder(asking(path)).encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(found, vectors(module, files), atol=1e-5)
    # and what it writes itself, in its present spelling
    loaded.save(str(tmp_path / "again"))
    again = open_encoder(asking(tmp_path / "again", max_length=use["max_length"]))
    np.testing.assert_allclose(again.encode(TEXTS), found, atol=1e-5)


def test_half_the_size(tmp_path, model):
    files = locate(asking(model, **USES[0]))
    module = trained(files, "head")
    whole = write_model_directory(tmp_path / "whole", module, base=files, card=CARD).path
    half = write_model_directory(
        tmp_path / "half", module, base=files, card=CARD, dtype="bf16"
    ).path
    tensors = load_file(half / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    found, expected = (open_encoder(asking(path)).encode(TEXTS) for path in (half, whole))
    assert 1e-7 < (1 - (found * expected).sum(1)).max() < 1e-2
    assert next(module.parameters()).dtype == torch.float32


def test_manifest_and_damage(tmp_path, model):
    base = tmp_path / "base"
    sources = [Source(name="the base", licence="MIT")]
    with publish(base, Manifest(kind="encoder", code_version="1", sources=sources)) as draft:
        shutil.copytree(model, draft, dirs_exist_ok=True)
    files = locate(asking(base, pooling="mean"))
    path = write_model_directory(
        tmp_path / "out", trained(files, "head"), base=files, card=CARD
    ).path
    manifest = open_artifact(path, "encoder").manifest
    assert manifest.inputs == {"encoder": files.fingerprint}
    assert manifest.sources == [*sources, *CARD.sources]
    assert manifest.counts == CARD.figures
    assert "2_Dense/model.safetensors" in manifest.files
    readme = (path / "README.md").read_text()
    assert "| the base |  | MIT |  |" in readme
    assert all(oct(f.stat().st_mode)[-3:] == "644" for f in path.rglob("*.safetensors"))
    head = path / "2_Dense" / "model.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ArtifactCorrupt, match="2_Dense"):
        open_encoder(asking(path))


def test_the_same_twice(tmp_path, model):
    files = locate(asking(model))
    module = trained(files, "head")
    one, two = (
        write_model_directory(tmp_path / name, module, base=files, card=CARD)
        for name in ("one", "two")
    )
    assert one.manifest.files == two.manifest.files
    assert one.manifest.fingerprint == two.manifest.fingerprint


def test_random_poolers_are_not_written(tmp_path, model):
    files = locate(asking(model))
    assert load_pooled(files).model.pooler is not None
    path = write_model_directory(tmp_path / "out", trained(files), base=files, card=CARD).path
    assert not [n for n in load_file(path / "model.safetensors") if "pooler" in n]
    with_pooler = tmp_path / "pooler"
    shutil.copytree(model, with_pooler)
    BertModel(BertConfig.from_pretrained(model)).save_pretrained(with_pooler)
    files = locate(asking(with_pooler))
    path = write_model_directory(tmp_path / "other", trained(files), base=files, card=CARD).path
    written, had = (load_file(p / "model.safetensors") for p in (path, with_pooler))
    assert torch.equal(written["pooler.dense.weight"], had["pooler.dense.weight"])


def test_of_a_model_with_an_adapter(tmp_path, model):
    plain = locate(asking(model, pooling="mean"))
    adapter = save_adapter(
        tmp_path / "adapter",
        adapter_tensors(trained(plain, "head")),
        base=plain,
        training={},
        figures={},
        sources=[Source(name="aliases", licence="CC0")],
    )
    files = locate(asking(model, adapter=str(adapter.path)))
    artifact = write_model_directory(tmp_path / "out", load_pooled(files), base=files, card=CARD)
    np.testing.assert_allclose(
        open_encoder(asking(artifact.path)).encode(TEXTS),
        open_encoder(asking(model, adapter=str(adapter.path))).encode(TEXTS),
        atol=1e-6,
    )
    assert artifact.manifest.sources[0].name == "aliases"


def test_card():
    text = render(CARD, USES[0])
    _, metadata, body = text.split("---\n", 2)
    head = yaml.safe_load(metadata)
    assert head["language"] == ["de", "en", "zh"]
    assert (head["license"], head["base_model"]) == ("other", "nobody/tiny")
    assert r"| pipes \| and lines | 2024-01 | CC BY 4.0 |  |" in body
    assert "| Recall@1, de | 0.5123 |" in body
    assert "| pairs | 12 |" in body
    assert "Measured with `python -m x`." in body
    assert "the prefix of every text\n'query: '" in body
    [block] = body.split("```yaml\n")[1:]
    training = yaml.safe_load(block.partition("```")[0])
    assert training == {"lr": 2e-5, "loss": {"name": "multi-similarity"}, "langs": ["de"]}


def test_card_without_figures_claims_none():
    text = render(Card(title="t", base_model="b", langs=(), sources=[], training={}), USES[1])
    assert "Figures" not in text
    assert "Measured" not in text


def with_dense(model, target, *, order=("Transformer", "Pooling", "Dense", "Normalize"), **dense):
    """As sentence-transformers 5 writes a model with a map."""
    path = shutil.copytree(model, target)
    head = torch.nn.Linear(32, 16)
    save_head(head, path / "2_Dense")
    config = json.loads((path / "2_Dense" / "config.json").read_text()) | dense
    write_json(path / "2_Dense" / "config.json", config)
    places = {"Dense": "2_Dense", "Pooling": "1_Pooling"}
    modules = [
        {"path": places.get(name, ""), "type": f"sentence_transformers.models.{name}"}
        for name in order
    ]
    write_json(path / "modules.json", modules)
    return path, head


def test_a_map_with_bias_to_another_size_is_run(tmp_path, model):
    path, head = with_dense(model, tmp_path / "model")
    encoder = open_encoder(asking(path, pooling="mean"))
    assert encoder.dim == 16
    files = locate(asking(model, pooling="mean"))
    bare = load_pooled(files)
    bare.head = head
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors(bare, files), atol=1e-5)
    first = encoder.fingerprint
    save_file(
        {f"linear.{n}": t * 1.5 for n, t in head.state_dict().items()},
        path / "2_Dense" / "model.safetensors",
    )
    assert open_encoder(asking(path, pooling="mean")).fingerprint != first


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (
            {"activation_function": "torch.nn.modules.activation.Tanh"},
            "Dense with activation.*Tanh",
        ),
        ({"use_residual": True}, "a residual"),
        ({"order": ("Transformer", "Dense", "Pooling")}, "in this order"),
        ({"order": ("Transformer", "Pooling", "Normalize", "Dense")}, "in this order"),
        ({"order": ("Transformer", "Pooling", "Dense", "Dense")}, "in this order"),
        ({"order": ("Transformer", "Pooling", "CNN")}, "asks for Transformer, Pooling, CNN"),
    ],
)
def test_maps_of_other_kinds_are_refused(tmp_path, model, dense, message):
    path, _ = with_dense(model, tmp_path / "model", **dense)
    with pytest.raises(EncoderError, match=message):
        open_encoder(asking(path))


def test_maps_that_cannot_be_read_are_refused(tmp_path, model):
    path, _ = with_dense(model, tmp_path / "model")
    weights = path / "2_Dense" / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:40])
    with pytest.raises(EncoderError, match="cannot be read as safetensors"):
        open_encoder(asking(path))
    save_file({"linear.weight": torch.ones(4, 31)}, weights)
    with pytest.raises(EncoderError, match=r"expected a linear.weight \[dim, 32\]"):
        open_encoder(asking(path))
    weights.unlink()
    torch.save({}, path / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"no model.safetensors in"):
        open_encoder(asking(path))
    shutil.rmtree(path / "2_Dense")
    with pytest.raises(EncoderError, match=r"no config.json in"):
        open_encoder(asking(path))
