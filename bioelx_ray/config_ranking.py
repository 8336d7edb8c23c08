"""Stage 2's settings: prompts, scoring, engines, and how scores become a decision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bioelx_ray.section import Section

MAX_OPTIONS = 20
"""Letters A to T: what the top list of an OpenAI-compatible server can hold."""

Name = Annotated[str, Field(min_length=1)]


class PromptConfig(Section):
    """What the model reads.

    `template` is a packaged one (``qwen3-reranker``, ``chat``, ``listwise``) or a YAML file.
    `context_tokens` is for both sides of a mention together, `card_tokens` for what is said of a
    candidate, `aliases` how many of its aliases a language may give. Tokens are the model's own; an
    engine that does not know them counts code points.
    """

    template: Name = "qwen3-reranker"
    context_tokens: int = Field(default=256, ge=0, le=16_384)
    mention_tokens: int = Field(default=64, ge=8, le=1024)
    card_tokens: int = Field(default=96, ge=8, le=2048)
    aliases: int = Field(default=4, ge=0, le=64)


class ScoringConfig(Section):
    """How candidates are asked about.

    Only the first `depth` candidates are; the others stay behind them. The rest is for listwise
    templates: a list holds `chunk` candidates and the option "none", and is asked in `rotations`
    orders. `content_free` subtracts what the model answers to a list without content.
    """

    depth: int = Field(default=16, ge=1, le=1024)
    chunk: int = Field(default=8, ge=2, le=MAX_OPTIONS - 1)
    rotations: int = Field(default=3, ge=1, le=MAX_OPTIONS)
    content_free: bool = True


class TransformersConfig(Section):
    """A Hugging Face model run by transformers in this process.

    `model` is a directory, or a name on the hub. A batch holds at most `batch_tokens` tokens,
    padding and what a prompt shares with others counted. `threads` 0 leaves torch's number.
    """

    kind: Literal["transformers"] = "transformers"
    model: Name
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_tokens: int = Field(default=8192, ge=64)
    threads: int = Field(default=0, ge=0)


class ServerConfig(Section):
    """A model behind an OpenAI-compatible server.

    `url` ends before ``/completions``: ``http://host:8000/v1``. `api_key_env` names the environment
    variable that holds the key. `tokenizer` is a directory with the model's own, to count with.
    `extra_body` goes into each request (vLLM: ``{"add_special_tokens": false}``). `timeout_s` is
    for one request; a request is repeated up to `retries` times. `fingerprint` names the model's
    content where the name alone does not pin it.
    """

    kind: Literal["openai"] = "openai"
    url: str = Field(pattern=r"^https?://\S+$")
    model: Name
    fingerprint: Name | None = None
    api_key_env: Name | None = None
    tokenizer: Name | None = None
    top_logprobs: int = Field(default=20, ge=2, le=1024)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    retries: int = Field(default=3, ge=0, le=10)


class VllmConfig(Section):
    """A model run by vLLM in this process, or rather in the engine process that it starts.

    `block_size` left out is 32 on a CPU, where vLLM needs a multiple of it, and vLLM's own choice
    elsewhere. `concurrency` bounds the prompts that wait in vLLM at a time.
    """

    kind: Literal["vllm"] = "vllm"
    model: Name
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int = Field(default=4096, ge=128)
    block_size: int | None = Field(default=None, ge=1)
    enforce_eager: bool = False
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    concurrency: int = Field(default=512, ge=1)
    seed: int = 0


EngineConfig = Annotated[
    TransformersConfig | ServerConfig | VllmConfig, Field(discriminator="kind")
]


class CalibrationConfig(Section):
    """How scores become probabilities, fitted on development data.

    ``temperature`` takes the fitted model's own probability, ``isotonic`` corrects it by a
    monotone curve. `precision` is what the links above the NIL threshold must reach, None sets no
    threshold; a threshold that fewer than `min_answers` links pass is not trusted. `ridge` pulls
    the ranker's weight to 0. The ranker counts if it helps on data it was not fitted on, in
    `folds` parts.
    """

    method: Literal["temperature", "isotonic"] = "temperature"
    precision: float | None = Field(default=None, gt=0, lt=1)
    min_answers: int = Field(default=20, ge=1)
    ridge: float = Field(default=1.0, ge=0)
    folds: int = Field(default=5, ge=2, le=50)


class RankingConfig(Section):
    """Stage 2. Without an `engine` it keeps the retriever's order.

    `calibration` is the artifact fitted for this engine, prompt and retriever. Without one the
    weights are these two, and the links are marked uncalibrated; the retriever's is small, so that
    it orders what the ranker does not tell apart. A link that scores below
    `nil_threshold` is NIL; left out, the calibration's threshold holds, if it has one.
    """

    nil_threshold: float | None = Field(default=None, ge=-1, le=1)
    engine: EngineConfig | None = None
    prompt: PromptConfig = PromptConfig()
    scoring: ScoringConfig = ScoringConfig()
    calibration: str | None = None
    ranker_weight: float = Field(default=1.0, ge=0)
    retrieval_weight: float = Field(default=0.01, ge=0)

    @model_validator(mode="after")
    def _weighs(self) -> RankingConfig:
        if not self.ranker_weight and not self.retrieval_weight:
            raise ValueError("ranker_weight and retrieval_weight are both 0: nothing would order")
        return self
