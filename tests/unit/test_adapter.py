import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bioelx_ray.artifacts import Manifest, Source, open_artifact, publish
from bioelx_ray.config import AdapterConfig, EncoderConfig
from bioelx_ray.errors import (
    ArtifactCorrupt,
    ArtifactMismatch,
    ArtifactNotFound,
    ConfigError,
    EncoderError,
)
from bioelx_ray.retrieval import embedded
from bioelx_ray.retrieval.adapter import (
    LowRank,
    adapter_tensors,
    apply_adapter,
    folded,
    load_adapter,
    prepare,
    save_adapter,
    trained_state,
)
from bioelx_ray.retrieval.encoder import load_pooled, open_encoder
from bioelx_ray.retrieval.low_rank import compress, factors
from bioelx_ray.retrieval.model_files import ADAPTER_WEIGHTS, locate
from bioelx_ray.retrieval.torch_engine import Pooled
from tests.encoders import tiny_bert

KINDS = [
    AdapterConfig(kind="full"),
    AdapterConfig(kind="full", layers=1),
    AdapterConfig(kind="lora", rank=4),
    AdapterConfig(kind="lora", rank=3, scale=0.5, layers=1),
    AdapterConfig(kind="head"),
]
TEXTS = ["heart attack", "심근경색", "x", "a much longer name than the others"]
SOURCES = [Source(name="made up", licence="CC0")]


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
    return EncoderConfig(**{"model": str(model), "engine": "torch", "pooling": "mean"} | changes)


@pytest.fixture
def files(model):
    return locate(asking(model))


@pytest.fixture
def pooled(files):
    return load_pooled(files)


BATCH = (
    torch.tensor([[1, 9, 40, 77, 2], [1, 12, 2, 0, 0]]),
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
)


def vectors(module):
    with torch.inference_mode():
        return module.eval()(*BATCH)


def trained(module, config, *, by=0.05):
    """As training would leave it: every trainable number moved."""
    made = prepare(module, config, on_gpu=False)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in made:
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return module


def saved(target, module, files, tensors=None):
    return save_adapter(
        target,
        adapter_tensors(module) if tensors is None else tensors,
        base=files,
        training={"lr": 2e-5},
        figures={"recall_at_1": 0.5},
        sources=SOURCES,
    )


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_untrained_is_the_untouched_model(pooled, config):
    before = vectors(pooled)
    prepare(pooled, config, on_gpu=False)
    assert torch.equal(vectors(pooled), before)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_gradients_reach_all_that_is_trained_and_nothing_else(pooled, config):
    made = prepare(pooled, config, on_gpu=False)
    assert made
    frozen = {
        name: p.detach().clone() for name, p in pooled.named_parameters() if not p.requires_grad
    }
    assert len(made) + len(frozen) == len(list(pooled.parameters()))
    optimiser = torch.optim.SGD(made, lr=0.1)
    # the second step: in the first A has no gradient, for B is 0
    for _ in range(2):
        optimiser.zero_grad()
        pooled(*BATCH).pow(3).sum().backward()
        optimiser.step()
    for name, parameter in pooled.named_parameters():
        if parameter.requires_grad:
            # a key's bias moves all scores alike, and the softmax does not see it
            assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name
        else:
            assert parameter.grad is None, name
            assert torch.equal(parameter, frozen[name])


def names(module):
    return set(trained_state(module))


def test_which_parameters(files):
    def of(on_gpu=False, **config):
        module = load_pooled(files)
        prepare(module, AdapterConfig(**config), on_gpu=on_gpu)
        return names(module)

    words = {"model.embeddings.word_embeddings.weight"}
    everything = {n for n, _ in load_pooled(files).named_parameters() if "pooler" not in n}
    assert of(kind="head") == {"head.weight"}
    assert of() == everything - words
    assert of(on_gpu=True) == of(freeze_embeddings=False) == everything
    assert of(on_gpu=True, freeze_embeddings=True) == everything - words
    top = {n for n in everything if "layer.1." in n}
    assert of(layers=1) == of(layers=1, on_gpu=True) == top
    low = of(kind="lora", layers=1)
    assert low == {
        f"model.encoder.layer.1.{place}.lora_{factor}"
        for place in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
        for factor in "ab"
    }
    assert len(of(kind="lora")) == 2 * len(low)


def test_the_pooler_is_never_trained(files):
    for kind in ("full", "lora"):
        module = load_pooled(files)
        assert module.model.pooler is not None
        prepare(module, AdapterConfig(kind=kind), on_gpu=True)
        assert not [n for n in names(module) if "pooler" in n]


def test_seed_decides(files):
    def state(seed):
        module = load_pooled(files)
        prepare(module, AdapterConfig(kind="lora", rank=2), on_gpu=False, seed=seed)
        return torch.cat([t.flatten() for t in trained_state(module).values()])

    torch.manual_seed(1)
    first = state(3)
    torch.manual_seed(2)
    assert torch.equal(state(3), first)
    assert not torch.equal(state(4), first)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": 3}, "3 layers are to be trained; the model has 2"),
        ({"kind": "lora", "layers": 9}, "the model has 2"),
        ({"layers": 1, "freeze_embeddings": False}, "lie below all layers"),
    ],
)
def test_settings_that_cannot_be_met(pooled, config, message):
    with pytest.raises(ConfigError, match=message):
        prepare(pooled, AdapterConfig(**config), on_gpu=False)


def test_model_without_linear_layers(pooled):
    pooled.model.encoder.layer = torch.nn.ModuleList()
    pooled.model.pooler = None
    with pytest.raises(EncoderError, match="no linear layers"):
        prepare(pooled, AdapterConfig(kind="lora"), on_gpu=False)
    with pytest.raises(EncoderError, match="no list of 2 layers"):
        prepare(pooled, AdapterConfig(layers=1), on_gpu=False)


def test_folding_is_the_formula_and_leaves_the_module(pooled):
    module = trained(pooled, AdapterConfig(kind="lora", rank=4, scale=1.5))
    layer = module.model.encoder.layer[0].intermediate.dense
    assert isinstance(layer, LowRank)
    made = folded(module)
    expected = layer.weight + 1.5 * layer.lora_b @ layer.lora_a
    plain = made.model.encoder.layer[0].intermediate.dense
    assert type(plain) is torch.nn.Linear
    torch.testing.assert_close(plain.weight, expected, atol=1e-6, rtol=0)
    assert torch.equal(plain.bias, layer.bias)
    torch.testing.assert_close(vectors(made), vectors(module), atol=1e-5, rtol=0)
    assert isinstance(module.model.encoder.layer[0].intermediate.dense, LowRank)
    assert made.state_dict().keys() == {
        n for n in module.state_dict() if not n.endswith(("lora_a", "lora_b"))
    }


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_saved_and_opened(tmp_path, model, files, pooled, config):
    base = open_encoder(asking(model)).encode(TEXTS)
    module = trained(pooled, config, by=0.2)
    artifact = saved(tmp_path / "adapter", module, files)
    opened = open_encoder(asking(model, adapter=str(artifact.path)))
    again = load_pooled(locate(asking(model, adapter=str(artifact.path))))
    # half precision, in a model whose weights are ten times those of a real one
    assert (1 - (vectors(again) * vectors(module)).sum(1)).max() < 1e-5
    assert not again.training
    assert (opened.encode(TEXTS) * base).sum(1).max() < 0.999
    without = open_encoder(asking(model, adapter="none"))
    assert np.array_equal(without.encode(TEXTS), base)
    assert open_artifact(artifact.path, "adapter").manifest.sources == SOURCES


def test_file_says_what_is_added(tmp_path, files, pooled):
    module = trained(pooled, AdapterConfig(kind="lora", rank=2, scale=0.25))
    path = saved(tmp_path / "adapter", module, files).path
    tensors = load_file(path / ADAPTER_WEIGHTS)
    name = "model.encoder.layer.1.output.dense"
    layer = module.get_submodule(name)
    assert torch.equal(tensors[f"{name}.weight.lora_a"], layer.lora_a.half())
    assert torch.equal(tensors[f"{name}.weight.lora_b"], (0.25 * layer.lora_b).half())
    numbers = sum(p.numel() for p in trained_state(module).values())
    manifest = open_artifact(path, "adapter").manifest
    assert manifest.counts == {"parameters": numbers, "recall_at_1": 0.5}
    assert 2 * numbers < (path / ADAPTER_WEIGHTS).stat().st_size < 2 * numbers + 4096
    assert oct((path / ADAPTER_WEIGHTS).stat().st_mode)[-3:] == "644"


def test_fingerprint(tmp_path, model, files, pooled):
    module = trained(pooled, AdapterConfig(kind="head"))
    one = saved(tmp_path / "one", module, files).path
    other = saved(tmp_path / "other", trained(module, AdapterConfig(kind="head")), files).path
    copied = shutil.copytree(one, tmp_path / "copied")
    found = {path: locate(asking(model, adapter=str(path))) for path in (one, other, copied)}
    assert found[one].fingerprint == found[copied].fingerprint
    prints = {files.fingerprint, *(f.fingerprint for f in found.values())}
    assert len(prints) == 3
    assert {f.base for f in found.values()} == {files.base}
    cut = locate(asking(model, adapter=str(one), max_length=16))
    assert cut.fingerprint not in prints


def test_settings_are_those_of_the_training(tmp_path, model, pooled):
    files = locate(asking(model, prefix="q: ", max_length=32))
    path = saved(tmp_path / "adapter", trained(pooled, KINDS[-1]), files).path
    plain = EncoderConfig(model=str(model), engine="torch", adapter=str(path))
    found = locate(plain)
    assert (found.pooling, found.prefix, found.max_length) == ("mean", "q: ", 32)
    asked = locate(plain.model_copy(update={"prefix": "", "pooling": "cls"}))
    assert (asked.pooling, asked.prefix) == ("cls", "")


def test_another_model_is_refused(tmp_path, files, pooled):
    path = saved(tmp_path / "adapter", trained(pooled, KINDS[2]), files).path
    other = tiny_bert(tmp_path / "other", seed=1)
    with pytest.raises(ArtifactMismatch, match=r"was trained for the model sha256:.*not for this"):
        open_encoder(asking(other, adapter=str(path)))
    with pytest.raises(ArtifactMismatch, match="was trained for"):
        load_adapter(path, pooled, base=locate(asking(other)).base)


def test_damage(tmp_path, model, files, pooled):
    path = saved(tmp_path / "adapter", trained(pooled, KINDS[2]), files).path
    config = asking(model, adapter=str(path))
    with pytest.raises(ArtifactNotFound):
        open_encoder(asking(model, adapter=str(tmp_path / "nowhere")))
    with publish(tmp_path / "model", Manifest(kind="encoder", code_version="1")):
        pass
    with pytest.raises(ArtifactMismatch, match="'encoder' artifact"):
        open_encoder(asking(model, adapter=str(tmp_path / "model")))
    weights = path / ADAPTER_WEIGHTS
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(ArtifactCorrupt, match="checksum"):
        open_encoder(config)
    weights.write_bytes(sound[:-1])
    with pytest.raises(ArtifactCorrupt, match="bytes"):
        open_encoder(config)
    weights.unlink()
    with pytest.raises(ArtifactCorrupt, match="missing"):
        open_encoder(config)


def test_file_that_was_never_safetensors(tmp_path, model, files):
    manifest = Manifest(
        kind="adapter",
        code_version="1",
        config={"pooling": "mean", "prefix": "", "max_length": 64},
        inputs={"base": files.base},
    )
    with publish(tmp_path / "adapter", manifest) as draft:
        (draft / ADAPTER_WEIGHTS).write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(ArtifactCorrupt, match="cannot be read as safetensors"):
        open_encoder(asking(model, adapter=str(tmp_path / "adapter")))
    with publish(tmp_path / "adapter", manifest) as draft:
        pass
    with pytest.raises(ArtifactCorrupt, match="lists no file"):
        open_encoder(asking(model, adapter=str(tmp_path / "adapter")))


QUERY = "model.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.nothing.weight": torch.ones(2)}, "does not have"),
        ({QUERY: torch.ones(32)}, r"the model's has \(32, 32\)"),
        ({QUERY + ".lora_a": torch.ones(2, 32)}, r"None, \(2, 32\), None"),
        ({QUERY + ".lora_a": torch.ones(2, 32), QUERY + ".lora_b": torch.ones(32, 3)}, "shapes"),
        ({QUERY + ".lora_a": torch.ones(32, 32), QUERY + ".lora_b": torch.ones(32, 3)}, "shapes"),
        ({QUERY + ".lora_a": torch.ones(2, 32), QUERY + ".lora_b": torch.ones(31, 2)}, "shapes"),
        ({QUERY + ".lora_a": torch.ones(32), QUERY + ".lora_b": torch.ones(32, 32)}, "shapes"),
        (
            {
                QUERY: torch.ones(32, 32),
                QUERY + ".lora_a": torch.ones(2, 32),
                QUERY + ".lora_b": torch.ones(32, 2),
            },
            "shapes",
        ),
        ({"head.weight": torch.ones(16, 32)}, r"the model's has \(32, 32\)"),
    ],
)
def test_tensors_that_do_not_fit_change_nothing(pooled, tensors, message):
    before = vectors(pooled)
    sound = {"model.embeddings.LayerNorm.bias": torch.ones(32)}
    with pytest.raises(ArtifactMismatch, match=message):
        apply_adapter(pooled, sound | tensors, name="x")
    assert torch.equal(vectors(pooled), before)
    assert pooled.head is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_numbers_that_half_precision_cannot_hold(tmp_path, files, pooled, value):
    module = trained(pooled, KINDS[2])
    with torch.no_grad():
        module.model.encoder.layer[0].output.dense.lora_b[3, 1] = value
    with pytest.raises(EncoderError, match=r"layer.0.output.dense.*not finite in torch.float16"):
        saved(tmp_path / "adapter", module, files)
    assert not (tmp_path / "adapter").exists()


def test_nothing_trained(tmp_path, files, pooled):
    with pytest.raises(EncoderError, match="nothing was trained"):
        saved(tmp_path / "adapter", pooled.requires_grad_(False), files)


def test_no_adapter_on_an_adapter(tmp_path, model, files, pooled):
    path = saved(tmp_path / "one", trained(pooled, KINDS[-1]), files).path
    onward = locate(asking(model, adapter=str(path)))
    module = trained(load_pooled(onward), KINDS[2])
    with pytest.raises(EncoderError, match="with the adapter"):
        saved(tmp_path / "two", module, onward)
    # what it says to do
    whole = compress(module, load_pooled(files), rank=4)
    assert whole.lost < 1e-3
    found = saved(tmp_path / "two", module, files, whole.tensors).path
    again = load_pooled(locate(asking(model, adapter=str(found))))
    assert (1 - (vectors(again) * vectors(module)).sum(1)).max() < 1e-5


def test_the_packaged_adapter(tmp_path, model, files, pooled, monkeypatch, caplog):
    place = tmp_path / "cache" / "encoders" / "multilingual-e5-small"
    with publish(place, Manifest(kind="encoder", code_version="1")) as draft:
        shutil.copytree(model, draft, dirs_exist_ok=True)
    default = EncoderConfig(engine="torch")
    assert locate(default.model_copy(update={"adapter": "none"})).adapter is None
    monkeypatch.setattr(embedded, "_ADAPTER", tmp_path / "packaged")
    assert embedded.packaged_adapter() is None
    assert locate(default).adapter is None
    saved(tmp_path / "packaged", trained(pooled, KINDS[-1]), files)
    assert embedded.packaged_adapter() == locate(default).adapter == tmp_path / "packaged"
    assert locate(default.model_copy(update={"adapter": "none"})).adapter is None
    assert locate(asking(model)).adapter is None
    assert not caplog.records
    # other weights under the same name, as the hub has them
    other = tiny_bert(tmp_path / "other", seed=1)
    with publish(place, Manifest(kind="encoder", code_version="1")) as draft:
        shutil.copytree(other, draft, dirs_exist_ok=True)
    assert locate(default).adapter is None
    assert "goes without its adapter" in caplog.text


def test_packaged_path_lies_in_the_package():
    assert Path(embedded.__file__).parent / "data" / "adapter" == embedded._ADAPTER


def moved(module, *, rank):
    """As full training leaves it: updates of which few directions matter, and small ones."""
    generator = torch.Generator().manual_seed(5)
    prepare(module, AdapterConfig(freeze_embeddings=False), on_gpu=False)
    with torch.no_grad():
        for parameter in trained_state(module).values():
            if parameter.ndim == 2:
                rows, columns = parameter.shape
                a = torch.randn(rank, columns, generator=generator)
                b = torch.randn(rows, rank, generator=generator)
                sizes = 0.1 * 0.5 ** torch.arange(rank)
                parameter += (b * sizes) @ a / math.sqrt(rank)
            else:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return module


def test_compression_error_falls_with_rank(files):
    base = load_pooled(files)
    full = moved(load_pooled(files), rank=8)
    target = vectors(full)
    losses, distances = [], []
    for rank in (1, 2, 4, 8):
        made = compress(full, base, rank=rank)
        module = load_pooled(files)
        apply_adapter(module, made.tensors, name="x")
        losses.append(made.lost)
        distances.append(float(1 - (vectors(module) * target).sum(1).mean()))
    # of sizes that halve, what is left after r of them is 2^-r
    np.testing.assert_allclose(losses[:3], [0.5**r for r in (1, 2, 4)], rtol=0.5)
    assert losses == sorted(losses, reverse=True)
    assert distances == sorted(distances, reverse=True)
    assert losses[-1] < 1e-5
    assert distances[-1] < 1e-5 < distances[0]
    norm = "model.encoder.layer.0.output.LayerNorm.weight"
    assert torch.equal(made.tensors[norm], full.state_dict()[norm])
    assert made.tensors["model.embeddings.word_embeddings.weight.lora_a"].shape == (8, 32)


def test_compressed_and_published(tmp_path, model, files):
    full = moved(load_pooled(files), rank=4)
    full.head = torch.nn.Linear(32, 32, bias=False)
    made = compress(full, load_pooled(files), rank=4)
    path = saved(tmp_path / "adapter", full, files, made.tensors).path
    again = load_pooled(locate(asking(model, adapter=str(path))))
    assert (1 - (vectors(again) * vectors(full)).sum(1)).max() < 1e-5
    assert (path / ADAPTER_WEIGHTS).stat().st_size < (model / "model.safetensors").stat().st_size


def test_what_cannot_be_compressed(tmp_path, files):
    base = load_pooled(files)
    with pytest.raises(EncoderError, match="does not differ"):
        compress(load_pooled(files), base, rank=2)
    other = load_pooled(locate(asking(tiny_bert(tmp_path / "wide", hidden=64))))
    with pytest.raises(EncoderError, match="differ in more than values"):
        compress(other, base, rank=2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
def test_factors_are_the_best_of_their_rank(rows, columns, rank, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()
    a, b = factors(matrix, rank)
    assert a.shape == (min(rank, rows, columns), columns)
    left = torch.linalg.svdvals(matrix)[rank:].square().sum().sqrt()
    torch.testing.assert_close(torch.linalg.norm(matrix - b @ a), left, atol=1e-6, rtol=1e-6)


def test_factors_of_nothing():
    a, b = factors(torch.zeros(5, 3).double(), 2)
    assert torch.equal(b @ a, torch.zeros(5, 3).double())
    assert a.isfinite().all()
    assert b.isfinite().all()


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_half_precision_steps(pooled, config):
    made = prepare(pooled, config, on_gpu=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pooled(*BATCH)
    assert found.dtype == torch.float32
    # before normalising, or it would be off by bfloat16's 2^-9
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
    found.pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in made)


def test_head_of_another_file_is_read(tmp_path, files, pooled):
    # a file written by other means than ours, in bfloat16
    path = saved(tmp_path / "adapter", pooled, files, {"head.weight": torch.eye(32) * 2}).path
    tensors = {"head.weight": (torch.eye(32) * 2).bfloat16()}
    manifest = open_artifact(path, "adapter").manifest
    with publish(path, manifest.model_copy(update={"fingerprint": ""})) as draft:
        save_file(tensors, draft / ADAPTER_WEIGHTS)
    before = vectors(pooled)
    load_adapter(path, pooled, base=files.base)
    assert pooled.head.weight.dtype == torch.float32
    torch.testing.assert_close(vectors(pooled), before)


def test_dropout_reaches_every_layer(pooled):
    pooled.set_dropout(0.25)
    parts = [part for part in pooled.modules() if isinstance(part, torch.nn.Dropout)]
    assert len(parts) > 4
    assert {part.p for part in parts} == {0.25}


def test_dropout_of_a_model_that_hands_the_number_to_the_kernel():
    attention = torch.nn.Linear(2, 2)
    attention.attention_dropout = 0.1
    module = Pooled(torch.nn.Sequential(attention), pooling="mean")
    module.set_dropout(0.0)
    assert attention.attention_dropout == 0.0
