"""Alias training from artifacts to an artifact: what every worker does from beginning to end.

::

    order = checked(Order(pairs=..., out=..., work=..., config=Config()))
    line = tune(order, device=torch.device("cpu"))
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed import ProcessGroup

from bioelx_ray.artifacts import Artifact, open_artifact, sha256_file, sha256_json
from bioelx_ray.config import Config
from bioelx_ray.console import showing_progress
from bioelx_ray.errors import ArtifactMismatch, ConfigError, EncoderError
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval.adapter import adapter_tensors, prepare, save_adapter
from bioelx_ray.retrieval.batched import BatchedEncoder
from bioelx_ray.retrieval.batches import described
from bioelx_ray.retrieval.collectives import place
from bioelx_ray.retrieval.development import EXCLUDE, evaluate, open_development
from bioelx_ray.retrieval.encoder import load_pooled, load_tokens
from bioelx_ray.retrieval.low_rank import compress
from bioelx_ray.retrieval.model_card import Card
from bioelx_ray.retrieval.model_directory import write_model_directory
from bioelx_ray.retrieval.model_files import ModelFiles, locate
from bioelx_ray.retrieval.negatives import concept_ids, shared_keys
from bioelx_ray.retrieval.together import together
from bioelx_ray.retrieval.token_store import open_store
from bioelx_ray.retrieval.torch_engine import Pooled, torch_forward
from bioelx_ray.retrieval.training import Trained, train
from bioelx_ray.retrieval.watch import Develop, Told, Watch

Form = Literal["auto", "adapter", "directory"]
"""What to publish: `auto` is a directory where all of a model is trained, else an adapter."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to train on, from what, and where to.

    `dev` is an artifact of the kind ``development``. `work` keeps checkpoints and metrics, a
    directory a run, and is to lie where all workers see it. `kb` is the knowledge base of the
    pairs, which hard negatives need. `threads` 0 leaves torch's number.
    """

    pairs: Path
    out: Path
    work: Path
    config: Config
    dev: Path | None = None
    kb: Path | None = None
    form: Form = "auto"
    threads: int = 0


def checked(order: Order) -> Order:
    """Find the mistakes that would otherwise come out at the end.

    Raises:
        BioelxError: something that is needed is not there, or does not fit.
    """
    config = order.config
    pairs = open_artifact(order.pairs, "pairs")
    base = locate(config.encoder)
    form: Form = order.form
    if form == "auto":
        form = "directory" if config.train.adapter.kind == "full" else "adapter"
    if form == "adapter" and base.adapter:
        raise EncoderError(
            f"{config.encoder.model} has an adapter ({base.adapter}), on which no second one can "
            "be put: set encoder.adapter to none, or publish a directory"
        )
    if config.train.negatives.every:
        _check_kb(order.kb, pairs)
    if order.dev:
        _check_development(order.dev, pairs)
    return replace(order, form=form)


def _check_kb(path: Path | None, pairs: Artifact) -> None:
    if path is None:
        raise ConfigError(
            "train.negatives.every asks for hard negatives, and which are safe stands in the "
            "knowledge base that the pairs were built from: give it, too"
        )
    found, expected = open_artifact(path, "kb").manifest.fingerprint, pairs.manifest.inputs["kb"]
    if found != expected:
        raise ArtifactMismatch(
            f"{pairs.path} was built from another knowledge base ({expected[:19]}…) than {path} "
            f"({found[:19]}…): hard negatives need the pairs' own"
        )


def _check_development(path: Path, pairs: Artifact) -> None:
    exclude = open_artifact(path, "development").file(EXCLUDE)
    if f"sha256:{sha256_file(exclude)}" not in pairs.manifest.inputs.values():
        _log.warning(
            "%s was not built with --exclude %s: figures are too high where the pairs hold what is "
            "asked",
            pairs.path,
            exclude,
        )


def run_name(order: Order) -> str:
    """Names a run by all that decides it: the same order goes on where it was interrupted."""
    config = order.config
    decisive = [
        open_artifact(order.pairs, "pairs").manifest.fingerprint,
        open_artifact(order.dev, "development").manifest.fingerprint if order.dev else None,
        locate(config.encoder).fingerprint,
        config.train.model_dump(),
    ]
    return f"run-{sha256_json(decisive)[:16]}"


def tune(
    order: Order,
    *,
    device: torch.device,
    group: ProcessGroup | None = None,
    report: Callable[[Told], None] = lambda _: None,
) -> str:
    """Train and publish; give a line of figures.

    All workers call this; the first one publishes. A run that was interrupted goes on.

    Raises:
        BioelxError: see `training.train` and what publishes.
    """
    if order.threads:
        torch.set_num_threads(order.threads)
    config, pairs = order.config, open_artifact(order.pairs, "pairs")
    base = locate(config.encoder)
    # what a model's files lack, such as an unused pooler, is random: alike on all workers
    torch.manual_seed(config.train.seed)
    module = load_pooled(base)
    prepare(module, config.train.adapter, on_gpu=device.type == "cuda", seed=config.train.seed)
    if config.train.dropout is not None:
        module.set_dropout(config.train.dropout)
    module.to(device)
    is_first = place(group)[0] == 0
    with showing_progress() as progress:

        def told(step: Told) -> None:
            if is_first:
                progress("train", step.step, step.steps)
                _tell(step)
            report(step)

        store = open_store(
            pairs,
            load_tokens(base.path, max_length=config.train.max_length),
            prefix=base.prefix,
            home=order.work,
            progress=progress if is_first else lambda *_: None,
        )
        if order.kb and config.train.negatives.every:
            shared = shared_keys(KnowledgeBase.open(order.kb), concept_ids(pairs))
            store = replace(store, shared=shared)
        trained = train(
            module,
            store,
            config=config.train,
            workdir=order.work / run_name(order),
            group=group,
            watch=Watch(
                dev=_development(order, base, device=device, group=group),
                report=told,
                describe=partial(described, pairs),
            ),
        )
    if is_first:
        _publish(order, module, base=base, pairs=pairs, trained=trained)
    return _summary(order, trained)


def _tell(step: Told) -> None:
    if step.dev is None and not step.saved:
        return
    mean = "" if step.dev is None else f", Recall@1 {sum(step.dev.values()) / len(step.dev):.4f}"
    _log.info(
        "step %d of %d: loss %.4f%s, %.0f pairs/s, %.0f s left",
        step.step,
        step.steps,
        step.loss,
        mean,
        step.pairs_per_second,
        step.seconds_left,
    )


def _development(
    order: Order, base: ModelFiles, *, device: torch.device, group: ProcessGroup | None
) -> Develop | None:
    """Recall@1 on held-out aliases, each worker embedding a part of them."""
    if order.dev is None:
        return None
    development = open_development(order.dev)
    tokens = load_tokens(base.path, max_length=base.max_length)

    def dev(module: torch.nn.Module) -> Mapping[str, float]:
        if not isinstance(module, Pooled):
            raise TypeError(f"expected a Pooled module, not {type(module)}")
        encoder = BatchedEncoder(
            tokens=tokens,
            forward=torch_forward(module, device=str(device)),
            dim=module.dim,
            fingerprint="in training",
            engine="torch",
            prefix=base.prefix,
            batch_tokens=order.config.encoder.batch_tokens,
        )
        encode = together(encoder.encode, device=device, group=group)
        return evaluate(encode, development)

    return dev


def _publish(
    order: Order, module: Pooled, *, base: ModelFiles, pairs: Artifact, trained: Trained
) -> None:
    training: dict[str, Any] = {
        **order.config.train.model_dump(),
        "pairs": pairs.manifest.fingerprint,
        "encoder": base.fingerprint,
    }
    figures: dict[str, Any] = {"steps": trained.steps, "best_step": trained.step}
    if trained.dev:
        figures["recall_at_1"] = dict(trained.dev)
    sources = pairs.manifest.sources
    if order.form == "directory":
        card = Card(
            title=order.out.name,
            base_model=order.config.encoder.model,
            langs=sorted(pairs.manifest.counts.get("languages", {})),
            sources=sources,
            training=training,
            figures=figures,
        )
        write_model_directory(order.out, module, base=base, card=card)
        return
    tensors = adapter_tensors(module)
    if order.config.train.adapter.kind == "full":
        small = compress(module, load_pooled(base), rank=order.config.train.adapter.rank)
        tensors, figures["lost"] = small.tensors, small.lost
    save_adapter(order.out, tensors, base=base, training=training, figures=figures, sources=sources)


def _summary(order: Order, trained: Trained) -> str:
    mean = sum(trained.dev.values()) / len(trained.dev) if trained.dev else None
    found = "" if mean is None else f", Recall@1 {mean:.4f} over {len(trained.dev)} languages"
    kind = "an adapter" if order.form == "adapter" else "a model"
    return (
        f"{order.out}: {kind} of step {trained.step} of {trained.steps}{found}; checkpoints and "
        f"metrics are in {order.work / run_name(order)}"
    )
