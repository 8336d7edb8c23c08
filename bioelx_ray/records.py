"""The records that travel between the stages.

Frozen, slotted, keyword-only. A batch of them is an Arrow table with the same columns (`tables`).
A concept id is a CURIE in Bioregistry form: ``umls:C0027051``, ``hp:0001658``, ``icd10:I21``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bioelx_ray.errors import MentionError

_SURROGATE = re.compile("[\ud800-\udfff]")

UNDETERMINED = "und"
"""BCP 47's tag for a language that is not known."""

DecidedBy = Literal["retrieval", "ranking"]

MappingKind = Literal["exact", "close", "broad", "narrow", "related", "xref"]
"""How two ids match, in SKOS's terms; ``xref`` where the source does not say.

``broad``: the object is broader than the subject (skos:broadMatch).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A node of the knowledge base. `name` is the alias that people are shown."""

    id: str
    name: str
    semantic_types: tuple[str, ...] = ()
    definition: str | None = None
    xrefs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """One surface form of a concept in one language, as its source writes it.

    In a knowledge base `also` names the other sources that give the same form, and `ambiguous`
    says that the form names several concepts in its language.
    """

    concept_id: str
    text: str
    lang: str
    source: str
    preferred: bool = False
    ambiguous: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """An id of one vocabulary and the id of another that it matches.

    `preferred` marks the one that its source ranks above others of the same subject.
    """

    subject_id: str
    object_id: str
    kind: MappingKind
    source: str
    preferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """An id that its vocabulary no longer uses, and the one to use instead, if there is one."""

    id: str
    replaced_by: str | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SynonymPair:
    """Two aliases of a concept, for training."""

    concept_id: str
    left: str
    right: str
    left_lang: str
    right_lang: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Text to link, with its context `left` and `right`.

    `start` and `end` count code points of the document, end exclusive.
    """

    text: str
    lang: str = UNDETERMINED
    left: str = ""
    right: str = ""
    document_id: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A concept that stage 1 proposes, with the alias that matched. Higher scores are better.

    Stage 2 replaces `score` by its own and keeps stage 1's as `retrieval_score`. While that is
    None, `score` is stage 1's.
    """

    concept_id: str
    alias: str
    lang: str
    source: str
    score: float
    retrieval_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The decision about a mention. `concept_id` is None for NIL: no concept fits.

    `ranker` names the model that ranked, `prompt` the version of the template that it read, and
    `calibration` what its scores were calibrated with. Without a calibration (empty) `score` is
    uncalibrated: it orders, but it is no probability.
    """

    mention: Mention
    concept_id: str | None
    score: float
    candidates: tuple[Candidate, ...]
    decided_by: DecidedBy
    reason: str = ""
    ranker: str = ""
    prompt: str = ""
    calibration: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldMention:
    """A mention with the annotators' concept ids. None at all means NIL."""

    mention: Mention
    concept_ids: frozenset[str]


def mention_in(
    text: str,
    start: int,
    end: int,
    *,
    lang: str = UNDETERMINED,
    document_id: str | None = None,
) -> Mention:
    """The mention ``text[start:end]`` with its context.

    Raises:
        MentionError: the offsets lie outside the text, are empty or reversed, or the text
            holds an unpaired surrogate (offsets of UTF-16 code units cut a character in two).
    """
    if not 0 <= start < end <= len(text):
        raise MentionError(
            f"mention [{start}, {end}) does not lie in a text of {len(text)} code points: give "
            "0 <= start < end <= length, counted in Unicode code points, end exclusive"
        )
    if _SURROGATE.search(text):
        raise MentionError(
            "the text holds an unpaired surrogate: decode it as UTF-8 and count offsets in code "
            "points, not in UTF-16 units"
        )
    if not text[start:end].strip():
        raise MentionError(f"mention [{start}, {end}) holds white space only")
    return Mention(
        text=text[start:end],
        lang=lang,
        left=text[:start],
        right=text[end:],
        document_id=document_id,
        start=start,
        end=end,
    )
