"""The application: its settings, and how its deployments are joined."""
# no `from __future__ import annotations`: Serve reads the builder's annotation as a class

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from ray import serve
from ray.serve import Application

from bioelx_ray.config import EncoderConfig, RankingConfig, RetrievalConfig, Section
from deployments.gateway import Gateway
from deployments.problems import RETRY_AFTER_S
from deployments.retriever import RetrieverDeployment
from deployments.stage import Stage, open_stage

DEMO = "demo"


class Replicas(Section):
    """How many replicas a deployment has; between `min` and `max` Serve follows the load."""

    min: int = Field(default=1, ge=1, le=1000)
    max: int = Field(default=1, ge=1, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ServeConfig(Section):
    """The application's settings: `args` in the YAML.

    `index` is a directory, or ``demo`` for the demo's artifacts, built where they are missing. `kb`
    left out is the directory ``kb`` beside the index, `encoder` left out the one that the index was
    built with. `queue` is how many requests may wait for the
    retriever in a gateway; `cpus` is what Ray reserves for a replica of the retriever.
    """

    index: str = DEMO
    kb: Path | None = None
    encoder: EncoderConfig | None = None
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: RankingConfig = RankingConfig()
    gateways: Replicas = Replicas()
    retrievers: Replicas = Replicas()
    queue: int = Field(default=64, ge=1, le=10_000)
    cpus: float = Field(default=1, ge=0)


def build(args: ServeConfig) -> Application:
    """The application for `serve run deployments:app` and for `import_path: deployments:app`."""
    index, kb = _paths(args)
    return join(
        args, partial(open_stage, index, kb, encoder=args.encoder, retrieval=args.retrieval)
    )


def join(args: ServeConfig, open_retrieval: Callable[[], Stage]) -> Application:
    """The deployments, joined; `open_retrieval` opens stage 1 in a retriever's replica.

    A replica of the retriever works on one request at a time and holds a few more, so that it never
    waits for the next. What comes beyond that and the queue is answered 429, by the gateway as a
    problem; it has room for more, since a 429 of Serve's own proxy is plain text, and the proxy
    counts as waiting what it is about to hand over.
    """
    ongoing = 8
    room = 4 * (args.queue + ongoing * args.retrievers.max)
    retriever = serve.deployment(
        RetrieverDeployment,
        name="retriever",
        max_ongoing_requests=ongoing,
        max_queued_requests=args.queue,
        ray_actor_options={"num_cpus": args.cpus},
        **_scale(args.retrievers),
    )
    gateway = serve.deployment(
        Gateway,
        name="gateway",
        max_ongoing_requests=room,
        max_queued_requests=room,
        backpressure_config={"status_code": 429, "retry_after_s": RETRY_AFTER_S},
        ray_actor_options={"num_cpus": 0},
        **_scale(args.gateways),
    )
    return gateway.bind(retriever.bind(open_retrieval), args.ranking)


def _scale(replicas: Replicas) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    limits = {"min_replicas": replicas.min, "max_replicas": replicas.max}
    return {"autoscaling_config": limits}


def _paths(args: ServeConfig) -> tuple[Path, Path]:
    if args.index == DEMO:
        from bioelx_ray.demo import ensure_demo

        index, kb = ensure_demo(_log_step)
    else:
        index = Path(args.index)
        kb = index.parent / "kb"
    return index, args.kb or kb


def _log_step(step: str, done: int, total: int) -> None:
    # Serve's logger: its lines are shown by `serve run`, and kept where there is no terminal
    logging.getLogger("ray.serve").info("building the demo: %s, %d of %d", step, done, total)
