"""A request's documents as mentions, and links as the response's documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bioelx_ray.errors import MentionError
from bioelx_ray.records import UNDETERMINED, Candidate, Concept, Link, Mention, mention_in
from deployments.problems import Problem, problem_body
from deployments.schemas import DocumentIn, FieldError, LinkRequest, MentionIn, to_body

CONTEXT = 256
"""Code points of context kept on each side: 512 mentions of a long text must not copy it whole."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_SCORE_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as it was asked for, and its mentions; or what is wrong with it."""

    asked: DocumentIn
    mentions: tuple[Mention, ...]
    errors: tuple[FieldError, ...] = ()

    @property
    def lang(self) -> str:
        """The language given, or und."""
        return self.asked.lang or UNDETERMINED


def read_documents(request: LinkRequest) -> list[Document]:
    """The documents with their mentions; a bad one has errors and no mentions."""
    return [_read(f"/documents/{i}", asked) for i, asked in enumerate(request.documents)]


def _read(pointer: str, asked: DocumentIn) -> Document:
    if _SURROGATE.search(asked.text):
        detail = "holds an unpaired surrogate: the text was cut inside a character"
        error = FieldError(pointer=f"{pointer}/text", detail=detail)
        return Document(asked=asked, mentions=(), errors=(error,))
    mentions, errors = [], []
    for i, span in enumerate(asked.mentions):
        try:
            mentions.append(_mention(asked, span))
        except MentionError as error:
            errors.append(FieldError(pointer=f"{pointer}/mentions/{i}", detail=str(error)))
    return Document(asked=asked, mentions=() if errors else tuple(mentions), errors=tuple(errors))


def _mention(document: DocumentIn, span: MentionIn) -> Mention:
    if not 0 <= span.start < span.end <= len(document.text):
        mention_in(document.text, span.start, span.end)  # raises, in its own words
    low = max(0, span.start - CONTEXT)
    near = mention_in(
        document.text[low : span.end + CONTEXT],
        span.start - low,
        span.end - low,
        lang=document.lang or UNDETERMINED,
        document_id=document.id,
    )
    return replace(near, start=span.start, end=span.end)


def write_documents(
    documents: Sequence[Document],
    links: Sequence[Link],
    concepts: Mapping[str, Concept],
    *,
    explain: bool,
) -> list[dict[str, Any]]:
    """The response's documents. `links` are those of all documents' mentions, in their order."""
    left = iter(links)
    return [_write(document, left, concepts, explain=explain) for document in documents]


def _write(
    document: Document, links: Iterator[Link], concepts: Mapping[str, Concept], *, explain: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {"id": document.asked.id, "status": "ok", "lang": document.lang}
    if document.errors:
        problem = Problem(422, "the document cannot be linked", errors=document.errors)
        return {**body, "status": "error", "problem": to_body(problem_body(problem))}
    # the spans are zipped first: zip asks them first, and takes no link of the next document
    pairs = zip(document.asked.mentions, links, strict=False)
    mentions = [_link(span, link, concepts, explain=explain) for span, link in pairs]
    return {**body, "mentions": mentions}


def _link(
    span: MentionIn, link: Link, concepts: Mapping[str, Concept], *, explain: bool
) -> dict[str, Any]:
    nil = link.concept_id is None
    return {
        "start": span.start,
        "end": span.end,
        "text": link.mention.text,
        **({"type": span.type} if span.type else {}),
        "nil": nil,
        **({"reason": link.reason} if nil else {}),
        "score": round(link.score, _SCORE_DIGITS),
        "decided_by": link.decided_by,
        "candidates": [
            _candidate(candidate, rank, concepts[candidate.concept_id], explain=explain)
            for rank, candidate in enumerate(link.candidates, start=1)
        ],
    }


def _candidate(
    candidate: Candidate, rank: int, concept: Concept, *, explain: bool
) -> dict[str, Any]:
    score = round(candidate.score, _SCORE_DIGITS)
    return {
        "id": candidate.concept_id,
        "name": concept.name,
        "rank": rank,
        "score": score,
        "retrieval_score": score,
        "xrefs": list(concept.xrefs),
        "matched_alias": candidate.alias,
        "matched_lang": candidate.lang,
        **({"matched_source": candidate.source} if explain else {}),
    }
