"""What we ask of vLLM and make of its answers, against a stand-in of its few calls.

The real one runs where it is installed; here its surface stands in, so that its part of the
contract (columns, cancellation, dead engines) is tested everywhere.
"""

import asyncio
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from bioelx_ray.config_ranking import VllmConfig
from bioelx_ray.errors import ConfigError, EngineError, EngineTimeout
from bioelx_ray.ranking.engine import Message, open_engine
from tests.language_models import tiny_model, tokenizer


class EngineDeadError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


class AsyncLLM:
    """vLLM's asynchronous engine, as far as it is called. Its log-probability is minus the id."""

    def __init__(self, args):
        self.args, self.asked, self.aborted = args, [], []
        self.delay_s, self.error, self.stopped, self.now, self.most = 0.0, None, False, 0, 0
        self.missing = ()

    @classmethod
    def from_engine_args(cls, args):
        if args.model.endswith("refused"):
            raise ValueError("not enough memory")
        return cls(args)

    async def generate(self, prompt, params, request_id):
        self.asked.append((prompt, params))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.delay_s)
            if self.error:
                raise self.error
            known = [t for t in params.logprob_token_ids if t not in self.missing]
            position = {token: SimpleNamespace(logprob=-token / 100) for token in [*known, 0]}
            yield SimpleNamespace(finished=True, outputs=[SimpleNamespace(logprobs=[position])])
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise
        finally:
            self.now -= 1

    async def check_health(self):
        if self.error:
            raise self.error

    def shutdown(self):
        self.stopped = True


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def on_cpu(monkeypatch):
    return install(monkeypatch, cpu=True)


def install(monkeypatch, *, cpu):
    names = {
        "vllm": {"SamplingParams": SimpleNamespace},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY=2)},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": SimpleNamespace},
        "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: cpu)},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.engine.exceptions": {
            "EngineDeadError": EngineDeadError,
            "EngineGenerateError": EngineGenerateError,
        },
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def opened(model, **settings):
    return open_engine(VllmConfig(model=model, **settings))


def test_each_answer_has_its_own_token(model, on_cpu):
    engine = opened(model)
    words = tokenizer()
    answers = ["no", "Yes", "yes", "yes", " yes"]
    found = asyncio.run(engine.logprobs(["a", (Message(role="user", content="b"),)], answers))
    wanted = [-words.convert_tokens_to_ids(t) / 100 for t in ("no", "yes", "Ġyes")]
    np.testing.assert_allclose(found.logprobs[:, [0, 2, 4]], [wanted, wanted])
    assert np.isneginf(found.logprobs[:, [1, 3]]).all()
    assert found.exact.all()
    (first, params), (second, _) = engine._engine.asked
    assert words.decode(first["prompt_token_ids"]) == "a"
    assert words.decode(second["prompt_token_ids"]).startswith("<|im_start|>user\nb<|im_end|>")
    assert (params.max_tokens, params.temperature, params.detokenize) == (1, 0.0, False)


def test_what_vllm_leaves_out_is_bounded(model, on_cpu):
    engine = opened(model)
    engine._engine.missing = (tokenizer().convert_tokens_to_ids("no"),)
    found = asyncio.run(engine.logprobs(["a"], ["yes", "no"]))
    assert found.exact.tolist() == [[True, False]]
    assert np.isfinite(found.logprobs).all()


def test_nothing_asked_nothing_answered(model, on_cpu):
    engine = opened(model)
    assert asyncio.run(engine.logprobs([], ["yes"])).logprobs.shape == (0, 1)
    none = asyncio.run(engine.logprobs(["a"], ["heart attack"]))
    assert np.isneginf(none.logprobs).all()
    assert engine._engine.asked == []


def test_the_cache_is_on_and_blocks_fit_a_cpu(model, on_cpu, monkeypatch):
    args = opened(model)._engine.args
    assert args.enable_prefix_caching
    assert not args.trust_remote_code
    assert args.block_size == 32
    assert opened(model, block_size=64)._engine.args.block_size == 64
    with pytest.raises(ConfigError, match="multiple of 32"):
        opened(model, block_size=16)
    install(monkeypatch, cpu=False)
    assert not hasattr(opened(model)._engine.args, "block_size")
    assert opened(model, block_size=16)._engine.args.block_size == 16


def test_a_deadline_and_a_cancelled_caller_abort_every_prompt(model, on_cpu):
    engine = opened(model, concurrency=4)
    engine._engine.delay_s = 5

    async def late():
        await engine.logprobs(["a"] * 10, ["yes"], deadline=time.time() + 0.1)

    with pytest.raises(EngineTimeout):
        asyncio.run(late())
    assert len(engine._engine.aborted) == engine._engine.most == 4
    assert engine._engine.now == 0

    async def cancelled():
        task = asyncio.create_task(engine.logprobs(["a"], ["yes"]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    other = opened(model)
    engine._limit, engine._engine = other._limit, other._engine
    engine._engine.delay_s = 5
    asyncio.run(cancelled())
    assert len(engine._engine.aborted) == 1


@pytest.mark.parametrize(
    ("error", "message"), [(EngineDeadError, "has ended"), (EngineGenerateError, "failed on a")]
)
def test_vllms_errors_are_ours_and_hold_no_text(model, on_cpu, error, message):
    engine = opened(model)
    engine._engine.error = error("prompt: Zanzibar")
    with pytest.raises(EngineError, match=message) as caught:
        asyncio.run(engine.logprobs(["Zanzibar"] * 3, ["yes"]))
    assert "Zanzibar" not in str(caught.value)
    assert caught.value.__suppress_context__
    if error is EngineDeadError:
        with pytest.raises(EngineError, match="has ended"):
            asyncio.run(engine.check_health())


def test_prompts_that_do_not_fit_are_an_error(model, on_cpu):
    with pytest.raises(EngineError, match="a prompt of 128 tokens: max_model_len 128"):
        asyncio.run(opened(model, max_model_len=128).logprobs(["x" * 128], ["yes"]))


def test_what_keeps_vllm_from_starting_is_told(model, on_cpu, monkeypatch, tmp_path):
    refused = str(tiny_model(tmp_path / "refused"))
    with pytest.raises(EngineError, match=r"cannot start \(not enough memory"):
        opened(refused)
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setitem(sys.modules, "vllm.engine", None)
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", None)
    with pytest.raises(EngineError, match="install the extra vllm"):
        opened(model)


def test_closing_ends_the_engine(model, on_cpu):
    engine = opened(model)
    asyncio.run(engine.check_health())
    asyncio.run(engine.close())
    assert engine._engine.stopped
