"""A step of several processes gives the gradient of one process with the whole batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import multiprocessing
from transformers import BertConfig, BertModel

from bioelx_ray.config import TrainConfig
from bioelx_ray.retrieval.loss import make_loss
from bioelx_ray.retrieval.step import precision
from bioelx_ray.retrieval.torch_engine import Pooled
from tests.processes import CASES, INFO_NCE, batch, module_of, step, train_config, work

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(*, dropout=0.0, pooling="mean"):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    return Pooled(BertModel(config), pooling=pooling).train(dropout > 0)


def assert_same(found, expected, tolerance=1e-5):
    """Relative to a parameter's gradient; where that is 0 but for rounding, to all of it."""
    assert found.keys() == expected.keys()
    whole = torch.stack([g.norm() for g in expected.values() if g is not None]).norm()
    assert whole > 0.01
    for name, wanted in expected.items():
        assert (found[name] is None) == (wanted is None), name
        if wanted is not None:
            off = (found[name] - wanted).norm()
            assert off <= tolerance * (wanted.norm() + 0.01 * whole), name


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The results of every process by case."""
    directory = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, (str(directory),), nprocs=3)
    return [torch.load(Path(directory) / f"{rank}.pt", weights_only=False) for rank in range(3)]


@pytest.mark.parametrize("name", [name for name in CASES if name != "all empty"])
def test_processes_have_the_gradient_of_one(processes, name):
    case = CASES[name]
    figures, expected = step(module_of(case), *batch(), config=train_config(**case.config))
    for results in processes[: len(case.counts)]:
        found, gradients = results[name]
        assert_same(gradients, expected)
        assert found.loss == pytest.approx(figures.loss, rel=1e-5)
        assert (found.texts, found.tokens) == (figures.texts, figures.tokens)
        assert found.tokens <= found.padded_tokens <= 24 * 25


def test_processes_agree_to_the_bit(processes):
    for name, case in CASES.items():
        (figures, first), *others = (results[name] for results in processes[: len(case.counts)])
        for other, gradients in others:
            assert other == figures
            for parameter, gradient in gradients.items():
                assert gradient is first[parameter] is None or gradient.equal(first[parameter])


def test_no_text_in_any_process(processes):
    for results in processes[:2]:
        figures, gradients = results["all empty"]
        assert (figures.loss, figures.texts, figures.padded_tokens) == (0, 0, 0)
        assert all(gradient is None for gradient in gradients.values())


def test_unused_and_frozen_parameters_have_no_gradient(processes):
    """Else an optimiser would decay the weights of the first."""
    words = ["words.weight"]
    for name, frozen in [("even", []), ("frozen", words), ("frozen, empty", words)]:
        for results in processes[:2]:
            _, gradients = results[name]
            without = [parameter for parameter, g in gradients.items() if g is None]
            assert without == [*frozen, "pooler.weight", "pooler.bias"]


def reference(module, texts, labels):
    """The whole batch in one padded piece, by autograd alone."""
    module.zero_grad(set_to_none=True)
    longest = max(map(len, texts))
    ids = torch.tensor([[*text.tolist(), *[0] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    value = make_loss(train_config().loss)(module(ids, mask), torch.as_tensor(labels))
    value.backward()
    return value.item(), {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("cache_gradients", [False, True])
@pytest.mark.parametrize("micro_tokens", [32, 100, 4096])
def test_micro_batches_change_nothing(pooling, cache_gradients, micro_tokens):
    config = train_config(cache_gradients=cache_gradients, micro_tokens=micro_tokens)
    texts, labels = batch()
    value, expected = reference(tiny(pooling=pooling), texts, labels)
    figures, found = step(tiny(pooling=pooling), texts, labels, config=config)
    assert_same(found, expected)
    assert figures.loss == pytest.approx(value, rel=1e-5)
    assert figures.texts == 24
    assert figures.tokens == sum(map(len, texts))
    if micro_tokens == 4096:
        assert figures.padded_tokens == 24 * max(map(len, texts))


def test_sorting_saves_padding():
    texts, labels = batch(200)
    figures, _ = step(tiny(), texts, labels, config=train_config(micro_tokens=256))
    assert figures.padded_tokens < 1.1 * figures.tokens < 0.7 * 400 * 25


@pytest.mark.parametrize("micro_tokens", [64, 4096])
def test_cached_gradients_have_the_same_dropout(micro_tokens):
    results, after = {}, {}
    for cached in (False, True):
        module = tiny(dropout=0.3)
        torch.manual_seed(1)
        config = train_config(cache_gradients=cached, micro_tokens=micro_tokens)
        results[cached] = step(module, *batch(), config=config)
        after[cached] = torch.get_rng_state()
    assert_same(results[True][1], results[False][1], 1e-6)
    assert results[True][0] == results[False][0]
    assert after[True].equal(after[False])
    _, other = step(module, *batch(), config=config)
    with pytest.raises(AssertionError):
        assert_same(other, results[True][1], 0.1)


def test_cached_gradients_keep_no_graph_in_the_first_pass():
    module, seen = tiny(), []
    module.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    step(module, *batch(), config=train_config(cache_gradients=True))
    half = len(seen) // 2
    assert half > 3
    assert seen == [False] * half + [True] * half


def test_a_scaled_loss_scales_gradients_and_figure():
    loss = make_loss(train_config().loss)
    figures, gradients = step(tiny(), *batch())
    scaled, more = step(tiny(), *batch(), loss=lambda e, y: 65536 * loss(e, y))
    assert scaled.loss == 65536 * figures.loss
    used = [name for name, gradient in gradients.items() if gradient is not None]
    assert len(used) == len(gradients) - 2  # but for the pooler
    assert all(more[name].equal(65536 * gradients[name]) for name in used)


@pytest.mark.parametrize("cache_gradients", [False, True])
def test_half_precision(cache_gradients):
    config = train_config(precision="bf16", cache_gradients=cache_gradients)
    seen = []

    def loss(embeddings, labels):
        seen.append(embeddings.dtype)
        return make_loss(config.loss)(embeddings, labels)

    _, exact = step(tiny(), *batch(), config=train_config(**INFO_NCE))
    figures, found = step(tiny(), *batch(), config=train_config(**INFO_NCE, precision="bf16"))
    assert_same(found, exact, 0.2)
    with pytest.raises(AssertionError):
        assert_same(found, exact, 1e-4)
    assert figures.loss > 0
    _, found = step(tiny(), *batch(), config=config, loss=loss)
    _, kept = step(tiny(), *batch(), config=train_config(precision="bf16"))
    assert seen == [torch.float32]
    assert {g.dtype for g in found.values() if g is not None} == {torch.float32}
    assert_same(found, kept, 1e-6)


def test_precision():
    for name, half in [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)]:
        assert precision(TrainConfig(precision=name), CPU) == half
        assert precision(TrainConfig(precision=name), torch.device("cuda")) == half
    assert precision(TrainConfig(), torch.device("cuda")) in {torch.bfloat16, torch.half}


@pytest.mark.parametrize(
    ("native", "chosen"),
    [
        ({}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_precision_that_a_cpu_computes_in(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: native)
    assert precision(TrainConfig(), CPU) == chosen


def test_attention_on_a_cpu_is_not_fused(monkeypatch):
    used = []

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product_attention" in str(func):
                fused = torch.backends.cuda.flash_sdp_enabled()
                used.append((fused, torch.backends.cuda.math_sdp_enabled()))
            return func(*args, **(kwargs or {}))

    with Seen():
        step(tiny(), *batch())
    assert set(used) == {(False, True)}
    assert torch.backends.cuda.flash_sdp_enabled()


def test_broken_weights_show_in_the_loss():
    module = tiny()
    with torch.no_grad():
        module.model.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    figures, _ = step(module, *batch())
    assert np.isnan(figures.loss)


def test_one_text_and_none():
    texts, labels = batch()
    figures, gradients = step(tiny(), texts[:1], labels[:1])
    assert (figures.loss, figures.texts) == (0, 1)
    assert all((g == 0).all() for g in gradients.values() if g is not None)
    figures, gradients = step(tiny(), [], [])
    assert (figures.loss, figures.texts, figures.tokens) == (0, 0, 0)
    assert all(gradient is None for gradient in gradients.values())


def test_a_text_longer_than_a_micro_batch():
    texts = [np.arange(1, 61), np.arange(1, 50), np.arange(40, 99), np.arange(30, 70)]
    value, expected = reference(tiny(), texts, [0, 0, 1, 1])
    figures, found = step(tiny(), texts, [0, 0, 1, 1], config=train_config(micro_tokens=32))
    assert figures.loss == pytest.approx(value, rel=1e-5)
    assert_same(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("precision_name", ["fp32", "bf16", "fp16"])
def test_cached_gradients_have_the_same_dropout_on_cuda(precision_name):
    results = {}
    for cached in (False, True):
        module = tiny(dropout=0.3).cuda()
        torch.manual_seed(1)
        config = train_config(cache_gradients=cached, precision=precision_name)
        results[cached] = step(module, *batch(), config=config)
    assert_same(results[True][1], results[False][1], 1e-3)
    assert results[True][0].loss == pytest.approx(results[False][0].loss, rel=1e-3)
