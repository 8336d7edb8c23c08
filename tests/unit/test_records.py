from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_ray.config import RankingConfig, load_config
from bioelx_ray.errors import ConfigError, MentionError
from bioelx_ray.ranking.ranker import PassThroughRanker
from bioelx_ray.records import Alias, Candidate, Concept, Mention, mention_in
from bioelx_ray.tables import SCHEMAS, from_table, to_table

RECORDS = [
    Concept(id="hp:1", name="n", semantic_types=("a", "b"), definition=None, xrefs=()),
    Alias(concept_id="hp:1", text="ไข้", lang="th", source="s", preferred=True),
    Mention(text="x", lang="he", left="l", right="r", document_id="d", start=1, end=2),
    Candidate(concept_id="hp:1", alias="a", lang="en", source="s", score=0.5),
    Candidate(concept_id="hp:1", alias="a", lang="en", source="s", score=0.5, retrieval_score=0.25),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_schema_has_the_fields_of_the_record_and_brings_it_back(record):
    kind = type(record)
    assert SCHEMAS[kind].names == [field.name for field in fields(kind)]
    assert from_table(to_table([record, record], kind), kind) == [record, record]


@given(st.text(min_size=1, max_size=40), st.data())
def test_mention_is_the_slice_and_context_is_the_rest(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if not text[start:end].strip():
        with pytest.raises(MentionError, match="white space"):
            mention_in(text, start, end)
        return
    mention = mention_in(text, start, end)
    assert mention.text == text[start:end]
    assert mention.left + mention.text + mention.right == text


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, 6), (9, 12)])
def test_offsets_outside_the_text_are_refused(start, end):
    with pytest.raises(MentionError, match="does not lie in a text of 5 code points"):
        mention_in("fever", start, end)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(MentionError, match="surrogate"):
        mention_in("\ud83d fever", 2, 7)


def test_offsets_count_code_points():
    assert mention_in("🤒 fever", 2, 7).text == "fever"


def candidate(score):
    return Candidate(concept_id="hp:1", alias="a", lang="en", source="s", score=score)


def test_pass_through_keeps_the_order_and_answers_nil_below_the_threshold():
    mention = Mention(text="x")
    ranked = PassThroughRanker(RankingConfig(nil_threshold=0.5)).rank(
        [mention] * 3, [(candidate(0.6), candidate(0.4)), (candidate(0.4),), ()]
    )
    assert [link.concept_id for link in ranked] == ["hp:1", None, None]
    assert [link.decided_by for link in ranked] == ["retrieval"] * 3
    assert "below the NIL threshold" in ranked[1].reason
    assert ranked[2].reason == "no candidate"
    assert ranked[0].candidates == (candidate(0.6), candidate(0.4))


def test_settings_come_from_file_then_overrides(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("encoder: {engine: torch}\nindex: {kind: flat}\n")
    config = load_config(file, {"encoder.engine": "auto"})
    assert (config.encoder.engine, config.index.kind) == ("auto", "flat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: {engin: torch}", "encoder.engin"),
        ("index: {min_recall: 2}", "index.min_recall"),
        ("- a", "mapping of sections"),
        ("encoder: torch", "mapping of sections"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_wrong_settings_say_where(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
