"""The wire format: limits at their edges."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deployments import schemas
from deployments.schemas import LinkRequest, cross_errors
from tests.serving import document, request

SPAN = {"start": 0, "end": 1}


def test_the_limits_themselves_are_allowed():
    largest = document("x" * schemas.TEXT_CODE_POINTS, mentions=[SPAN] * schemas.MENTIONS)
    others = [document(name=str(i)) for i in range(schemas.DOCUMENTS - 1)]
    asked = LinkRequest.model_validate(request(largest, *others, top_k=64, timeout_ms=60_000))
    assert cross_errors(asked) == []


def test_code_points_are_counted_and_not_bytes_or_utf_16_units():
    LinkRequest.model_validate(request(document("😀" * schemas.TEXT_CODE_POINTS)))


def test_defaults():
    asked = LinkRequest.model_validate(request())
    assert (asked.top_k, asked.rank, asked.timeout_ms, asked.explain) == (5, "auto", 5000, False)
    assert asked.documents[0].lang is None
    assert asked.nil_threshold is None


@pytest.mark.parametrize(
    ("given", "expected"), [("EN", "en"), ("zh-hant", "zh-Hant"), ("und", "und"), (None, None)]
)
def test_languages_get_their_usual_case(given, expected):
    asked = LinkRequest.model_validate(request(document(lang=given)))
    assert asked.documents[0].lang == expected


@pytest.mark.parametrize("lang", ["", "english", "e", "en__GB", "ja-", "12", "日本語"])
def test_what_is_no_language_is_refused_without_quoting_it(lang):
    with pytest.raises(ValidationError) as caught:
        LinkRequest.model_validate(request(document(lang=lang)))
    (error,) = caught.value.errors()
    assert error["loc"] == ("documents", 0, "lang")
    assert not lang or lang not in error["msg"].split()


def test_the_answer_s_size_is_bounded():
    many = [document(name=str(i), mentions=[SPAN] * 512) for i in range(3)]
    (error,) = cross_errors(LinkRequest.model_validate(request(*many, top_k=64)))
    assert (error.pointer, "98304" in error.detail) == ("/top_k", True)
