"""The wire format of `POST /v1/link`, and the limits that it keeps.

Offsets are Unicode code points, end exclusive. Unknown keys are refused, and so are values of
another JSON type: nothing is converted on the quiet.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import language_tag
from bioelx_ray.records import DecidedBy

BODY_BYTES = 4 * 1024 * 1024
DOCUMENTS = 64
TEXT_CODE_POINTS = 20_000
MENTIONS = 512
TOP_K = 64
CANDIDATES = 65_536
"""Most candidates that one answer may hold (mentions x top_k): about 20 MB of JSON."""
TIMEOUT_MS = 60_000
ID_CODE_POINTS = 256


def _text(value: object) -> str:
    # pydantic's own str refuses unpaired surrogates, and with them every document of the request;
    # here they pass, and spoil only their own document.
    if not isinstance(value, str):
        raise PydanticCustomError("text_type", "expected a string")
    if len(value) > TEXT_CODE_POINTS:
        raise PydanticCustomError(
            "text_too_long",
            "{length} code points, at most {limit} are allowed",
            {"length": len(value), "limit": TEXT_CODE_POINTS},
        )
    return value


def _tag(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return language_tag(value)
    except InputError:
        raise PydanticCustomError(
            "language_tag", "not a BCP 47 language tag such as es, pt-BR or zh-Hant"
        ) from None


Text = Annotated[
    str,
    PlainValidator(_text),
    WithJsonSchema({"type": "string", "maxLength": TEXT_CODE_POINTS}),
]
Lang = Annotated[str | None, AfterValidator(_tag)]
Name = Annotated[str, Field(min_length=1, max_length=ID_CODE_POINTS)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MentionIn(_Request):
    """``text[start:end]`` of its document. `type` is the client's note and comes back unread."""

    start: int
    end: int
    type: Name | None = None


class DocumentIn(_Request):
    """A text and the mentions to link in it. No `lang` means that it is not known."""

    id: Name
    text: Text
    lang: Lang = None
    mentions: Annotated[list[MentionIn], Field(max_length=MENTIONS)]


class LinkRequest(_Request):
    """Documents, and how to link their mentions.

    `kb` (vocabularies: ``hp``) and `types` (semantic types) restrict the candidates; empty lists
    restrict nothing. `nil_threshold` replaces the server's own. `timeout_ms` counts from arrival.
    """

    documents: Annotated[list[DocumentIn], Field(max_length=DOCUMENTS)]
    kb: Annotated[list[Name], Field(max_length=256)] = []
    types: Annotated[list[Name], Field(max_length=256)] = []
    top_k: Annotated[int, Field(ge=1, le=TOP_K)] = 5
    rank: Literal["auto", "always", "never"] = "auto"
    nil_threshold: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    explain: bool = False
    timeout_ms: Annotated[int, Field(ge=1, le=TIMEOUT_MS)] = 5000


class FieldError(BaseModel):
    """What is wrong with one value. `pointer` (RFC 6901) leads to it from the body's root."""

    pointer: str
    detail: str


class ProblemBody(BaseModel):
    """An error as RFC 9457 has it. It never holds text of the request."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
    request_id: str | None = None


class CandidateOut(BaseModel):
    """A proposed concept and the alias that matched. `rank` counts from 1."""

    id: str
    name: str
    rank: int
    score: float
    retrieval_score: float
    xrefs: list[str]
    matched_alias: str
    matched_lang: str
    matched_source: str | None = None


class MentionOut(BaseModel):
    """The decision about a mention: its first candidate, or none of them (`nil`, with a reason)."""

    start: int
    end: int
    text: str
    type: str | None = None
    nil: bool
    reason: str | None = None
    score: float
    decided_by: DecidedBy
    candidates: list[CandidateOut]


class DocumentOut(BaseModel):
    """A document's mentions in the order given, or, with status `error`, what is wrong with it."""

    id: str
    status: Literal["ok", "error"]
    lang: str
    mentions: list[MentionOut] | None = None
    problem: ProblemBody | None = None


class KbOut(BaseModel):
    """A source that the knowledge base was made from."""

    id: str
    version: str


class ModelOut(BaseModel):
    """What answered: fingerprints of the encoder and of the index, and the sources."""

    encoder: str
    index_version: str
    kb: list[KbOut]


class LinkResponse(BaseModel):
    """The documents in the order given. `degraded` says which stages were left out, and why."""

    request_id: str
    documents: list[DocumentOut]
    degraded: list[str]
    offset_unit: Literal["code_point"] = "code_point"
    model: ModelOut
    timings_ms: dict[str, float]


class ConceptOut(BaseModel):
    """A concept of the knowledge base."""

    id: str
    name: str
    semantic_types: list[str]
    definition: str | None
    xrefs: list[str]


class InfoOut(BaseModel):
    """Versions, what the filters may name, and the limits."""

    version: str
    model: ModelOut
    ranker: str | None
    vocabularies: list[str]
    types: list[str]
    languages: list[str]
    limits: dict[str, int]


def limits() -> dict[str, int]:
    """The limits of one request, by name."""
    return {
        "body_bytes": BODY_BYTES,
        "documents": DOCUMENTS,
        "text_code_points": TEXT_CODE_POINTS,
        "mentions_per_document": MENTIONS,
        "top_k": TOP_K,
        "candidates": CANDIDATES,
        "timeout_ms": TIMEOUT_MS,
    }


def cross_errors(request: LinkRequest) -> list[FieldError]:
    """What no single value shows: repeated document ids, an answer that would be too large."""
    seen: set[str] = set()
    errors = []
    for i, document in enumerate(request.documents):
        if document.id in seen:
            errors.append(FieldError(pointer=f"/documents/{i}/id", detail="used more than once"))
        seen.add(document.id)
    wanted = request.top_k * sum(len(document.mentions) for document in request.documents)
    if wanted > CANDIDATES:
        detail = f"{wanted} candidates (mentions x top_k), at most {CANDIDATES} are allowed"
        errors.append(FieldError(pointer="/top_k", detail=detail))
    return errors


def to_body(model: BaseModel) -> dict[str, Any]:
    """A model as JSON values, without what is None."""
    return model.model_dump(mode="json", exclude_none=True)
