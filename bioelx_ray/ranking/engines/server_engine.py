"""An OpenAI-compatible server: vLLM's, llama.cpp's, a hosted one.

A text goes to ``/completions``, messages to ``/chat/completions``; of the answer only the top list
of its first token is read. No text of a prompt or of an answer gets into an error or a log.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from bioelx_ray.config_ranking import ServerConfig
from bioelx_ray.errors import ConfigError, EngineError
from bioelx_ray.ranking.engine import Answered, Prompt, from_top, until
from bioelx_ray.ranking.engines.bounded import bounded
from bioelx_ray.ranking.engines.tokens import Tokens
from bioelx_ray.ranking.window import code_points

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_SPACES = str.maketrans("\u0120\u2581", "  ")  # as some servers write a token's leading space


class ServerEngine:
    """A client of one model on one server. It belongs to the event loop that first uses it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._tokens = Tokens(config.tokenizer) if config.tokenizer else None
        self._client = httpx.AsyncClient(
            base_url=config.url.rstrip("/"),
            headers=_headers(config),
            timeout=config.timeout_s,
            verify=config.url.startswith("https:"),  # reading the certificates takes a while
            limits=httpx.Limits(max_connections=config.concurrency),
        )
        self._limit = asyncio.Semaphore(config.concurrency)
        self.identity = config.fingerprint or f"served:{config.model}"
        self.special_tokens = self._tokens.special_tokens if self._tokens else frozenset()

    def count(self, text: str) -> int:
        """See `Engine.count`."""
        return self._tokens.count(text) if self._tokens else code_points(text)

    async def logprobs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, deadline: float | None = None
    ) -> Answered:
        """See `Engine.logprobs`. Answers outside of the server's top list are bounded."""
        async with until(deadline):
            tops = await bounded(self._top, prompts, limit=self._limit)
        found = [from_top(top, answers) for top in tops]
        shape = (len(prompts), len(answers))
        return Answered(
            logprobs=np.array([row for row, _ in found], dtype=np.float64).reshape(shape),
            exact=np.array([row for _, row in found], dtype=np.bool_).reshape(shape),
        )

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._client.aclose()

    async def _top(self, prompt: Prompt) -> Mapping[str, float]:
        common = {"model": self._config.model, "max_tokens": 1, "temperature": 0}
        n = self._config.top_logprobs
        if isinstance(prompt, str):
            body = {**common, "prompt": prompt, "logprobs": n}
            return _completion_top(await self._post("/completions", body))
        messages = [{"role": m.role, "content": m.content} for m in prompt]
        body = {**common, "messages": messages, "logprobs": True, "top_logprobs": n}
        return _chat_top(await self._post("/chat/completions", body))

    async def _post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (JSON)
        where = f"{self._config.url}{path}"
        problem, pause = "", 0.0
        for attempt in range(self._config.retries + 1):
            if attempt:
                await asyncio.sleep(max(pause, _backoff(attempt)))
            try:
                response = await self._client.post(path, json={**body, **self._config.extra_body})
            except httpx.TransportError as error:
                problem, pause = type(error).__name__, 0.0
                continue
            if response.is_success:
                return _json(response, where)
            problem, pause = f"HTTP {response.status_code}", _retry_after(response)
            if response.status_code not in _AGAIN:
                raise EngineError(
                    f"{where}: {problem} for model {self._config.model!r}{_hint(response)}"
                )
        raise EngineError(
            f"{where}: {problem} after {self._config.retries + 1} attempts: is the server up?"
        )


def _headers(config: ServerConfig) -> dict[str, str]:
    if config.api_key_env is None:
        return {}
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise ConfigError(
            f"the environment variable {config.api_key_env} should hold the key for {config.url}, "
            "and is not set"
        )
    return {"authorization": f"Bearer {key}"}


def _backoff(attempt: int) -> float:
    """Seconds: doubled with each attempt, and spread, for clients must not come back together."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(response.headers.get("retry-after", "0"))))
    except ValueError:  # a date: our own pause will do
        return 0.0


def _hint(response: httpx.Response) -> str:
    # the server's own message is left out, for it may quote the prompt
    hints = {401: "check the key", 403: "check the key", 404: "check url and model name"}
    return f": {hints.get(response.status_code, 'check model, template and top_logprobs')}"


def _json(response: httpx.Response, where: str) -> Any:  # noqa: ANN401
    try:
        return response.json()
    except ValueError:
        raise EngineError(f"{where}: the answer is no JSON; is this an OpenAI API?") from None


def _completion_top(answer: Any) -> dict[str, float]:  # noqa: ANN401
    try:
        logprobs = answer["choices"][0]["logprobs"]
        top = dict(logprobs["top_logprobs"][0])
        top.setdefault(logprobs["tokens"][0], logprobs["token_logprobs"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        raise _unreadable("logprobs.top_logprobs") from None
    return _readable(top.items())


def _chat_top(answer: Any) -> dict[str, float]:  # noqa: ANN401
    try:
        first = answer["choices"][0]["logprobs"]["content"][0]
        found = [first, *first["top_logprobs"]]
        return _readable((entry["token"], entry["logprob"]) for entry in found)
    except (KeyError, IndexError, TypeError):
        raise _unreadable("logprobs.content[0].top_logprobs") from None


def _readable(pairs: Iterable[tuple[object, object]]) -> dict[str, float]:
    """Tokens by their text. Of tokens that a server writes alike the likeliest is kept."""
    top: dict[str, float] = {}
    for token, value in pairs:
        if not isinstance(token, str) or not isinstance(value, int | float) or math.isnan(value):
            raise _unreadable("a token's log-probability")
        text = token.translate(_SPACES)
        top[text] = max(top.get(text, -math.inf), min(0.0, float(value)))
    return top


def _unreadable(what: str) -> EngineError:
    return EngineError(
        f"the server's answer has no usable {what}: does it support log-probabilities?"
    )
