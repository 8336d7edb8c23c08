"""A trained model as a plain directory, for transformers, sentence-transformers and ourselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from bioelx_ray.artifacts import Artifact, Manifest, code_version, publish
from bioelx_ray.retrieval.adapter import folded
from bioelx_ray.retrieval.encoder import save_model
from bioelx_ray.retrieval.heads import save_head
from bioelx_ray.retrieval.model_card import Card, render
from bioelx_ray.retrieval.model_files import ModelFiles, sources_of, tokenizer_files
from bioelx_ray.retrieval.model_settings import DENSE, SETTINGS
from bioelx_ray.retrieval.torch_engine import Pooled

_POOLING = "1_Pooling"


def write_model_directory(
    target: Path,
    module: Pooled,
    *,
    base: ModelFiles,
    card: Card,
    dtype: Literal["fp32", "bf16"] = "fp32",
) -> Artifact:
    """Publish a module, its low-rank updates merged, with the tokenizer and settings of `base`.

    The card lists the sources of `base` before its own. ``bf16`` halves the transformer's size and
    changes vectors by about 1e-2; `encoder.open_encoder` computes in fp32 with either.
    """
    settings = {"pooling": base.pooling, "prefix": base.prefix, "max_length": base.max_length}
    known = sources_of(base)
    sources = known + [source for source in card.sources if source not in known]
    manifest = Manifest(
        kind="encoder",
        code_version=code_version(),
        config={**settings, "training": dict(card.training)},
        inputs={"encoder": base.fingerprint},
        counts=dict(card.figures),
        sources=sources,
    )
    made = folded(module)
    made.model.to(torch.float32 if dtype == "fp32" else torch.bfloat16)
    with publish(target, manifest) as draft:
        save_model(made.model, draft, pooler=_has_pooler(base.path))
        if made.head is not None:
            save_head(made.head, draft / DENSE)
        for file in tokenizer_files(base.path):
            shutil.copyfile(file, draft / file.name)
        _write_settings(draft, settings, width=made.width, head=made.head is not None)
        shown = replace(card, sources=sources)
        (draft / "README.md").write_text(render(shown, settings), encoding="utf-8")
    return Artifact(path=target, manifest=manifest)


def _has_pooler(path: Path) -> bool:
    """Whether a model's files have one: transformers makes one of random numbers if they do not."""
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            if any("pooler" in name for name in tensors.keys()):  # noqa: SIM118  # no mapping
                return True
    return False


def _write_settings(draft: Path, settings: dict[str, Any], *, width: int, head: bool) -> None:
    mode, prefix = settings["pooling"], settings["prefix"]
    prompts = {"query": prefix, "document": prefix} if prefix else {}
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": mode == "cls",
        "pooling_mode_mean_tokens": mode == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "include_prompt": True,
    }
    modules = [("Transformer", ""), ("Pooling", _POOLING)]
    modules += [("Dense", DENSE)] if head else []
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    files: dict[str, object] = {
        SETTINGS: settings,
        f"{_POOLING}/config.json": pooling,
        "modules.json": [
            # under these names every release of sentence-transformers knows them
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"sentence_transformers.models.{name}",
            }
            for index, (name, path) in enumerate(modules)
        ],
        "sentence_bert_config.json": {
            "max_seq_length": settings["max_length"],
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "prompts": prompts,
            "default_prompt_name": "query" if prompts else None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        (draft / name).parent.mkdir(exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (draft / name).write_text(text, encoding="utf-8")
