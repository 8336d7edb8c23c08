"""From texts to batches of token ids and back: the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], Vectors]
"""Token ids and mask, both [batch, length], padded on the right, -> unit vectors [batch, dim]."""

_AT_ONCE = 8192
"""Texts whose tokens are held in memory at a time."""


class Tokens:
    """A tokenizer that adds the model's special tokens and cuts at `max_length` tokens."""

    def __init__(self, tokenizer: Tokenizer, *, pad_id: int, max_length: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        self.tokenizer = tokenizer
        self.pad_id = pad_id

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, at least one. Lone surrogates are read as ``?``."""
        # tokenizers refuses a whole batch for one lone surrogate, which JSON can carry
        sound = [text.encode("utf-8", "replace").decode() for text in texts]
        return [row.ids or [self.pad_id] for row in self.tokenizer.encode_batch_fast(sound)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedEncoder:
    """An `encoder.Encoder` around an engine's `forward`.

    Texts are sorted by their number of tokens and packed, so that a batch has at most
    `batch_tokens` of them, padding counted.
    """

    tokens: Tokens
    forward: Forward
    dim: int
    fingerprint: str
    engine: str
    prefix: str
    batch_tokens: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `encoder.Encoder.encode`."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            ids = self.tokens.ids([self.prefix + text for text in texts[start : start + _AT_ONCE]])
            for rows in pack([len(row) for row in ids], self.batch_tokens):
                batch, mask = padded([ids[row] for row in rows], self.tokens.pad_id)
                vectors[np.array(rows) + start] = self.forward(batch, mask)
        if not np.isfinite(vectors).all():
            raise EncoderError(
                f"engine {self.engine} gave vectors that are not finite: check the model's weights"
            )
        return vectors


def pack(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions by length, in batches of at most `batch_tokens` once padded to the longest.

    A text longer than that is a batch of its own.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(
    ids: Sequence[Sequence[int]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask int64 [n, longest], padded on the right."""
    shape = (len(ids), max(map(len, ids)))
    batch, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, values in enumerate(ids):
        batch[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return batch, mask
