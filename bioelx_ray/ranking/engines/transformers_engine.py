"""Transformers in this process: for laptops, tests, and as the reference for other engines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bioelx_ray.config_ranking import TransformersConfig
from bioelx_ray.errors import EngineError, EngineTimeout
from bioelx_ray.quiet import quiet_transformers
from bioelx_ray.ranking.engine import Answered, Prompt, until
from bioelx_ray.ranking.engines.identity import model_identity
from bioelx_ray.ranking.engines.prefixes import Shared, batches
from bioelx_ray.ranking.engines.tokens import Tokens


class TransformersEngine:
    """A causal language model of Hugging Face's, run without generating.

    What prompts begin with alike is run once and its keys and values are shared, which changes a
    log-probability by no more than the order of float additions does.
    """

    def __init__(self, config: TransformersConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self._config = config
        self._tokens = Tokens(config.model)
        self._device = _device(config.device)
        self._model = _load(config, self._device)
        self._limit = int(getattr(self._model.config, "max_position_embeddings", 1 << 30))
        self._lock = threading.Lock()
        self.identity = model_identity(config.model)
        self.special_tokens = self._tokens.special_tokens

    def count(self, text: str) -> int:
        """See `Engine.count`."""
        return self._tokens.count(text)

    async def logprobs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, deadline: float | None = None
    ) -> Answered:
        """See `Engine.logprobs`. The model stops between two batches."""
        stop = threading.Event()

        def run() -> Answered:
            return self._run(prompts, answers, deadline=deadline, stop=stop)

        async with until(deadline):
            try:
                return await asyncio.to_thread(run)
            finally:
                stop.set()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._model = None

    def _run(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        deadline: float | None,
        stop: threading.Event,
    ) -> Answered:
        wanted = [
            (i, token) for i, token in enumerate(self._tokens.single(answers)) if token is not None
        ]
        columns = [i for i, _ in wanted]
        targets = torch.tensor(
            [token for _, token in wanted], dtype=torch.long, device=self._device
        )
        ids = [self._ids(prompt) for prompt in prompts]
        logprobs = np.full((len(prompts), len(answers)), -np.inf)
        with self._lock:
            for batch in batches(ids, batch_tokens=self._config.batch_tokens):
                if stop.is_set() or (deadline is not None and time.time() > deadline):
                    raise EngineTimeout("the deadline passed between two batches of prompts")
                logprobs[np.ix_(batch.rows, columns)] = self._forward(batch, ids, targets)
        return Answered(logprobs=logprobs, exact=np.ones(logprobs.shape, dtype=np.bool_))

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = self._tokens.ids(prompt)
        if not 0 < len(ids) <= self._limit:
            raise EngineError(
                f"a prompt of {len(ids)} tokens: {self._config.model} reads 1 to {self._limit}; "
                "lower the budgets of the prompt"
            )
        return ids

    @torch.inference_mode()
    def _forward(
        self, batch: Shared, ids: Sequence[Sequence[int]], targets: torch.Tensor
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Log-probabilities float64 [rows, targets] of the token behind each row.

        Rows are padded on the right: what follows a token does not change its logits, so there is
        nothing to mask.
        """
        cache = self._shared(ids[batch.rows[0]][: batch.prefix], len(batch.rows))
        rest = [ids[row][batch.prefix :] for row in batch.rows]
        padded = torch.zeros((len(rest), max(map(len, rest))), dtype=torch.long)
        for row, values in enumerate(rest):
            padded[row, : len(values)] = torch.tensor(values)
        last = torch.tensor([len(values) - 1 for values in rest])
        kept, place = torch.unique(last, return_inverse=True)  # logits are wide: of few positions
        output = self._model(
            input_ids=padded.to(self._device),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=kept.to(self._device),
        )
        logits = output.logits[torch.arange(len(rest)), place.to(output.logits.device)].float()
        answers = torch.log_softmax(logits, dim=-1)[:, targets]
        if not torch.isfinite(answers).all():
            raise EngineError(f"{self._config.model} gave no finite logits: try dtype float32")
        found: np.ndarray[Any, np.dtype[np.float64]] = answers.double().cpu().numpy()
        return found

    def _shared(self, prefix: Sequence[int], rows: int) -> Any:  # noqa: ANN401
        """The keys and values of a prefix for a number of rows; None without one."""
        if not prefix:
            return None
        given = torch.tensor([list(prefix)], device=self._device)
        cache = self._model(input_ids=given, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(rows)
        return cache


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _load(config: TransformersConfig, device: torch.device) -> Any:  # noqa: ANN401
    from transformers import AutoModelForCausalLM

    # half precision on a CPU without matrix units is many times slower than single
    default = "float32" if device.type == "cpu" else "auto"
    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                config.model,
                dtype=default if config.dtype == "auto" else config.dtype,
                local_files_only=Path(config.model).is_dir(),
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise EngineError(
            f"{config.model}: transformers cannot load the model ({error})"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise EngineError(
            f"{config.model}: its weights lack {len(missing)} tensors of the model that "
            f"config.json describes, such as {missing[0]}: take another checkpoint"
        )
    return model.to(device).eval()
