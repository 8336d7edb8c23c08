import random

import pytest

from bioelx_ray.config import HarvestConfig
from bioelx_ray.kb.merge import SourceParts, merge
from bioelx_ray.kb.parts import PartWriter
from bioelx_ray.kb.store import ALIASES, CONCEPTS, RETIRED, XREFS
from bioelx_ray.records import Alias, Concept, IdMapping, Retired
from bioelx_ray.retrieval.forms import _open as open_arrow
from bioelx_ray.tables import from_table


def concept(id_, name="n", **more):
    return Concept(id=id_, name=name, **more)


def alias(id_, text, lang="en", source="s", preferred=False, **more):
    return Alias(concept_id=id_, text=text, lang=lang, source=source, preferred=preferred, **more)


class Merged:
    def __init__(self, directory, counts):
        self.counts = counts
        self.concepts = from_table(open_arrow(directory / CONCEPTS), Concept)
        self.aliases = from_table(open_arrow(directory / ALIASES), Alias)
        self.retired = from_table(open_arrow(directory / RETIRED), Retired)
        self.xrefs = [tuple(row.values()) for row in open_arrow(directory / XREFS).to_pylist()]
        self.files = {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def merged(tmp_path):
    made = 0

    def run(streams, *, unify=True, split=1):
        nonlocal made
        made += 1
        home = tmp_path / str(made)
        sources = []
        for number, stream in enumerate(streams):
            parts, figures = [], []
            for piece in range(split):
                with PartWriter(home / f"{number}-{piece}") as writer:
                    writer.add_all(stream[piece::split])
                parts.append(home / f"{number}-{piece}")
                figures.append(writer.figures)
            sources.append(SourceParts(name=str(number), parts=parts, figures=figures))
        out = home / "out"
        out.mkdir()
        counts = merge(sources, out, config=HarvestConfig(unify=unify))
        return Merged(out, counts)

    return run


def test_one_concept_of_two_sources(merged):
    first = [concept("x:1", "First", semantic_types=("A",), xrefs=("y:1",))]
    second = [
        concept("x:1", "Second", semantic_types=("B", "A"), definition="D", xrefs=("z:1", "y:1"))
    ]
    found = merged([first, second])
    assert found.concepts == [
        concept("x:1", "First", semantic_types=("A", "B"), definition="D", xrefs=("y:1", "z:1"))
    ]
    assert found.xrefs == [("y:1", "x:1", "xref"), ("z:1", "x:1", "xref")]


def test_like_aliases_are_one_that_names_all_its_sources(merged):
    first = [concept("x:1"), alias("x:1", "Crohn’s  Disease", source="first")]
    second = [
        alias("x:1", "crohn's disease", source="second", preferred=True),
        alias("x:1", "CROHN'S DISEASE", source="third"),
        alias("x:1", "Crohn's disease", lang="de", source="second"),
    ]
    assert merged([first, second]).aliases == [
        alias("x:1", "Crohn's disease", lang="de", source="second"),
        alias("x:1", "Crohn’s  Disease", source="first", preferred=True, also=("second", "third")),
    ]


def test_forms_of_several_concepts_in_a_language_are_ambiguous(merged):
    records = [
        *map(concept, ("x:1", "x:2", "x:3")),
        alias("x:1", "Cold"),
        alias("x:2", "cold"),
        alias("x:3", "COLD"),
        alias("x:3", "cold", lang="de"),
        alias("x:1", "warm"),
    ]
    found = merged([records])
    assert found.counts["ambiguous_forms"] == 1
    assert [a.text for a in found.aliases if a.ambiguous] == ["Cold", "cold", "COLD"]


def test_what_is_no_name_is_left_out(merged):
    texts = ["Fever", "123", "1.5 %", "disorder of", "x" * 300, "熱", "ไข้"]
    found = merged([[concept("x:1", "Fever"), *(alias("x:1", text) for text in texts)]])
    assert [a.text for a in found.aliases] == ["Fever", "ไข้", "熱"]


HP = [
    concept("hp:1", "Myocardial infarction", xrefs=("umls:C1",)),
    alias("hp:1", "Myocardial infarction", preferred=True),
]
STARTER = [
    concept("umls:C1", "Herzinfarkt", definition="D", semantic_types=("T",), xrefs=("mesh:D1",)),
    alias("umls:C1", "Herzinfarkt", lang="de", preferred=True),
    alias("umls:C1", "myocardial Infarction"),
    concept("umls:C3", "Alone"),
]


def test_joined_concepts_are_the_one_of_the_most_trusted_source(merged):
    found = merged([HP, STARTER])
    assert found.concepts == [
        concept(
            "hp:1",
            "Myocardial infarction",
            definition="D",
            semantic_types=("T",),
            xrefs=("mesh:D1", "umls:C1"),
        ),
        concept("umls:C3", "Alone"),
    ]
    assert [(a.text, a.lang, a.ambiguous) for a in found.aliases] == [
        ("Herzinfarkt", "de", False),
        ("Myocardial infarction", "en", False),
    ]
    assert found.counts["unified"] == 1
    assert ("umls:C1", "hp:1", "exact") in found.xrefs
    assert [c.id for c in merged([STARTER, HP]).concepts] == ["umls:C1", "umls:C3"]


def test_without_unify_all_stay(merged):
    found = merged([HP, STARTER], unify=False)
    assert len(found.concepts) == 3
    assert found.counts["unified"] == 0


def test_a_mapping_joins_two_concepts_and_its_kind_is_kept(merged):
    mappings = [
        IdMapping(subject_id="umls:C3", object_id="doid:3", kind="exact", source="sssom:x"),
        IdMapping(subject_id="umls:C3", object_id="icd10:A1", kind="broad", source="sssom:x"),
    ]
    found = merged([STARTER, [concept("doid:3", "alone"), alias("doid:3", "Solo")], mappings])
    assert [c.id for c in found.concepts] == ["umls:C1", "umls:C3"]
    assert [a.concept_id for a in found.aliases if a.text == "Solo"] == ["umls:C3"]
    assert {row for row in found.xrefs if row[1] == "umls:C3"} == {
        ("doid:3", "umls:C3", "exact"),
        ("icd10:A1", "umls:C3", "broad"),
    }


def test_a_reference_that_two_concepts_share_does_not_join_them(merged):
    page = "https://example.org/fever"
    one = [concept("x:1", "Fever", xrefs=("pubmed:1", page)), alias("x:1", "Fever")]
    two = [concept("y:1", "Chills", xrefs=("pubmed:1", page)), alias("y:1", "Chills")]
    found = merged([one, two])
    assert [c.id for c in found.concepts] == ["x:1", "y:1"]
    assert ("pubmed:1", "x:1", "related") in found.xrefs


def test_a_concept_that_only_aliases_know_is_named_by_the_best_of_them(merged):
    found = merged(
        [
            [alias("x:1", "b"), alias("x:1", "c", preferred=True), alias("x:1", "ä", lang="de")],
            [concept("x:1", "", definition="D"), concept("x:2", "")],
            [alias("x:3", "einzig", lang="de")],
        ]
    )
    assert found.concepts == [concept("x:1", "c", definition="D"), concept("x:3", "einzig")]


def test_retired_ids_lead_to_what_replaces_them_today(merged):
    gone = [
        Retired(id="umls:C8", replaced_by="umls:C9", source="s"),
        Retired(id="umls:C9", replaced_by="umls:C1", source="s"),
        Retired(id="umls:C7", replaced_by=None, source="s"),
        Retired(id="umls:C6", replaced_by="umls:C404", source="s"),
        Retired(id="umls:C3", replaced_by="umls:C1", source="s"),  # given as a concept too
        Retired(id="umls:C4", replaced_by="umls:C5", source="s"),
        Retired(id="umls:C5", replaced_by="umls:C4", source="s"),
    ]
    found = merged([HP, [*STARTER, *gone]])
    assert {r.id: r.replaced_by for r in found.retired} == {
        "umls:C4": None,
        "umls:C5": None,
        "umls:C6": None,
        "umls:C7": None,
        "umls:C8": "hp:1",
        "umls:C9": "hp:1",
    }


def test_aliases_and_mappings_of_a_retired_id_go_to_what_replaces_it(merged):
    gone = [
        Retired(id="hp:0", replaced_by="hp:1", source="s"),
        Retired(id="hp:9", replaced_by=None, source="s"),
    ]
    translations = [alias("hp:0", "Infarkt", lang="de"), alias("hp:9", "weg", lang="de")]
    mapping = IdMapping(subject_id="hp:0", object_id="mesh:D5", kind="exact", source="s")
    found = merged([[*HP, *gone], [*translations, mapping]])
    assert [c.id for c in found.concepts] == ["hp:1"]
    assert [(a.concept_id, a.text) for a in found.aliases if a.lang == "de"] == [
        ("hp:1", "Infarkt")
    ]
    assert ("mesh:D5", "hp:1", "exact") in found.xrefs
    assert found.counts["aliases_of_retired"] == 1


def test_a_table_with_a_retired_id_does_not_bring_it_back(merged):
    table = [concept("hp:0", "Alter Name"), alias("hp:0", "Alter Name", lang="de", preferred=True)]
    gone = [Retired(id="hp:0", replaced_by="hp:1", source="s")]
    for streams in ([table, [*HP, *gone]], [[*HP, *gone], table]):
        found = merged(streams)
        assert [(c.id, c.name) for c in found.concepts] == [("hp:1", "Myocardial infarction")]
        assert [a.concept_id for a in found.aliases if a.lang == "de"] == ["hp:1"]
        assert found.retired == gone


def test_the_same_records_give_the_same_bytes_in_any_order_and_number_of_parts(merged):
    records = [concept(f"x:{n}", f"name {n % 5}", xrefs=(f"y:{n}",)) for n in range(20)]
    records += [
        alias(f"x:{n % 20}", f"t{n % 31}", lang=("en", "de")[n % 3 % 2], source=f"s{n % 4}")
        for n in range(290)
    ]
    expected = merged([records])
    for split in (1, 3, 7):
        random.Random(split).shuffle(records)
        again = merged([records], split=split)
        assert (again.files, again.counts) == (expected.files, expected.counts)
    keys = [(a.concept_id, a.lang, a.text) for a in expected.aliases]
    assert keys == sorted(set(keys))
