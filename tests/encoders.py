"""Small models on disk, with random weights, for the tests of encoders."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
ODD = [
    "",
    " ",
    "심근경색",
    "กล้ามเนื้อหัวใจตาย",
    "心筋梗塞",
    "心肌梗死",
    "احتشاء عضلة القلب",
    "אוטם שריר הלב",
    "दिल का दौरा",
    "\U0001fac0\U0001f9ec",
    "heart\x00attack",
    "lone \ud800 surrogate",
    "a" * 100_000,
    "myocardial infarction " * 1000,
]
"""Texts that break careless encoders."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, so that every script has tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def tiny_bert(directory: Path, *, seed: int = 0, hidden: int = 32) -> Path:
    """A Hugging Face directory of two layers."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=260,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
