"""The contract of `Retriever`, held by each kind over one small index with the stand-in encoder."""

import dataclasses
import random

import numpy as np
import pytest

from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, InputError
from bioelx_ray.records import Mention
from bioelx_ray.retrieval import retriever as stage_one
from bioelx_ray.retrieval.opened import open_index
from bioelx_ray.retrieval.retriever import Filter
from bioelx_ray.testing import HashEncoder, small_index

MENTIONS = [
    Mention(text="Herzinfarkts", lang="de"),
    Mention(text="ИНФАРКТ миокарда", lang="ru"),
    Mention(text="心肌梗死", lang="zh"),
    Mention(text="심근경색증", lang="ko"),
    Mention(text="โรคหืด", lang="th"),
    Mention(text="喘息", lang="ja"),
    Mention(text="حمى", lang="ar"),
    Mention(text="חום", lang="he"),
    Mention(text="बुखार", lang="hi"),
    Mention(text="BOYUN", lang="tr"),
]
GOLD = ["hp:0001658"] * 4 + ["hp:0002099"] * 2 + ["hp:0001945"] * 3 + ["umls:C0027530"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    small_index(directory)
    return open_index(directory / "index")


@pytest.fixture(params=["dense", "lexical", "hybrid"])
def retriever(request, index):
    if request.param == "lexical":
        return stage_one.lexical(index)
    weighted = dataclasses.replace(index, fusion={"other": 0.5})
    return getattr(stage_one, request.param)(weighted, HashEncoder())


def test_every_script_finds_its_concept(retriever):
    found = retriever.retrieve(MENTIONS, k=3)
    assert [candidates[0].concept_id for candidates in found] == GOLD


def test_candidates_are_distinct_sorted_and_at_most_k(retriever):
    for k in (1, 2, 64):
        for candidates in retriever.retrieve(MENTIONS, k=k):
            ids = [c.concept_id for c in candidates]
            assert len(ids) == len(set(ids)) <= k
            order = [(-c.score, c.concept_id) for c in candidates]
            assert order == sorted(order)


def test_answers_do_not_depend_on_the_batch_or_the_order(retriever):
    whole = dict(zip(MENTIONS, retriever.retrieve(MENTIONS, k=4), strict=True))
    mixed = MENTIONS * 3
    random.Random(0).shuffle(mixed)
    for size in (1, 8, len(mixed)):
        for start in range(0, len(mixed), size):
            batch = mixed[start : start + size]
            for mention, got in zip(batch, retriever.retrieve(batch, k=4), strict=True):
                wanted = whole[mention]
                assert [c.concept_id for c in got] == [c.concept_id for c in wanted]
                np.testing.assert_allclose(
                    [c.score for c in got], [c.score for c in wanted], atol=1e-5
                )


def test_ties_go_by_concept_id_and_the_shown_alias_by_language(retriever):
    (cold,) = retriever.retrieve([Mention(text="Cold", lang="en")], k=2)
    assert [c.concept_id for c in cold] == ["umls:C0009264", "umls:C0009443"]
    assert cold[0].score == cold[1].score
    (fever,) = retriever.retrieve([Mention(text="fever", lang="en")], k=1)
    assert (fever[0].alias, fever[0].lang, fever[0].source) == ("Fever", "en", "hp")


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (Filter(semantic_types=frozenset({"symptom"})), {"hp:0001945", "umls:C0009264"}),
        (Filter(vocabularies=frozenset({"umls"}), langs=frozenset({"tr"})), {"umls:C0027530"}),
        (Filter(sources=frozenset({"hp"}), semantic_types=frozenset({"symptom"})), {"hp:0001945"}),
        (  # that "heart attack" is in the starter table too is not the first thing said of it
            Filter(
                sources=frozenset({"starter"}),
                langs=frozenset({"en"}),
                semantic_types=frozenset({"disorder"}),
            ),
            {"hp:0001658", "umls:C0009443"},
        ),
    ],
)
def test_filters_leave_only_what_they_allow(index, where, ids):
    dense = stage_one.dense(index, HashEncoder())
    for candidates in dense.retrieve(MENTIONS, k=6, where=where):
        assert {c.concept_id for c in candidates} == ids
    for kind in (stage_one.lexical(index), stage_one.hybrid(index, HashEncoder())):
        for candidates in kind.retrieve(MENTIONS, k=6, where=where):
            assert {c.concept_id for c in candidates} <= ids


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Filter(langs=frozenset({"xx"})), "no lang xx in this index; it has: ar, de"),
        (Filter(sources=frozenset({"drugbank"})), "no source drugbank"),
        (Filter(vocabularies=frozenset({"mesh"})), "no vocabulary mesh.*it has: hp, umls"),
        (Filter(semantic_types=frozenset({"gene"})), "no semantic type gene"),
    ],
)
def test_filters_for_what_is_not_there_are_errors(retriever, where, message):
    with pytest.raises(InputError, match=message):
        retriever.retrieve(MENTIONS, k=1, where=where)


@pytest.mark.parametrize("text", ["", "\u200b\u00ad", "   "])
def test_nothing_to_search_for_gives_no_candidate(retriever, text):
    assert retriever.retrieve([Mention(text=text), Mention(text="fever")], k=2)[0] == ()


def test_no_mentions_give_nothing(retriever):
    assert retriever.retrieve([], k=5) == []


def test_odd_and_huge_texts_are_answered(retriever):
    odd = [Mention(text=t) for t in ("🤒🤒", "…", "ᚠᚢᚦ", "a" * 20_000, "\ud83d", "ﬁbrosis ½")]
    assert len(retriever.retrieve(odd, k=5)) == len(odd)


def test_another_encoder_is_refused(index):
    for kind in (stage_one.dense, stage_one.hybrid):
        with pytest.raises(ArtifactMismatch, match="build an index with this one"):
            kind(index, HashEncoder(dim=32))


def test_damaged_index_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    small_index(tmp_path)
    file = tmp_path / "index" / "dense.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=r"dense\.faiss has checksum"):
        open_index(tmp_path / "index")
