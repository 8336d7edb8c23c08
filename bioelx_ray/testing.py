"""Stand-ins for the costly parts, shipped so that users' tests need no weights either.

They pass the same contract tests as the real parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact
from bioelx_ray.config import EncoderConfig, IndexConfig
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.ranking.engine import Answered, Prompt, until
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


Script = Callable[[str], Mapping[str, float]]
"""A prompt's text -> log-probabilities of answers at its next token."""

_ONE_TOKEN = re.compile(r" ?\w+")


class ScriptedEngine:
    """Answers as a script says, or by a hash: deterministic, and it knows nothing.

    A word, with or without a space before it, is one token. What the script does not mention is as
    likely as the hash of prompt and answer says.

    Attributes:
        asked: the texts of the prompts so far, in order.
    """

    def __init__(self, script: Script | None = None, *, identity: str = "scripted") -> None:
        self._script = script
        self.identity = identity
        self.special_tokens = frozenset({"<|im_start|>", "<|im_end|>", "<think>", "</think>"})
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        """See `Engine.count`; code points."""
        return len(text)

    async def logprobs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, deadline: float | None = None
    ) -> Answered:
        """See `Engine.logprobs`."""
        async with until(deadline):
            rows = [self._row(_text(prompt), answers) for prompt in prompts]
        found = np.array(rows, dtype=np.float64).reshape(len(prompts), len(answers))
        return Answered(logprobs=found, exact=np.ones(found.shape, dtype=np.bool_))

    async def close(self) -> None:
        """See `Engine.close`."""

    def _row(self, text: str, answers: Sequence[str]) -> list[float]:
        self.asked.append(text)
        said = self._script(text) if self._script else {}
        return [said.get(answer, _hashed(text, answer)) for answer in answers]


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)


def _hashed(text: str, answer: str) -> float:
    """Between -16 and -8, so that the probabilities of a thousand answers stay below 1."""
    if not _ONE_TOKEN.fullmatch(answer):
        return -np.inf
    digest = blake2b(f"{text}\0{answer}".encode("utf-8", "replace"), digest_size=8).digest()
    return -16 + 8 * int.from_bytes(digest, "big") / 2**64


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
