"""Settings: one section a stage, read from YAML, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from bioelx_ray.config_ranking import CalibrationConfig
from bioelx_ray.config_ranking import RankingConfig as RankingConfig
from bioelx_ray.errors import ConfigError
from bioelx_ray.records import MappingKind
from bioelx_ray.section import Section as Section

RetrieverName = Literal["dense", "lexical", "hybrid"]
EngineName = Literal["auto", "torch", "onnx-int8"]


class IdProperty(Section):
    """What a Wikidata property's values are: ids of a vocabulary, and how they match the item."""

    prefix: str
    kind: MappingKind = "exact"


def _id_properties() -> dict[str, IdProperty]:
    exact = {
        "P2892": "umls",
        "P486": "mesh",
        "P699": "doid",
        "P3841": "hp",
        "P5806": "snomedct",
        "P5270": "mondo",
        "P1550": "orphanet",
        "P1748": "ncit",
        "P1554": "uberon",
        "P492": "omim",
    }
    # A code of a classification names a class that is mostly wider than the item, and MeSH's
    # concepts and terms lie below its descriptors: these never join two concepts.
    loose = {"P494": "icd10", "P4229": "icd10cm", "P6694": "mesh", "P6680": "mesh"}
    return {p: IdProperty(prefix=prefix) for p, prefix in exact.items()} | {
        p: IdProperty(prefix=prefix, kind="xref" if prefix == "mesh" else "broad")
        for p, prefix in loose.items()
    }


class WikidataConfig(Section):
    """What to take from a Wikidata dump.

    An entity counts as biomedical if it has one of `properties`. No `langs` means all languages.
    `sitelinks` adds the titles of Wikipedia's pages as aliases.
    """

    properties: dict[str, IdProperty] = Field(default_factory=_id_properties, min_length=1)
    langs: tuple[str, ...] = ()
    sitelinks: bool = False


class UmlsConfig(Section):
    """What to take from UMLS's RRF files. An empty choice means all.

    `langs` are BCP 47 tags, `vocabularies` source abbreviations such as ``MSH`` (SAB),
    `semantic_types` TUIs such as ``T047``, `semantic_groups` abbreviations such as ``DISO``.
    `suppressed` takes rows that UMLS marks as suppressible or obsolete too.
    """

    langs: tuple[str, ...] = ()
    vocabularies: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    semantic_groups: tuple[str, ...] = ()
    suppressed: bool = False


class HarvestConfig(Section):
    """Sources into one knowledge base.

    `unify` joins concepts of several vocabularies over exact mappings. `max_reject_share` is the
    share of bad rows past which a source is refused. `split_bytes` is what a worker reads at a
    time and, after an interruption, reads again at most. `memory_mib` bounds the merge.
    """

    wikidata: WikidataConfig = WikidataConfig()
    umls: UmlsConfig = UmlsConfig()
    unify: bool = True
    machine_translations: bool = True
    max_reject_share: float = Field(default=0.001, ge=0, le=1)
    split_bytes: int = Field(default=256 << 20, ge=1 << 16)
    memory_mib: int = Field(default=1536, ge=256)


class PairsConfig(Section):
    """Synonym pairs for training: at most `per_concept` a concept, drawn with `seed`."""

    per_concept: int = Field(default=50, ge=1)
    seed: int = 0


class LossConfig(Section):
    """What training minimises. The defaults of ``multi-similarity`` and its miner are SapBERT's.

    `temperature` belongs to ``info-nce``.
    """

    name: Literal["multi-similarity", "info-nce"] = "multi-similarity"
    alpha: float = Field(default=1.0, gt=0)
    beta: float = Field(default=60.0, gt=0)
    base: float = Field(default=0.5, ge=-1, le=1)
    margin: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.05, gt=0)


class AdapterConfig(Section):
    """Which weights are trained.

    ``full`` trains the transformer, ``lora`` low-rank updates of its linear layers, ``head`` a
    linear map behind it. `layers` counts from the top; 0 means all. `freeze_embeddings` left out
    freezes the word embeddings on a CPU only, where their gradient costs more than the rest of a
    step.
    """

    kind: Literal["full", "lora", "head"] = "full"
    rank: int = Field(default=32, ge=1)
    scale: float = Field(default=2.0, gt=0)
    layers: int = Field(default=0, ge=0)
    freeze_embeddings: bool | None = None


class NegativesConfig(Section):
    """Hard negatives: every `every` steps, `per_anchor` aliases of other concepts near an anchor.

    0 mines none. They are looked for among `bank` aliases, drawn anew each time, which are embedded
    for it.
    """

    every: int = Field(default=0, ge=0)
    per_anchor: int = Field(default=1, ge=1)
    bank: int = Field(default=1_000_000, ge=1)


class TrainConfig(Section):
    """Alias training. `batch_pairs` is over all workers; `epochs` may be a fraction of one.

    Texts are embedded in micro-batches of `micro_tokens`, padding counted. `cache_gradients` embeds
    them twice, and holds one micro-batch's activations at a time instead of all. `lr` rises over
    the share `warmup` of the steps and falls to 0. `patience` counts evaluations without a gain;
    0 never stops early. A checkpoint is written every `save_every` steps. `dropout` left out is the
    model's own; 0 spares a CPU a fifth of a step. `precision` auto is bf16 where the device
    computes in it, else fp16 on CUDA and fp32 on a CPU.
    """

    loss: LossConfig = LossConfig()
    adapter: AdapterConfig = AdapterConfig()
    negatives: NegativesConfig = NegativesConfig()
    batch_pairs: int = Field(default=256, ge=2)
    micro_tokens: int = Field(default=2048, ge=32)
    cache_gradients: bool = False
    max_length: int = Field(default=25, ge=8)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    lr: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    clip: float = Field(default=1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    evaluate_every: int = Field(default=100, ge=1)
    patience: int = Field(default=0, ge=0)
    save_every: int = Field(default=50, ge=1)
    seed: int = 33


class EncoderConfig(Section):
    """Which encoder turns texts into vectors, and with which engine.

    `model` is ``embedded`` (multilingual-e5-small from packages), a Hugging Face directory, or a
    hub name. `adapter` is the directory of one trained for it, or ``none``; left out, ``embedded``
    takes the packaged one, if there is one. `pooling`, `prefix` and `max_length` left out are taken
    from the adapter or the model's own files. `threads` 0 means as many as there are cores.
    """

    model: str = "embedded"
    adapter: str | None = None
    engine: EngineName = "auto"
    pooling: Literal["cls", "mean"] | None = None
    prefix: str | None = None
    max_length: int | None = Field(default=None, ge=8, le=8192)
    batch_tokens: int = Field(default=1024, ge=64)
    threads: int = Field(default=0, ge=0)


class IndexConfig(Section):
    """How the vectors are indexed.

    `auto` searches fewer than `flat_below` forms exactly. An IVF index must find at least
    `min_recall` of what exact search has in its first 64, over `probe_queries` queries.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    flat_below: int = Field(default=50_000, ge=0)
    min_recall: float = Field(default=0.99, gt=0, le=1)
    probe_queries: int = Field(default=1024, ge=64)
    seed: int = 0


class RetrievalConfig(Section):
    """Stage 1: which retriever proposes, and how many candidates."""

    retriever: RetrieverName = "dense"
    top_k: int = Field(default=64, ge=1, le=1024)


class Config(Section):
    """All sections. A function gets its section, never the whole."""

    harvest: HarvestConfig = HarvestConfig()
    pairs: PairsConfig = PairsConfig()
    train: TrainConfig = TrainConfig()
    encoder: EncoderConfig = EncoderConfig()
    index: IndexConfig = IndexConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: RankingConfig = RankingConfig()
    calibration: CalibrationConfig = CalibrationConfig()


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """The defaults, changed by a YAML file, then by overrides.

    An override is a dotted name and its value: ``{"encoder.engine": "torch"}``.

    Raises:
        ConfigError: no such file, no YAML mapping, an unknown key or a value out of range.
    """
    raw = _read_yaml(path) if path else {}
    for dotted, value in (overrides or {}).items():
        section, _, key = dotted.partition(".")
        raw.setdefault(section, {})[key] = value
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path or 'settings'}: " + "; ".join(lines)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(v, dict) for v in raw.values()):
        raise ConfigError(
            f"{path}: expected a mapping of sections ({', '.join(Config.model_fields)})"
        )
    return raw
