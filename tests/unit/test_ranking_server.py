"""What can go wrong between us and an OpenAI-compatible server."""

import asyncio
import json
import logging
import time

import numpy as np
import pytest

from bioelx_ray.config_ranking import ServerConfig
from bioelx_ray.errors import ConfigError, EngineError, EngineTimeout
from bioelx_ray.ranking.engine import Message
from bioelx_ray.ranking.engines import server_engine
from bioelx_ray.ranking.engines.server_engine import ServerEngine
from tests.language_models import serving

CANARY = "patient Zanzibar Quux"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server_engine, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(server_engine, "_LONGEST_PAUSE_S", 0.3)


@pytest.fixture
def server():
    with serving() as running:
        yield running


def ask(server, prompts=(CANARY,), answers=("yes", " yes"), *, deadline=None, **settings):
    async def asked():
        engine = ServerEngine(ServerConfig(**{"url": server.url, "model": "m"} | settings))
        try:
            return await engine.logprobs(list(prompts), list(answers), deadline=deadline)
        finally:
            await engine.close()

    return asyncio.run(asked())


def test_a_text_is_completed_and_messages_are_chatted(server):
    texts = ["a text", (Message(role="user", content="a message"),)]
    found = ask(server, texts, [" yes", "no", " maybe", "yes"], extra_body={"seed": 7})
    np.testing.assert_allclose(found.logprobs[:, :3], [[-0.5, -1.0, -3.0]] * 2)
    assert found.exact.tolist() == [[True, True, True, False]] * 2
    by_path = {path: body for path, _, body in server.requests}
    text, chat = by_path["/v1/completions"], by_path["/v1/chat/completions"]
    assert (text["prompt"], text["logprobs"], text["max_tokens"]) == ("a text", 20, 1)
    assert chat["messages"] == [{"role": "user", "content": "a message"}]
    assert (chat["logprobs"], chat["top_logprobs"], chat["temperature"]) == (True, 20, 0)
    assert text["seed"] == chat["seed"] == 7
    assert text["model"] == "m"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server, status):
    server.plan = [(status, {}), (status, {"retry-after": "not a number"})]
    assert ask(server).exact.tolist() == [[False, True]]
    assert len(server.requests) == 3


def test_the_servers_own_pause_is_kept(server):
    server.plan = [(429, {"retry-after": "0.25"})]
    start = time.perf_counter()
    ask(server)
    assert time.perf_counter() - start >= 0.25


def test_attempts_end(server):
    server.plan = [(503, {})] * 3
    with pytest.raises(EngineError, match="HTTP 503 after 3 attempts"):
        ask(server, retries=2)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "hint"), [(400, "top_logprobs"), (401, "check the key"), (404, "model name")]
)
def test_what_will_not_pass_is_not_tried_again(server, status, hint):
    server.plan = [(status, {})] * 9
    with pytest.raises(EngineError, match=f"HTTP {status} for model 'm': .*{hint}"):
        ask(server)
    assert len(server.requests) == 1


def test_no_server_is_an_error_that_names_the_address():
    with serving() as gone:
        url = gone.url
    with pytest.raises(EngineError, match=f"{url}/completions: ConnectError after 2 attempts"):
        ask(gone, retries=1)


def test_a_slow_server_is_given_up(server):
    server.delay_s = 0.5
    with pytest.raises(EngineError, match="ReadTimeout after 1 attempts"):
        ask(server, timeout_s=0.1, retries=0)


def test_the_deadline_counts_over_all_attempts(server):
    server.plan = [(503, {"retry-after": "5"})] * 9
    start = time.perf_counter()
    with pytest.raises(EngineTimeout):
        ask(server, retries=9, deadline=time.time() + 0.4)
    assert time.perf_counter() - start < 2
    assert 1 <= len(server.requests) < 9


def test_no_more_requests_at_a_time_than_configured(server):
    server.delay_s = 0.05
    ask(server, [f"prompt {n}" for n in range(12)], concurrency=3)
    assert server.most <= 3
    assert len(server.requests) == 12


def test_one_failure_cancels_the_rest(server):
    server.plan = [(400, {})]
    server.delay_s = 0.05
    with pytest.raises(EngineError):
        ask(server, [f"prompt {n}" for n in range(100)], concurrency=2)
    assert len(server.requests) < 10


def test_the_key_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    ask(server, api_key_env="TEST_KEY")
    assert server.requests[0][1]["authorization"] == "Bearer sk-secret"
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigError, match="TEST_KEY should hold the key"):
        ask(server, api_key_env="TEST_KEY")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"logprobs": null}]}',
        b'{"choices": [{"logprobs": {"top_logprobs": [null], "tokens": [],'
        b' "token_logprobs": []}}]}',
        b'{"choices": [{"logprobs": {"top_logprobs": [{"a": "b"}], "tokens": ["a"],'
        b' "token_logprobs": [0]}}]}',
        b'{"choices": [{"logprobs": {"top_logprobs": [{"a": NaN}], "tokens": ["a"],'
        b' "token_logprobs": [0]}}]}',
    ],
)
@pytest.mark.parametrize("prompt", ["text", (Message(role="user", content="x"),)])
def test_an_answer_of_another_kind_is_an_error(server, body, prompt):
    server.plan = [body]
    with pytest.raises(EngineError, match=r"no JSON|log-probabilities"):
        ask(server, [prompt])


def test_no_text_and_no_key_in_errors_and_logs(server, monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": CANARY}).encode()
    said = []
    for plan in ([(400, {})], [(503, {})] * 2, [echo], [CANARY.encode()]):
        server.plan = list(plan)
        with pytest.raises(EngineError) as caught:
            ask(server, retries=1, api_key_env="TEST_KEY")
        error = caught.value
        while error is not None:  # what a traceback prints
            said.append(str(error))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert len(server.requests) == 5
    for text in [*said, caplog.text]:
        assert "Zanzibar" not in text
        assert "sk-secret" not in text


def test_identity_is_the_name_or_what_is_given(server):
    assert ServerEngine(ServerConfig(url=server.url, model="m")).identity == "served:m"
    named = ServerConfig(url=server.url, model="m", fingerprint="sha256:1")
    assert ServerEngine(named).identity == "sha256:1"
    assert ServerEngine(named).count("심근경색") == 4
