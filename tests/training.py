"""Pairs and models small enough to train in a test."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from bioelx_ray.artifacts import Artifact, Manifest, Source, publish
from bioelx_ray.kb.pairs import _write
from bioelx_ray.records import SynonymPair
from bioelx_ray.retrieval.batched import Tokens
from bioelx_ray.retrieval.token_store import TokenStore, open_store
from bioelx_ray.retrieval.torch_engine import Pooled
from tests.encoders import byte_tokenizer


def made_pairs(directory: Path, pairs: list[SynonymPair], *, fingerprint: str = "") -> Artifact:
    manifest = Manifest(
        kind="pairs",
        code_version="1",
        fingerprint=fingerprint,
        inputs={"kb": "sha256:kb"},
        counts={"pairs": len(pairs)},
        sources=[Source(name="made", licence="CC0-1.0")],
    )
    with publish(directory, manifest) as draft:
        _write(draft, iter(pairs))
    return Artifact(path=directory, manifest=manifest)


def pair(concept: int, left: str, right: str, left_lang: str = "en", right_lang: str = "de"):
    return SynonymPair(
        concept_id=f"t:{concept:06}",
        left=left,
        right=right,
        left_lang=left_lang,
        right_lang=right_lang,
    )


def plain_pairs(concepts: int, *, each: int = 2) -> list[SynonymPair]:
    """Pairs of texts of many lengths, in which a concept's number is spelled twice."""
    words = ["heart", "lung", "liver", "bone", "skin", "nerve", "blood", "eye"]
    return [
        pair(n, f"{words[n % 8]} {n:03} {'very ' * (n % 5)}{k}", f"{n:03} von {words[n % 8][::-1]}")
        for n in range(concepts)
        for k in range(each)
    ]


def byte_tokens(max_length: int = 25) -> Tokens:
    return Tokens(byte_tokenizer().backend_tokenizer, pad_id=0, max_length=max_length)


def silent(*_: object) -> None:
    pass


def made_store(home: Path, pairs: list[SynonymPair]) -> TokenStore:
    artifact = made_pairs(home / "pairs", pairs)
    return open_store(artifact, byte_tokens(), prefix="q ", home=home / "work", progress=silent)


def tiny_module(*, seed: int = 0, dropout: float = 0.1) -> Pooled:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=260,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    return Pooled(BertModel(config, add_pooling_layer=False), pooling="mean")
