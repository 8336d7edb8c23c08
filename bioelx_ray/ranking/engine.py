"""The engine protocol: prompts in, log-probabilities of answers at the next token out.

Nothing is generated and no prose is read. The engines are in `ranking.engines`; a scripted one that
needs no model is `testing.ScriptedEngine`. All pass the same contract tests.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.config_ranking import EngineConfig
from bioelx_ray.errors import EngineError, EngineTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a chat."""

    role: Literal["system", "user"]
    content: str


Prompt = str | tuple[Message, ...]
"""A text, sent as it is, or messages, for which the engine has its model's chat format."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a model thinks of answers, in the order of the prompts and of the answers.

    Attributes:
        logprobs: natural logarithms float64 [prompts, answers]; -inf for what is no single token
            of the model, or the same token as an earlier answer.
        exact: bool [prompts, answers]. Where False, the model was not heard on this answer, and
            the log-probability is an upper bound.
    """

    logprobs: NDArray[np.float64]
    exact: NDArray[np.bool_]


class Engine(Protocol):
    """A causal language model, asked for its next token."""

    @property
    def identity(self) -> str:
        """Names the model's content, whatever runs it and where."""
        ...

    @property
    def special_tokens(self) -> frozenset[str]:
        """What the model's tokenizer reads as one token wherever it stands in a text."""
        ...

    def count(self, text: str) -> int:
        """The number of tokens of a text, or of code points where the tokenizer is not known."""
        ...

    async def logprobs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, deadline: float | None = None
    ) -> Answered:
        """The log-probability of each answer as the next token of each prompt.

        `deadline` is in seconds since the epoch. Past it, and when the caller is cancelled, the
        model's work is stopped.

        Raises:
            EngineTimeout: the deadline passed.
            EngineError: the model cannot be reached, refuses, or gives no log-probabilities.
        """
        ...

    async def close(self) -> None:
        """Free what the engine holds: processes, connections, memory."""
        ...


def open_engine(config: EngineConfig) -> Engine:
    """The engine of a configuration, its model loaded or its server named.

    Raises:
        EngineError: the model cannot be loaded, or the engine is not installed.
        ConfigError: an environment variable that should hold a key is not set.
    """
    if config.kind == "transformers":
        from bioelx_ray.ranking.engines.transformers_engine import TransformersEngine

        return TransformersEngine(config)
    if config.kind == "openai":
        from bioelx_ray.ranking.engines.server_engine import ServerEngine

        return ServerEngine(config)
    from bioelx_ray.ranking.engines.vllm_engine import VllmEngine

    return VllmEngine(config)


@asynccontextmanager
async def until(deadline: float | None) -> AsyncIterator[None]:
    """A block that is cancelled when the deadline passes, seconds since the epoch.

    Raises:
        EngineTimeout: it passed, or had passed before.
    """
    left = None if deadline is None else deadline - time.time()
    late = EngineTimeout("the deadline passed before the ranker's model had answered")
    if left is not None and left <= 0:
        raise late
    scope = asyncio.timeout(left)
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise late from None
        raise


_ROUNDING = 1e-6
Token = TypeVar("Token", str, int)


def from_top(
    top: Mapping[Token, float], answers: Sequence[Token]
) -> tuple[list[float], list[bool]]:
    """Log-probabilities of answers and whether they are exact, from a model's likeliest tokens.

    Tokens are given by their texts or by their ids.

    An answer that is not among them is at most as likely as the last of them, and as what all of
    them leave: that bound is taken.

    Raises:
        EngineError: there are none.
    """
    if not top:
        raise EngineError("the model gave no log-probabilities: does its server allow them?")
    left = max(0.0, 1.0 - sum(map(math.exp, top.values()))) + _ROUNDING
    bound = min(min(top.values()), math.log(left))
    return [top.get(answer, bound) for answer in answers], [answer in top for answer in answers]
