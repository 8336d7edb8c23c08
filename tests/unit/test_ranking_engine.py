"""The contract of `Engine`, held by transformers, by a server's client and by the stand-in."""

import asyncio
import time

import numpy as np
import pytest
import torch

from bioelx_ray.config_ranking import ServerConfig, TransformersConfig
from bioelx_ray.errors import EngineError, EngineTimeout
from bioelx_ray.ranking.engine import Message, from_top, open_engine, until
from bioelx_ray.ranking.engines.prefixes import batches
from bioelx_ray.ranking.loop import LoopThread
from bioelx_ray.testing import ScriptedEngine
from tests.language_models import serving, tiny_model

LOOP = LoopThread()

SHARED = "<|im_start|>user\nThe patient has fever and cough. Candidate: "
PROMPTS = [
    *(f"{SHARED}{name}" for name in ("fever", "cold", "asthma", "a long name of a candidate")),
    "심근경색이 있다",
    "ไข้หวัดใหญ่",
    "心肌梗死",
    "心筋梗塞",
    "احتشاء عضلة القلب",
    "אוטם שריר הלב",
    "दिल का दौरा",
    (Message(role="user", content="Is it fever?"),),
    "x",
]
ANSWERS = ["yes", " yes", "no", " no", "A", "B", "heart attack"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as running:
        yield running


@pytest.fixture(scope="module", params=["transformers", "server", "server-top-5", "scripted"])
def engine(request, model):
    if request.param == "scripted":
        return ScriptedEngine()
    if request.param == "transformers":
        return open_engine(TransformersConfig(model=str(model), device="cpu"))
    running = request.getfixturevalue("server")
    top = 5 if request.param == "server-top-5" else 1000
    return open_engine(
        ServerConfig(url=running.url, model="tiny", tokenizer=str(model), top_logprobs=top)
    )


def ask(engine, prompts, answers=ANSWERS, *, deadline=None):
    return LOOP.run(engine.logprobs(prompts, answers, deadline=deadline))


def test_a_row_a_prompt_and_a_column_an_answer(engine):
    found = ask(engine, PROMPTS)
    assert found.logprobs.shape == found.exact.shape == (len(PROMPTS), len(ANSWERS))
    assert (found.logprobs <= 0).all()
    known = np.where(found.exact, np.exp(found.logprobs), 0).sum(axis=1)
    assert (known <= 1 + 1e-6).all()


def test_order_and_company_do_not_change_an_answer(engine):
    whole = ask(engine, PROMPTS)
    for rows in ([4], list(reversed(range(len(PROMPTS)))), [0, 0, 7, 2]):
        part = ask(engine, [PROMPTS[row] for row in rows])
        np.testing.assert_allclose(part.logprobs, whole.logprobs[rows], atol=1e-5)
    few = ask(engine, PROMPTS, ["no", "yes"])
    np.testing.assert_allclose(few.logprobs, whole.logprobs[:, [2, 0]], atol=1e-5)


def test_nothing_asked_nothing_answered(engine):
    assert ask(engine, []).logprobs.shape == (0, len(ANSWERS))
    assert ask(engine, PROMPTS[:2], []).logprobs.shape == (2, 0)


def test_what_is_no_single_token_is_never_taken_for_heard(engine):
    found = ask(engine, PROMPTS)
    column = found.logprobs[:, ANSWERS.index("heart attack")]
    exact = found.exact[:, ANSWERS.index("heart attack")]
    assert (np.isneginf(column) | ~exact).all()


def test_a_deadline_that_has_passed_stops_everything(engine):
    with pytest.raises(EngineTimeout, match="deadline passed"):
        ask(engine, PROMPTS, deadline=time.time() - 1)


def test_identity_and_counts_stay_the_same(engine):
    assert engine.identity == engine.identity != ""
    assert engine.count("") == 0
    assert 0 < engine.count("심근경색") <= engine.count("심근경색 심근경색")
    assert "<|im_end|>" in engine.special_tokens


@pytest.fixture(scope="module")
def plain(model):
    return open_engine(TransformersConfig(model=str(model), device="cpu"))


def reference(model, prompt, answer):
    """A log-probability by one plain forward pass."""
    from transformers import AutoModelForCausalLM

    from tests.language_models import tokenizer

    words = tokenizer()
    loaded = AutoModelForCausalLM.from_pretrained(model).eval()
    ids = words.encode(prompt, add_special_tokens=False)
    with torch.inference_mode():
        logits = loaded(torch.tensor([ids])).logits[0, -1]
    return torch.log_softmax(logits, -1)[words.convert_tokens_to_ids(answer)].item()


def test_shared_beginnings_change_nothing(model, plain):
    shared = "the same long context " * 10
    prompts = [shared + end for end in ("a", "b and more", "c" * 40, "", "the")]
    found = ask(plain, prompts, ["yes", "no"]).logprobs
    for row, prompt in enumerate(prompts):
        assert found[row, 0] == pytest.approx(reference(model, prompt, "yes"), abs=1e-4)
        assert found[row, 1] == pytest.approx(reference(model, prompt, "no"), abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [64, 300, 100_000])
def test_the_size_of_batches_changes_nothing(model, plain, batch_tokens):
    config = TransformersConfig(model=str(model), device="cpu", batch_tokens=batch_tokens)
    found = ask(open_engine(config), PROMPTS).logprobs
    np.testing.assert_allclose(found, ask(plain, PROMPTS).logprobs, atol=1e-5)


def test_spellings_that_are_one_token_count_once(plain):
    found = ask(plain, ["x"], ["yes", "yes", "Yes", " yes", ""])
    assert np.isfinite(found.logprobs).tolist() == [[True, False, False, True, False]]
    assert found.exact.all()


def test_a_server_and_the_model_itself_agree(model, server, plain):
    client = open_engine(ServerConfig(url=server.url, model="tiny", top_logprobs=1000))
    answers = ["yes", " yes", "no", "A"]
    heard = ask(client, PROMPTS, answers)
    assert heard.exact.all()
    np.testing.assert_allclose(heard.logprobs, ask(plain, PROMPTS, answers).logprobs, atol=1e-4)


def test_what_a_top_list_lacks_is_bounded_from_above(model, server, plain):
    client = open_engine(ServerConfig(url=server.url, model="tiny", top_logprobs=5))
    answers = ["yes", " yes", "no", " no", "A", "B"]
    heard, true = ask(client, PROMPTS, answers), ask(plain, PROMPTS, answers)
    assert not heard.exact.all()
    assert (heard.logprobs >= true.logprobs - 1e-4).all()


def test_bounds_of_a_top_list():
    values, exact = from_top({"a": np.log(0.6), "b": np.log(0.3)}, ["b", "c"])
    assert exact == [True, False]
    assert values == pytest.approx([np.log(0.3), np.log(0.1)], abs=1e-4)  # what is left
    values, _ = from_top({"a": np.log(0.2), "b": np.log(0.1)}, ["c"])
    assert values == pytest.approx([np.log(0.1)])  # the last of the list
    with pytest.raises(EngineError, match="no log-probabilities"):
        from_top({}, ["a"])


def test_engines_of_one_model_have_one_identity(model, plain, tmp_path):
    again = open_engine(TransformersConfig(model=str(model), device="cpu", dtype="float32"))
    other = open_engine(TransformersConfig(model=str(tiny_model(tmp_path, seed=1)), device="cpu"))
    assert again.identity == plain.identity != other.identity
    assert plain.identity.startswith("sha256:")


def test_too_long_a_prompt_is_an_error_without_its_text(tmp_path):
    engine = open_engine(
        TransformersConfig(model=str(tiny_model(tmp_path, positions=64)), device="cpu")
    )
    with pytest.raises(EngineError, match="a prompt of 65 tokens") as caught:
        ask(engine, ["q" * 65])
    assert "qq" not in str(caught.value)


def test_a_directory_without_a_model_is_an_error(tmp_path):
    with pytest.raises(EngineError, match="finds no tokenizer"):
        open_engine(TransformersConfig(model=str(tmp_path), device="cpu"))


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    directory = tiny_model(tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"lack 1 tensors.*model\.norm\.weight"):
        open_engine(TransformersConfig(model=str(directory), device="cpu"))


def test_a_cancelled_caller_stops_the_model(model):
    engine = open_engine(TransformersConfig(model=str(model), device="cpu", batch_tokens=64))
    prompts = [f"{number} " * 60 for number in range(3000)]

    ran = []
    forward = engine._forward
    engine._forward = lambda *given: ran.append(1) or forward(*given)

    async def cancelled():
        task = asyncio.create_task(engine.logprobs(prompts, ["yes"]))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = len(ran)
        await engine.logprobs(["x"], ["yes"])  # waits for the other to leave the model
        return before

    before = asyncio.run(cancelled())
    assert before <= len(ran) <= before + 3 < len(prompts)


def test_a_deadline_stops_between_batches(model):
    engine = open_engine(TransformersConfig(model=str(model), device="cpu", batch_tokens=64))
    start = time.perf_counter()
    with pytest.raises(EngineTimeout):
        ask(engine, [f"{n} " * 60 for n in range(3000)], deadline=time.time() + 0.3)
    assert time.perf_counter() - start < 5


def test_another_timeout_is_not_taken_for_the_deadline():
    async def inner():
        async with until(time.time() + 60):
            raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="something else"):
        asyncio.run(inner())


def test_batches_share_what_rows_begin_with():
    context = list(range(100, 140))
    other = [*range(100, 118), *range(200, 230)]
    ids = [[*context, n] for n in range(4)] + [[*other, n, n] for n in range(3)] + [[1], [2, 3]]
    found = {batch.rows: batch.prefix for batch in batches(ids, batch_tokens=10_000)}
    assert found == {(0, 1, 2, 3): 40, (4, 5, 6): 48, (7, 8): 0}


def test_batches_hold_every_row_once_and_keep_to_the_size():
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 2, rng.integers(1, 60)).tolist() for _ in range(200)]
    ids += [[7] * 30 + [n] for n in range(20)] + [[9] * 500]
    found = list(batches(ids, batch_tokens=200))
    assert sorted(row for batch in found for row in batch.rows) == list(range(len(ids)))
    for batch in found:
        longest = max(len(ids[row]) for row in batch.rows)
        assert len(batch.rows) == 1 or len(batch.rows) * longest <= 200
        first = ids[batch.rows[0]][: batch.prefix]
        for row in batch.rows:
            assert ids[row][: batch.prefix] == first
            assert len(ids[row]) > batch.prefix
