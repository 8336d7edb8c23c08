"""What a training changes: weights, optimiser and where it stands. All that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from typing import Self

import torch

from bioelx_ray.artifacts import sha256_json
from bioelx_ray.config import TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval.checkpoints import Checkpoint, State
from bioelx_ray.retrieval.mining import HardNegatives
from bioelx_ray.retrieval.step import precision

# These change how fast a run is, or what is kept of it, not what it learns.
_FREE = {"micro_tokens", "cache_gradients", "compile", "save_every"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run stands: steps done, and what the evaluations found.

    `best` is the step of the best checkpoint, `mean` its mean over the languages, `stale` the
    number of evaluations since then. `stopped` says that the run ended before its last step.
    """

    step: int = 0
    best: int | None = None
    mean: float | None = None
    dev: Mapping[str, float] = field(default_factory=dict)
    stale: int = 0
    stopped: bool = False


class TrainState:
    """A module with an optimiser for those of its parameters that want a gradient."""

    def __init__(self, module: torch.nn.Module, config: TrainConfig) -> None:
        self.module, self.config = module, config
        self.weights = {
            name: weight for name, weight in module.named_parameters() if weight.requires_grad
        }
        if not self.weights:
            raise TrainingError("no weight of the model is to be trained: see train.adapter")
        device = next(iter(self.weights.values())).device
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=device.type in {"cpu", "cuda"},
        )
        # with five bits of exponent small gradients are lost unless they are scaled
        half = precision(config, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half == torch.half)
        self.standing = Standing()
        self.negatives: HardNegatives | None = None

    def pack(self, run: str) -> State:
        """For a checkpoint; `run` is the name that `unpack` compares."""
        standing = {name: getattr(self.standing, name) for name in Standing.__slots__}
        return {
            "run": run,
            "standing": standing | {"dev": dict(self.standing.dev)},
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "negatives": self.negatives.pack() if self.negatives else {},
        }

    def unpack(self, checkpoint: Checkpoint, run: str) -> Self:
        """Take all over from a checkpoint.

        Raises:
            TrainingError: it is another run's.
        """
        state = checkpoint.state
        if state["run"] != run:
            raise TrainingError(
                f"the work directory holds step {checkpoint.step} of another run (other pairs, "
                "weights or settings): remove it or choose another"
            )
        self.take_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.standing = Standing(**state["standing"])
        self.negatives = HardNegatives.unpack(found) if (found := state["negatives"]) else None
        return self

    def update(self, lr: float) -> float:
        """Take the optimiser's step at a learning rate; give the gradient's norm before clipping.

        Where the norm is not finite the weights stay as they are.
        """
        self.scaler.unscale_(self.optimizer)
        weights = list(self.weights.values())
        bound = self.config.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(weights, bound))
        for each in self.optimizer.param_groups:
            each["lr"] = lr
        if isfinite(norm) or self.scaler.is_enabled():  # the scaler sees to it itself
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def take_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Overwrite the trained weights in place."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(weights[name])


def run_name(module: torch.nn.Module, config: TrainConfig, *, data: str) -> str:
    """Names a run: its data's fingerprint, all weights it starts from, and what decides it."""
    digest = blake2b(digest_size=16)
    for name, weight in module.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.requires_grad}".encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha256_json([data, digest.hexdigest(), config.model_dump(exclude=_FREE)])


def seed_everything(seed: int, step: int, *, rank: int) -> None:
    """Seed torch for a step of a worker, so that dropout does not depend on the steps before."""
    digest = blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest) >> 1)
