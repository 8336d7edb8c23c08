"""Hard negatives in the midst of training: mined anew, with the weights of the moment.

Every `every` steps the texts of the pairs are embedded, all workers doing a part, and for the left
side of each pair that the next steps will draw the nearest safe texts of other concepts are found
(see `negatives`). They join the batch of their pair with the labels of their own concepts: they are
negatives to all of it, but for the texts of their concept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from bioelx_ray.config import TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval.collectives import gather_dealt, place
from bioelx_ray.retrieval.negatives import Bank, Rows, make_bank, mine
from bioelx_ray.retrieval.step import embed_all
from bioelx_ray.retrieval.token_store import TokenStore

NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class HardNegatives:
    """What was mined for pairs.

    `pairs` int64 [n] are their rows, sorted; `texts` and `concepts` int64 [n, per_anchor] the
    numbers of the negatives and of the concepts that these name, `NONE` where there is none.
    """

    pairs: Rows
    texts: Rows
    concepts: Rows

    def of(self, pairs: Rows) -> tuple[Rows, Rows]:
        """The texts and the concepts of the negatives of some of the pairs, both int64 [m]."""
        at = np.searchsorted(self.pairs, pairs)
        texts, concepts = self.texts[at].ravel(), self.concepts[at].ravel()
        there = texts != NONE
        return texts[there], concepts[there]

    def pack(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {name: torch.from_numpy(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def unpack(cls, state: Mapping[str, Tensor]) -> Self:
        """From a checkpoint."""
        return cls(**{name: tensor.numpy() for name, tensor in state.items()})


Mine = Callable[[torch.nn.Module, Rows, int], HardNegatives]
"""The module, the rows of the pairs to mine for, and the step, which seeds what is drawn."""


def miner(store: TokenStore, *, config: TrainConfig, group: ProcessGroup | None = None) -> Mine:
    """What mines in a store's texts. All workers call it together, and all get the same.

    Args:
        store: the pairs, with what their concepts have in common.
        config: `negatives`, `precision` and `micro_tokens` count here.
        group: the workers; by default all where torch.distributed is initialised.

    Raises:
        TrainingError: the store does not say what its concepts have in common.
    """
    shared = store.shared
    if shared is None:
        raise TrainingError("hard negatives are wanted: the store must say what concepts share")

    def found(module: torch.nn.Module, pairs: Rows, step: int) -> HardNegatives:
        pairs = np.unique(pairs)
        asked = store.sides[pairs].astype(np.int64)
        chosen = _bank_texts(store, asked, size=config.negatives.bank, seed=[config.seed, step])
        bank, at = _bank(module, store, chosen, config=config, group=group)
        rank, world = place(group)
        own = slice(rank, None, world)
        concepts = store.concepts[pairs[own]].astype(np.int64)
        rows = mine(
            bank,
            *(bank.rows(at[asked[own, side]], concepts) for side in (0, 1)),
            shared=shared,
            per_anchor=config.negatives.per_anchor,
        )
        named = np.stack([chosen[bank.texts[rows]], bank.concepts[rows]], axis=1)
        named[np.stack([rows, rows], axis=1) == NONE] = NONE
        device = next(module.parameters()).device
        every = gather_dealt(torch.from_numpy(named).to(device), len(pairs), group).cpu().numpy()
        return HardNegatives(pairs=pairs, texts=every[:, 0], concepts=every[:, 1])

    return found


def _bank_texts(store: TokenStore, asked: Rows, *, size: int, seed: list[int]) -> Rows:
    """The numbers of the texts to embed: what is asked, and up to `size` drawn from all."""
    total = len(store.starts) - 1
    drawn = np.random.default_rng(seed).permutation(total)[:size]
    return np.union1d(asked, drawn)


def _bank(
    module: torch.nn.Module,
    store: TokenStore,
    chosen: Rows,
    *,
    config: TrainConfig,
    group: ProcessGroup | None,
) -> tuple[Bank, Rows]:
    """The bank of the chosen texts, and the row that each text has in it, the last for others."""
    rank, world = place(group)
    order = np.argsort(store.lengths(chosen.astype(np.int32)), kind="stable")
    own = embed_all(module, [store.text(text) for text in chosen[order[rank::world]]], config)
    vectors = np.zeros((len(chosen) + 1, own.shape[1]), dtype=np.float16)
    vectors[order] = gather_dealt(own, len(chosen), group).cpu().numpy()
    at = np.full(len(store.starts) - 1, len(chosen))
    at[chosen] = np.arange(len(chosen))
    return make_bank(at[store.sides], store.concepts.astype(np.int64), vectors), at
