"""The routes, with gateway and retriever in this process."""

from __future__ import annotations

import json

import pytest

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import RankingConfig
from bioelx_ray.linker import Linker, PassThroughRanker
from bioelx_ray.records import Mention
from deployments.schemas import ConceptOut, InfoOut, LinkResponse
from tests.serving import (
    JSON,
    Broken,
    artifacts,
    ask,
    assert_problem,
    document,
    local_api,
    open_small,
    request,
)


@pytest.fixture(scope="module")
def api():
    return local_api()


def link(api, *documents, **changes):
    answer = ask(api, "POST", "/v1/link", json=request(*documents, **changes))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    LinkResponse.model_validate(body, strict=True, extra="forbid")
    return body


def test_a_mention_gets_its_concept(api):
    body = link(api, document(lang="PT-br"))
    (found,) = body["documents"]
    assert (found["id"], found["status"], found["lang"]) == ("d1", "ok", "pt-BR")
    (mention,) = found["mentions"]
    assert not mention["nil"]
    assert "reason" not in mention
    assert mention["decided_by"] == "retrieval"
    best = mention["candidates"][0]
    assert best["score"] == best["retrieval_score"] == mention["score"] > 0.9
    assert {key: best[key] for key in best if "score" not in key} == {
        "id": "hp:0002099",
        "name": "Asthma",
        "rank": 1,
        "xrefs": ["icd10:J45"],
        "matched_alias": "Asthma",
        "matched_lang": "en",
    }
    assert body["degraded"] == []
    built = open_artifact(artifacts() / "index", "index").manifest
    assert body["model"]["index_version"] == built.fingerprint
    assert body["model"]["encoder"] == built.inputs["encoder"]
    assert [source["id"] for source in body["model"]["kb"]] == ["small.tsv"]


def test_over_http_as_in_one_process(api):
    """The gateway gives the links of `Linker`, candidate for candidate."""
    texts = ["asthma", "heart attack", "cold", "Herzinfarkts", "infarto", "fever", "zzz"]
    linker = Linker(open_small(artifacts()).retriever, PassThroughRanker())
    links = linker.link([Mention(text=text) for text in texts])
    documents = [
        document(text, name=text, mentions=[{"start": 0, "end": len(text)}]) for text in texts
    ]
    answer = link(api, *documents, top_k=64)["documents"]
    for expected, (found,) in zip(links, (d["mentions"] for d in answer), strict=True):
        assert found["nil"] == (expected.concept_id is None)
        assert [c["id"] for c in found["candidates"]] == [c.concept_id for c in expected.candidates]
        assert found["score"] == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize(
    "text", ["😀😀 asthma", "e\u0301 asthma", "喘息 asthma\u0000", "الربو asthma"]
)
def test_offsets_are_code_points(api, text):
    (mention,) = link(api, document(text))["documents"][0]["mentions"]
    assert text[mention["start"] : mention["end"]] == mention["text"] == "asthma"


def test_long_context_does_not_shift_a_mention(api):
    text = "x" * 9000 + " asthma " + "y" * 9000
    (mention,) = link(api, document(text))["documents"][0]["mentions"]
    assert (mention["start"], mention["end"], mention["text"]) == (9001, 9007, "asthma")


def test_bad_documents_leave_the_others_their_links(api):
    good = document("asthma", name="good")
    bad = [
        document(
            "asthma", name="outside", mentions=[{"start": 0, "end": 6}, {"start": 3, "end": 7}]
        ),
        document("asthma", name="reversed", mentions=[{"start": 4, "end": 2}]),
        document("asthma", name="negative", mentions=[{"start": -2, "end": 2}]),
        document("asthma  .", name="blank", mentions=[{"start": 6, "end": 8}]),
        document("\ud83d asthma", name="surrogate"),
    ]
    sent = json.dumps(request(good, *bad, {**good, "id": "last"}))
    answer = ask(api, "POST", "/v1/link", content=sent, headers=JSON).json()["documents"]
    assert [d["status"] for d in answer] == ["ok"] + ["error"] * 5 + ["ok"]
    pointers = [[e["pointer"] for e in d["problem"]["errors"]] for d in answer[1:-1]]
    assert pointers == [
        ["/documents/1/mentions/1"],
        ["/documents/2/mentions/0"],
        ["/documents/3/mentions/0"],
        ["/documents/4/mentions/0"],
        ["/documents/5/text"],
    ]
    assert all(d["problem"]["status"] == 422 and "mentions" not in d for d in answer[1:-1])
    assert answer[0]["mentions"] == answer[-1]["mentions"]
    assert answer[0]["mentions"][0]["text"] == "asthma"


def test_mentions_keep_their_document_and_order(api):
    spans = [{"start": 8, "end": 15}, {"start": 0, "end": 6, "type": "a note"}]
    body = link(
        api,
        document("asthma, infarto", name="two", mentions=spans),
        document("none", name="none", mentions=[]),
        document("asthma", name="one"),
    )
    texts = [[m["text"] for m in d["mentions"]] for d in body["documents"]]
    assert texts == [["infarto", "asthma"], [], ["asthma"]]
    two = body["documents"][0]["mentions"]
    assert [m["candidates"][0]["id"] for m in two] == ["hp:0001658", "hp:0002099"]
    assert two[1]["type"] == "a note"
    assert link(api, document(mentions=[]))["documents"][0]["mentions"] == []
    assert link(api)["documents"][0]["mentions"]


def test_no_documents_are_no_error(api):
    answer = ask(api, "POST", "/v1/link", json={"documents": []})
    assert (answer.status_code, answer.json()["documents"]) == (200, [])


def test_options_change_the_answer(api):
    (mention,) = link(api, top_k=1, explain=True)["documents"][0]["mentions"]
    assert [c["matched_source"] for c in mention["candidates"]] == ["hp"]
    cold = document("cold", mentions=[{"start": 0, "end": 4}])
    (mention,) = link(api, cold, types=["symptom"], kb=["umls"])["documents"][0]["mentions"]
    assert mention["candidates"][0]["id"] == "umls:C0009264"
    (mention,) = link(api, cold, types=["disorder"], rank="never")["documents"][0]["mentions"]
    assert mention["candidates"][0]["id"] == "umls:C0009443"


def test_what_comes_first_does_not_depend_on_how_much_is_asked_for():
    class Myopic(Broken):
        def retrieve(self, mentions, *, k, where=None):
            found = super().retrieve(mentions, k=64, where=where)
            return [c[:k] if k >= 64 else c[::-1][:k] for c in found]

    api = local_api(Myopic)
    first = [
        link(api, top_k=k)["documents"][0]["mentions"][0]["candidates"][0]["id"] for k in (1, 2, 64)
    ]
    assert first == ["hp:0002099"] * 3


def test_nil_below_the_threshold_keeps_the_candidates(api):
    near = document("asthmas", mentions=[{"start": 0, "end": 7}])
    (mention,) = link(api, near, nil_threshold=0.999)["documents"][0]["mentions"]
    assert mention["nil"]
    assert "0.999" in mention["reason"]
    assert mention["candidates"][0]["id"] == "hp:0002099"


def test_nil_without_a_candidate(api):
    nothing = document("qqq", mentions=[{"start": 0, "end": 3}])
    (mention,) = link(api, nothing)["documents"][0]["mentions"]
    assert (mention["nil"], mention["candidates"], mention["score"]) == (True, [], 0)
    assert mention["reason"] == "no candidate"


def test_a_request_goes_before_the_server_s_threshold():
    api = local_api(ranking=RankingConfig(nil_threshold=0.999))
    near = document("asthmas", mentions=[{"start": 0, "end": 7}])
    assert link(api, near)["documents"][0]["mentions"][0]["nil"]
    assert not link(api, near, nil_threshold=0.1)["documents"][0]["mentions"][0]["nil"]


def test_concepts_and_info(api):
    concept = ask(api, "GET", "/v1/concepts/hp:0002099").json()
    assert ConceptOut.model_validate(concept).definition == "Reversible airway obstruction."
    info = InfoOut.model_validate(ask(api, "GET", "/v1/info").json())
    assert (info.vocabularies, info.ranker) == (["hp", "umls"], None)
    assert info.types == ["anatomy", "disorder", "symptom"]
    assert {"en", "ja", "th"} < set(info.languages)
    assert info.limits["text_code_points"] == 20_000


def test_ready_only_with_an_answer_to_the_canary():
    class Silent(Broken):
        def retrieve(self, mentions, *, k, where=None):
            return [() for _ in mentions]

    assert ask(local_api(), "GET", "/readyz").status_code == 200
    silent = local_api(Silent)
    assert ask(silent, "GET", "/readyz").status_code == 503
    assert ask(silent, "GET", "/healthz").json() == {"status": "ok"}


def test_readiness_survives_a_broken_retriever():
    class Dead(Broken):
        def retrieve(self, mentions, *, k, where=None):
            raise ValueError

    assert_problem(ask(local_api(Dead), "GET", "/readyz"), 500)


def test_the_page_comes_with_a_strict_policy(api):
    for name in ("", "app.js", "text.js", "view.js", "style.css", "icon.svg"):
        answer = ask(api, "GET", f"/ui/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert "style=" not in answer.text
        assert "innerHTML" not in answer.text
    page = ask(api, "GET", "/ui/").text
    assert page.count("<script") == 1
    assert '<script type="module" src="app.js">' in page
    assert ask(api, "GET", "/").headers["location"] == "ui/"
    assert len(ask(api, "GET", "/ui/sentences.json").json()) >= 14


def test_openapi_describes_the_request_and_its_limits(api):
    spec = ask(api, "GET", "/openapi.json").json()
    assert spec["openapi"].startswith("3.1")
    schemas = spec["components"]["schemas"]
    assert schemas["DocumentIn"]["properties"]["text"]["maxLength"] == 20_000
    assert schemas["LinkRequest"]["additionalProperties"] is False
    assert "HTTPValidationError" not in schemas
    default = spec["paths"]["/v1/concepts/{curie}"]["get"]["responses"]["default"]
    (ref,) = (content["schema"]["$ref"] for content in default["content"].values())
    assert ref.rpartition("/")[2] in schemas
