"""Which concepts of several vocabularies are one: hand-made tables, and the gate's arithmetic."""

from __future__ import annotations

import itertools

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.kb.crosswalk import resolve, write_report
from bioelx_ray.kb.crosswalk.gate import compete
from bioelx_ray.kb.crosswalk.likeness import SAME_WORDS, likeness, signatures
from bioelx_ray.kb.text import normalise

SCHEMAS = {
    "aliases": "concept_id VARCHAR, text VARCHAR, lang VARCHAR, source VARCHAR,"
    " preferred BOOLEAN, form VARCHAR, src INTEGER",
    "concepts": "id VARCHAR, name VARCHAR, semantic_types VARCHAR[], definition VARCHAR,"
    " src INTEGER",
    "mappings": "subject_id VARCHAR, object_id VARCHAR, kind VARCHAR, source VARCHAR,"
    " preferred BOOLEAN, src INTEGER",
}


class Tables:
    """Rows as they are written down, then a connection with them."""

    def __init__(self):
        self.aliases, self.concepts, self.mappings = [], [], []

    def concept(self, id_, *names, src=0, lang="en", types=()):
        self.concepts.append((id_, names[0] if names else "", list(types), None, src))
        for text in names:
            row = (id_, text, lang, "made-up", text == names[0], normalise(text, lang), src)
            self.aliases.append(row)
        return self

    def link(self, subject, *objects, kind="exact", source="made-up", preferred=False):
        self.mappings += [(subject, o, kind, source, preferred, 0) for o in objects]
        return self

    def load(self):
        connection = duckdb.connect(config={"threads": 1})
        for name, schema in SCHEMAS.items():
            connection.execute(f"CREATE TABLE {name} ({schema})")
            if rows := getattr(self, name):
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
        return connection

    def resolve(self, **options):
        connection = self.load()
        crosswalk = resolve(connection, **options)
        return Result(connection, crosswalk)


class Result:
    def __init__(self, connection, crosswalk):
        self.connection, self.crosswalk = connection, crosswalk
        self.homes = dict(connection.execute("FROM homes").fetchall())
        self.rows = connection.execute("FROM xrefs").fetchall()
        self.decisions = {(a, b): decision for a, b, _, _, decision, _, _ in self.rows}
        self.reasons = {(a, b): reason for a, b, _, _, _, reason, _ in self.rows}


def test_an_exact_link_joins_two_concepts_and_the_most_trusted_source_is_home():
    made = Tables().concept("hp:1", "fever", src=1).concept("mondo:9", "fever", src=0)
    assert made.link("hp:1", "mondo:9").resolve().homes == {"hp:1": "mondo:9"}


def test_of_equally_trusted_sources_the_smallest_id_is_home():
    made = Tables().concept("mondo:1", "fever").concept("hp:2", "fever")
    assert made.link("mondo:1", "hp:2").resolve().homes == {"mondo:1": "hp:2"}


def test_concepts_join_over_an_id_that_is_no_concept_of_the_kb():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "pyrexia", src=1)
    result = made.link("hp:1", "umls:C1").link("mondo:1", "umls:C1").resolve()
    assert result.homes == {"mondo:1": "hp:1"}
    assert set(result.decisions.values()) == {"merged"}


def test_an_id_that_only_one_concept_has_joins_nothing_and_stays():
    result = Tables().concept("hp:1", "fever").link("hp:1", "umls:C1").resolve()
    assert result.homes == {}
    assert result.rows[0][4:6] == ("kept", "no other concept has the id")


def test_a_chain_over_three_vocabularies_has_one_home():
    made = Tables().concept("hp:1", "fever", src=2).concept("mondo:1", "fever", src=1)
    made.concept("doid:1", "fever", src=0).link("hp:1", "umls:C1").link("mondo:1", "umls:C1")
    made.link("mondo:1", "doid:1")
    assert made.resolve().homes == {"hp:1": "doid:1", "mondo:1": "doid:1"}


def test_a_cycle_of_links_ends():
    made = Tables()
    for id_ in ("hp:1", "mondo:1", "doid:1"):
        made.concept(id_, "fever")
    made.link("hp:1", "mondo:1").link("mondo:1", "doid:1").link("doid:1", "hp:1")
    assert made.resolve().homes == {"hp:1": "doid:1", "mondo:1": "doid:1"}


@pytest.mark.parametrize("kind", ["close", "broad", "narrow", "related"])
def test_other_kinds_than_exact_never_merge(kind):
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "fever")
    result = made.link("hp:1", "mondo:1", kind=kind).resolve()
    assert result.homes == {}
    assert result.rows[0][4:] == ("kept", "kind does not merge", None)


def test_a_self_mapping_and_one_within_a_vocabulary_are_kept_and_merge_nothing():
    made = Tables().concept("hp:1", "fever").concept("hp:2", "fever")
    result = made.link("hp:1", "hp:1", "hp:2").resolve()
    assert result.homes == {}
    assert set(result.decisions.values()) == {"kept"}


def test_a_cross_reference_that_is_one_to_one_merges_without_names():
    made = Tables().concept("hp:1").concept("mondo:1", "fever")
    assert made.link("hp:1", "mondo:1", kind="xref").resolve().homes == {"mondo:1": "hp:1"}


def test_a_cross_reference_is_dropped_where_the_names_disagree():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "ulna hypoplasia")
    result = made.link("hp:1", "mondo:1", kind="xref").resolve()
    assert result.homes == {}
    assert result.rows[0][4:6] == ("dropped", "names, types or other links disagree")


def test_names_in_no_common_language_say_nothing():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "ulnahypoplasie", lang="de")
    assert made.link("hp:1", "mondo:1", kind="xref").resolve().homes == {"mondo:1": "hp:1"}


def test_of_several_objects_the_one_with_the_name_wins():
    made = Tables().concept("hp:1", "fever", "pyrexia").concept("mondo:1", "cough")
    made.concept("mondo:2", "Pyrexia").link("hp:1", "mondo:1", "mondo:2")
    result = made.resolve()
    assert result.homes == {"mondo:2": "hp:1"}
    assert result.decisions["hp:1", "mondo:1"] == "dropped"
    assert result.reasons["hp:1", "mondo:2"] == "fits best of several"


def test_of_several_objects_the_one_of_the_same_words_in_another_order_wins():
    made = Tables().concept("hp:1", "erythrocytosis, familial, 5")
    made.concept("mondo:1", "familial erythrocytosis 4").concept(
        "mondo:2", "familial erythrocytosis 5"
    )
    assert made.link("hp:1", "mondo:1", "mondo:2").resolve().homes == {"mondo:2": "hp:1"}


def test_of_several_subjects_the_one_with_the_name_wins():
    made = Tables().concept("hp:1", "fever").concept("hp:2", "cough").concept("mondo:1", "fever")
    result = made.link("hp:1", "mondo:1").link("hp:2", "mondo:1").resolve()
    assert result.homes == {"mondo:1": "hp:1"}


def test_names_of_what_else_is_linked_to_an_id_speak_for_it():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "fever").concept("doid:5", "cough")
    made.link("hp:1", "umls:C1", "umls:C2").link("mondo:1", "umls:C1").link("doid:5", "umls:C2")
    result = made.resolve()
    assert result.homes == {"mondo:1": "hp:1"}
    assert result.decisions["hp:1", "umls:C2"] == "dropped"


def test_of_several_objects_the_preferred_one_wins():
    made = Tables().concept("wikidata:Q1", "fever").concept("mondo:1", "fever")
    made.link("wikidata:Q1", "umls:C1").link("wikidata:Q1", "umls:C2", preferred=True)
    result = made.link("mondo:1", "umls:C1", "umls:C2").resolve()
    assert result.decisions["wikidata:Q1", "umls:C2"] != "dropped"
    alone = Tables().concept("wikidata:Q1").concept("mondo:1").concept("mondo:2")
    alone.link("wikidata:Q1", "mondo:1").link("wikidata:Q1", "mondo:2", preferred=True)
    assert alone.resolve().homes == {"wikidata:Q1": "mondo:2"}


def test_mutual_links_win():
    made = Tables().concept("hp:1").concept("mondo:1").concept("mondo:2")
    made.link("hp:1", "mondo:1", "mondo:2").link("mondo:2", "hp:1")
    assert made.resolve().homes == {"mondo:2": "hp:1"}


def test_a_third_vocabulary_that_links_both_wins():
    made = Tables().concept("hp:1").concept("mondo:1").concept("mondo:2")
    made.link("hp:1", "mondo:1", "mondo:2", "doid:1").link("mondo:2", "doid:1")
    assert made.resolve().homes == {"mondo:2": "hp:1"}


def test_without_evidence_all_of_the_group_are_ambiguous():
    made = Tables().concept("hp:1").concept("mondo:1").concept("mondo:2").concept("doid:1", "x")
    result = made.link("hp:1", "mondo:1", "mondo:2").resolve()
    assert result.homes == {}
    assert {row[4:6] for row in result.rows} == {("ambiguous", "several ids fit alike")}
    assert result.crosswalk.decisions == {"ambiguous": {"several ids fit alike": 2}}


def test_a_link_with_rivals_at_both_ends_gives_way_to_two_without():
    made = Tables().concept("hp:1").concept("hp:2").concept("mondo:1").concept("mondo:2")
    result = made.link("hp:1", "mondo:1", "mondo:2").link("hp:2", "mondo:2").resolve()
    assert result.homes == {"mondo:1": "hp:1", "mondo:2": "hp:2"}


def test_types_that_go_together_elsewhere_decide():
    made = Tables()
    for n in range(100, 140):
        kind = ("finding", "sign") if n % 2 else ("disease", "disorder")
        made.concept(f"hp:{n}", f"name number {n}", types=[kind[0]])
        made.concept(f"mondo:{n}", f"name number {n}", types=[kind[1]])
        made.link(f"hp:{n}", f"mondo:{n}")
    made.concept("hp:1", types=["finding"]).concept("mondo:1", types=["disorder"])
    made.concept("mondo:2", types=["sign"]).link("hp:1", "mondo:1", "mondo:2")
    assert made.resolve().homes["mondo:2"] == "hp:1"


def test_two_concepts_of_one_vocabulary_never_come_together_over_others():
    made = Tables().concept("hp:1", "fever").concept("hp:2", "fever").concept("mondo:1", "fever")
    made.concept("doid:1", "fever")
    made.link("hp:1", "mondo:1").link("mondo:1", "doid:1").link("doid:1", "hp:2")
    result = made.resolve()
    components = {id_: result.homes.get(id_, id_) for id_ in ("hp:1", "hp:2")}
    assert components["hp:1"] != components["hp:2"]
    assert "joins two ids of one vocabulary" in result.reasons.values()


def test_an_id_of_no_consequence_does_not_keep_concepts_apart():
    made = (
        Tables().concept("mondo:1", "fever").concept("doid:1", "fever").concept("hp:1", "pyrexia")
    )
    made.link("mondo:1", "doid:1").link("doid:1", "umls:C2").link("mondo:1", "umls:C1")
    made.link("hp:1", "umls:C1")
    result = made.resolve()
    assert result.homes == {"mondo:1": "doid:1", "hp:1": "doid:1"}
    assert result.decisions["doid:1", "umls:C2"] == "ambiguous"


def test_a_wrong_second_link_does_not_speak_against_the_right_one_of_the_other_concept():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "fever").concept("mondo:2", "cough")
    made.link("hp:1", "umls:C1", "umls:C2").link("mondo:1", "umls:C1").link("mondo:2", "umls:C2")
    made.concept("doid:2", "cough").link("doid:2", "umls:C2")
    assert made.resolve().homes == {"mondo:1": "hp:1", "mondo:2": "doid:2"}


def test_odd_characters_in_ids_are_only_characters():
    odd = [
        "orphanet:12'; DROP TABLE homes",
        'omim:PS"1"',
        "icd10:I21.9+*",
        "mesh:D\u00e9\U0001f600",
    ]
    made = Tables().concept("hp:1", "fever")
    for id_ in odd:
        made.concept(id_, "fever", src=1).link("hp:1", id_)
    assert made.resolve().homes == dict.fromkeys(odd, "hp:1")


def test_what_is_no_curie_is_kept():
    ids = ["http://example.org/1", "no prefix", "", "hp:", ":1"]
    result = Tables().concept("mondo:1", "fever").link("mondo:1", *ids).resolve()
    assert {row[4] for row in result.rows} == {"kept"}
    assert len(result.rows) == len(ids)


def test_a_hub_with_hundreds_of_links_is_ambiguous_and_quick():
    made = Tables()
    for n in range(400):
        made.concept(f"hp:{n}", f"name number {n}").link(f"hp:{n}", "icd10:R69")
    result = made.resolve()
    assert result.homes == {}
    assert set(result.decisions.values()) == {"ambiguous"}


def test_an_alias_without_a_concept_row_makes_a_concept():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "fever")
    made.concepts.pop()
    assert made.link("hp:1", "mondo:1").resolve().homes == {"mondo:1": "hp:1"}


def test_no_mappings_at_all():
    result = Tables().concept("hp:1", "fever").resolve()
    assert (result.homes, result.rows) == ({}, [])


def test_unify_switched_off_keeps_all():
    made = Tables().concept("hp:1", "fever").concept("mondo:1", "fever").link("hp:1", "mondo:1")
    result = made.resolve(unify=False)
    assert result.homes == {}
    assert result.rows == [
        ("hp:1", "mondo:1", "exact", "made-up", "kept", "merging is switched off", None)
    ]


def test_the_same_mapping_twice_is_one_row_and_each_source_has_its_own():
    made = Tables().link("hp:1", "mondo:1").link("hp:1", "mondo:1")
    made.link("hp:1", "mondo:1", source="another")
    assert len(made.resolve().rows) == 2


def test_a_second_call_gives_the_same_tables():
    connection = (
        Tables().concept("hp:1", "f").concept("mondo:1", "f").link("hp:1", "mondo:1").load()
    )
    first = resolve(connection)
    assert resolve(connection) == first
    assert connection.execute("FROM homes").fetchall() == [("mondo:1", "hp:1")]


def test_the_report_names_both_sides(tmp_path):
    made = Tables().concept("hp:1", 'fe\tver "high"').concept("mondo:1", "ulna hypoplasia")
    result = made.link("hp:1", "mondo:1", kind="xref").resolve()
    path = tmp_path / "it's a report.tsv"
    assert write_report(result.connection, path) == 1
    head, line = path.read_text(encoding="utf-8").splitlines()
    row = dict(zip(head.split("\t"), line.split("\t"), strict=True))
    assert (row["name"], row["xref_name"]) == ('fe ver "high"', "ulna hypoplasia")
    assert (row["decision"], row["kind"]) == ("dropped", "xref")
    assert 0 < float(row["score"]) < 0.6


@st.composite
def made_up(draw):
    made = Tables()
    ids = [f"{v}:{n}" for v in ("hp", "mondo", "doid", "umls") for n in range(4)]
    names = ["acute fever", "fever", "cough", "dry cough 2", "dry cough 1"]
    for id_ in draw(st.lists(st.sampled_from(ids), unique=True)):
        texts = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
        made.concept(id_, *texts, src=draw(st.integers(0, 2)), types=texts[:1])
    for _ in range(draw(st.integers(0, 25))):
        subject, object_ = draw(st.sampled_from(ids)), draw(st.sampled_from(ids))
        kind = draw(st.sampled_from(["exact", "xref", "close"]))
        made.link(subject, object_, kind=kind, preferred=draw(st.booleans()))
    return made, draw(st.randoms(use_true_random=False))


@settings(max_examples=12, deadline=None)
@given(made_up())
def test_the_order_of_rows_changes_nothing_and_no_vocabulary_meets_itself(case):
    made, chance = case
    first = made.resolve()
    for rows in (made.aliases, made.concepts, made.mappings):
        chance.shuffle(rows)
    second = made.resolve()
    assert (second.homes, second.rows) == (first.homes, first.rows)
    assert second.crosswalk == first.crosswalk
    home = {row[0]: first.homes.get(row[0], row[0]) for row in made.concepts}
    for one, other in itertools.combinations(home, 2):
        if one.partition(":")[0] == other.partition(":")[0]:
            assert home[one] != home[other]
    assert not set(first.homes) & set(first.homes.values())


def exact_marginals(odds, slots):
    """By trying all choices of links in which no slot is taken twice."""
    total, chosen = 0.0, np.zeros(len(odds))
    for picks in itertools.product([0, 1], repeat=len(odds)):
        taken = [slot for pick, pair in zip(picks, slots.T, strict=True) if pick for slot in pair]
        if len(taken) == len(set(taken)):
            weight = float(np.exp(np.dot(picks, odds)))
            total, chosen = total + weight, chosen + weight * np.array(picks)
    return chosen / total


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=1, max_size=8))
def test_rivals_along_a_path_get_their_exact_probability(odds):
    slots = np.array([[n, n + 1] for n in range(len(odds))]).T
    np.testing.assert_allclose(
        compete(np.array(odds), slots), exact_marginals(odds, slots), atol=1e-5
    )


def test_rivals_in_a_cycle_come_near_to_their_exact_probability():
    slots = np.array([[0, 2], [0, 3], [1, 2], [1, 3]]).T
    odds = np.array([5.0, 1.0, 0.0, 4.0])
    np.testing.assert_allclose(compete(odds, slots), exact_marginals(odds, slots), atol=0.02)


def alike(left, right):
    return float(likeness(signatures(pa.array([left])), signatures(pa.array([right])))[0])


def test_likeness_knows_words_in_any_order_numbers_and_scripts():
    assert (
        alike("coenzyme q10 deficiency, primary, 1", "primary coenzyme q10 deficiency 1")
        == SAME_WORDS
    )
    assert alike("b-cell lymphoma", "b cell lymphoma") == SAME_WORDS
    assert alike("dent disease 1", "dent disease 2") < alike("dent disease", "dents disease") < 1
    assert alike("糖尿病", "2型糖尿病") > 0
    assert alike("糖尿病", "fever") == alike("", "") == alike("--", "--") == 0


def test_likeness_of_long_words_and_of_slices():
    long = "x" * 100
    assert 0 < alike(long + "a", long + "b") < SAME_WORDS
    whole = pa.array(["fever", "cough", "糖尿病", "rash"])
    part = signatures(whole.slice(1, 2))
    np.testing.assert_array_equal(part.bits, signatures(pa.array(["cough", "糖尿病"])).bits)
    assert len(signatures(pa.array([], pa.string())).words) == 0
