"""Pairs to batches: a batch is known by the number of its step alone.

Step t of an epoch takes the rows [t * n, (t + 1) * n) of a permutation that the seed and the epoch
give, n the pairs of a batch over all workers; the last batch of an epoch is smaller. So a run that
is resumed, with any number of workers, sees the batches that an undisturbed one sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact
from bioelx_ray.config import TrainConfig
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.retrieval.mining import HardNegatives
from bioelx_ray.retrieval.token_store import TokenStore

_AHEAD = 4
"""Batches that are made before they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The part of a step's batch that one worker embeds.

    `texts` are the left sides of its pairs, then the right ones, then hard negatives, int32 token
    ids; `labels` int64 [texts] are the numbers of their concepts. `rows` int64 are the pairs of the
    whole batch, of all workers.
    """

    step: int
    texts: list[NDArray[np.int32]]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


class Batches:
    """All batches of a run, for worker `rank` of `world`."""

    def __init__(
        self, store: TokenStore, config: TrainConfig, *, rank: int = 0, world: int = 1
    ) -> None:
        self.store = store
        self._pairs, self._size = len(store.concepts), config.batch_pairs
        self._seed, self._rank, self._world = config.seed, rank, world
        self._epoch: tuple[int, NDArray[np.int64]] | None = None
        self.per_epoch = ceil(self._pairs / self._size)
        wanted = max(1, ceil(config.epochs * self.per_epoch - 1e-9))
        self.steps = min(wanted, config.max_steps or wanted)

    def rows(self, step: int) -> NDArray[np.int64]:
        """The pairs of a step's whole batch, int64. Steps count from 0."""
        epoch, at = divmod(step, self.per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._pairs)
            self._epoch = epoch, order
        return self._epoch[1][at * self._size : (at + 1) * self._size]

    def batch(self, step: int, negatives: HardNegatives | None = None) -> Batch:
        """This worker's part of a step's batch; it may be empty where a batch is tiny.

        The pairs are dealt out by length, there and back, so that all workers have as much to do.
        Each brings its negatives with it.
        """
        store, rows = self.store, self.rows(step)
        lengths = store.lengths(store.sides[rows]).sum(1)
        hand = np.arange(len(rows)) % (2 * self._world)
        hand = np.minimum(hand, 2 * self._world - 1 - hand)
        own = rows[np.argsort(lengths, kind="stable")[hand == self._rank]]
        # in memory: a page fault of the mapped file must not fall into the step
        numbers = store.sides[own].T.ravel().astype(np.int64)
        labels = np.tile(store.concepts[own].astype(np.int64), 2)
        if negatives is not None:
            more, theirs = negatives.of(own)
            numbers, labels = np.append(numbers, more), np.append(labels, theirs)
        texts = [np.array(store.text(number)) for number in numbers]
        return Batch(step=step, texts=texts, labels=labels, rows=rows)

    def between(
        self, step: int, end: int, negatives: HardNegatives | None = None
    ) -> Generator[Batch]:
        """The batches of the steps from `step` to before `end`, made ahead by a thread."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            made: deque[Future[Batch]] = deque()
            for ahead in range(step, end + _AHEAD):
                if ahead < end:
                    made.append(pool.submit(self.batch, ahead, negatives))
                if ahead >= step + _AHEAD and made:
                    yield made.popleft().result()


def described(pairs: Artifact, rows: NDArray[np.int64]) -> list[dict[str, str]]:
    """What the pairs of an artifact's rows say, in the order of the rows: to look at a batch."""
    found: dict[int, dict[str, str]] = {}
    begin = 0
    for batch in read_pairs(pairs):
        own = np.unique(rows[(rows >= begin) & (rows < begin + batch.num_rows)])
        found |= zip(own.tolist(), batch.take(pa.array(own - begin)).to_pylist(), strict=True)
        begin += batch.num_rows
    return [found[row] for row in rows.tolist()]
