"""Stand-ins for the costly parts, shipped so that users' tests need no weights either.

They pass the same contract tests as the real parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact
from bioelx_ray.config import EncoderConfig, IndexConfig
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval.build import build_index
from bioelx_ray.retrieval.ngrams import ngrams

SMALL_TABLE = """\
concept_id\tlang\ttext\tsource\tpreferred\tsemantic_types\tdefinition\txrefs
hp:0001658\ten\tMyocardial infarction\thp\ttrue\tdisorder\tNecrosis of the myocardium.\ticd10:I21
hp:0001658\ten\theart attack\thp\tfalse\tdisorder\t\t
hp:0001658\ten\theart attack\tstarter\tfalse\tdisorder\t\t
hp:0001658\tde\tHerzinfarkt\tstarter\ttrue\tdisorder\t\t
hp:0001658\tes\tinfarto de miocardio\tstarter\ttrue\tdisorder\t\t
hp:0001658\tru\tинфаркт миокарда\tstarter\ttrue\tdisorder\t\t
hp:0001658\tzh\t心肌梗死\tstarter\ttrue\tdisorder\t\t
hp:0001658\tko\t심근경색\tstarter\ttrue\tdisorder\t\t
hp:0002099\ten\tAsthma\thp\ttrue\tdisorder\tReversible airway obstruction.\ticd10:J45
hp:0002099\tja\t喘息\tstarter\ttrue\tdisorder\t\t
hp:0002099\tth\tโรคหืด\tstarter\ttrue\tdisorder\t\t
hp:0001945\ten\tFever\thp\ttrue\tsymptom\tRaised body temperature.\t
hp:0001945\ten\tpyrexia\thp\tfalse\tsymptom\t\t
hp:0001945\tar\tحمى\tstarter\ttrue\tsymptom\t\t
hp:0001945\the\tחום\tstarter\ttrue\tsymptom\t\t
hp:0001945\thi\tबुखार\tstarter\ttrue\tsymptom\t\t
umls:C0027530\ten\tneck\tstarter\ttrue\tanatomy\t\t
umls:C0027530\ttr\tboyun\tstarter\ttrue\tanatomy\t\t
umls:C0009443\ten\tcold\tstarter\ttrue\tdisorder\tCommon cold.\t
umls:C0009264\ten\tcold\tstarter\ttrue\tsymptom\tLow temperature.\t
"""


class HashEncoder:
    """Character n-grams hashed into a unit vector: deterministic, and spelling is its meaning."""

    engine = "hash"

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.fingerprint = f"sha256:hash-encoder-{dim}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 [n, dim], in the order of the texts; an empty text is ones."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if texts:
            hashes, owners = ngrams(texts)
            np.add.at(vectors, (owners, (hashes % np.uint64(self.dim)).astype(np.int64)), 1)
        vectors[~vectors.any(axis=1)] = 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def small_kb(directory: Path) -> KnowledgeBase:
    """A knowledge base of six concepts in many scripts, built in ``directory/kb``."""
    directory.mkdir(parents=True, exist_ok=True)
    table = directory / "small.tsv"
    table.write_text(SMALL_TABLE, encoding="utf-8")
    return KnowledgeBase(build_kb(directory / "kb", [from_file(table)]))


def small_index(directory: Path, *, encoder: HashEncoder | None = None) -> Artifact:
    """An index of `small_kb` in ``directory/index``, by the hash encoder."""
    return build_index(
        directory / "index",
        small_kb(directory),
        encoder or HashEncoder(),
        config=IndexConfig(),
        encoder_config=EncoderConfig(model="hash"),
        progress=lambda *_: None,
    )
