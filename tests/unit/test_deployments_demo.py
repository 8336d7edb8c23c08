"""The demo's sentences and its report; CI runs the demo itself (`make demo`)."""

from __future__ import annotations

import pytest

from bioelx_ray.errors import BioelxError
from bioelx_ray.kb.text import language_tag
from deployments.demo import documents, free_port, report, wait_until_ready
from deployments.schemas import LinkRequest, cross_errors
from tests.serving import ask, local_api


def test_every_sentence_marks_one_mention():
    asked = documents()
    assert len(asked) >= 14
    assert len({document["lang"] for document in asked}) == len(asked)
    assert not cross_errors(LinkRequest.model_validate({"documents": asked}))
    for document in asked:
        (span,) = document["mentions"]
        mention = document["text"][span["start"] : span["end"]]
        assert mention == mention.strip() != ""
        assert not set("[]") & set(document["text"])
        assert language_tag(document["lang"]) == document["lang"]


def test_the_report_has_a_row_a_sentence(capsys):
    asked = [d for d in documents() if d["lang"] in {"en", "th"}]
    answer = ask(local_api(), "POST", "/v1/link", json={"documents": asked, "top_k": 1}).json()
    assert report(asked, answer) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 sentences linked" in shown
    assert all(part in shown for part in ("hp:0001658", "โรคหืด", "hp:0002099", "Asthma"))


def test_a_sentence_without_a_concept_fails_the_demo(capsys):
    asked = [d for d in documents() if d["lang"] in {"en", "ar"}]
    body = {"documents": asked, "types": ["anatomy"], "nil_threshold": 0.9}
    answer = ask(local_api(), "POST", "/v1/link", json=body).json()
    assert report(asked, answer) == 1
    assert "0 of 2 sentences linked" in capsys.readouterr().out


def test_waiting_for_what_never_comes_ends_with_advice():
    with pytest.raises(BioelxError, match="is not ready after 0 s: free this machine's"):
        wait_until_ready(f"http://127.0.0.1:{free_port()}", seconds=0.3)


def test_a_free_port_is_one():
    assert 1024 < free_port() < 65536
