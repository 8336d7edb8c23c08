import random

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.merge import merge
from bioelx_ray.records import Alias, Concept


def concept(id_, name="n", **more):
    return Concept(id=id_, name=name, **more)


def alias(id_, text, lang="en", source="s", preferred=False):
    return Alias(concept_id=id_, text=text, lang=lang, source=source, preferred=preferred)


def test_one_concept_of_two_sources():
    first = [concept("x:1", "First", semantic_types=("A",), xrefs=("y:1",))]
    second = [
        concept("x:1", "Second", semantic_types=("B", "A"), definition="D", xrefs=("z:1", "y:1"))
    ]
    assert merge([first, second]).concepts == [
        concept("x:1", "First", semantic_types=("A", "B"), definition="D", xrefs=("y:1", "z:1"))
    ]


def test_like_aliases_are_one():
    first = [concept("x:1"), alias("x:1", "Crohn’s  Disease", source="first")]
    second = [
        alias("x:1", "crohn's disease", source="second", preferred=True),
        alias("x:1", "Crohn's disease", lang="de", source="second"),
    ]
    merged = merge([first, second])
    assert merged.aliases == [
        alias("x:1", "Crohn's disease", lang="de", source="second"),
        alias("x:1", "Crohn’s  Disease", source="first", preferred=True),
    ]


def test_forms_of_several_concepts_in_a_language_are_counted():
    records = [
        *map(concept, ("x:1", "x:2", "x:3")),
        alias("x:1", "Cold"),
        alias("x:2", "cold"),
        alias("x:3", "COLD"),
        alias("x:3", "cold", lang="de"),
        alias("x:1", "warm"),
    ]
    assert merge([records]).ambiguous_forms == 1


HP = [
    concept("hp:1", "Myocardial infarction", xrefs=("umls:C1", "umls:C2")),
    alias("hp:1", "Myocardial infarction", preferred=True),
    concept("hp:2", xrefs=("umls:C2",)),
]
STARTER = [
    concept("umls:C1", "Herzinfarkt", definition="D", semantic_types=("T",), xrefs=("mesh:D1",)),
    alias("umls:C1", "Herzinfarkt", lang="de", preferred=True),
    alias("umls:C1", "myocardial Infarction"),
    concept("umls:C2", "Shared"),
    alias("umls:C2", "Shared"),
    concept("umls:C3", "Alone"),
]


@pytest.mark.parametrize("streams", [[HP, STARTER], [STARTER, HP]])
def test_a_concept_goes_into_the_only_one_that_lists_it(streams):
    merged = merge(streams)
    assert [c.id for c in merged.concepts] == ["hp:1", "hp:2", "umls:C2", "umls:C3"]
    assert merged.concepts[0] == concept(
        "hp:1",
        "Myocardial infarction",
        definition="D",
        semantic_types=("T",),
        xrefs=("umls:C1", "umls:C2", "mesh:D1"),
    )
    assert [(a.text.lower(), a.lang) for a in merged.aliases if a.concept_id == "hp:1"] == [
        ("herzinfarkt", "de"),
        ("myocardial infarction", "en"),
    ]
    assert all(a.preferred for a in merged.aliases if a.concept_id == "hp:1")
    assert (merged.unified, merged.ambiguous_xrefs) == (1, 1)


def test_without_unify_all_stay():
    merged = merge([HP, STARTER], unify=False)
    assert len(merged.concepts) == 5
    assert (merged.unified, merged.ambiguous_xrefs) == (0, 0)


def test_chains_end_at_the_last_and_circles_at_the_first_read():
    chained = [concept("c:1"), concept("b:1", xrefs=("c:1",)), concept("a:1", xrefs=("b:1",))]
    merged = merge([chained])
    assert merged.concepts == [concept("a:1", xrefs=("b:1", "c:1"))]
    assert merged.unified == 2
    circle = [
        concept("b:1", "B", xrefs=("a:1",)),
        concept("a:1", "A", xrefs=("b:1", "t:1")),
        concept("t:1", "tail"),
    ]
    assert merge([circle]).concepts == [concept("b:1", "B", xrefs=("a:1", "t:1"))]


def test_a_concept_that_lists_itself_stays():
    merged = merge([[concept("a:1", xrefs=("a:1",))]])
    assert (len(merged.concepts), merged.unified) == (1, 0)


def test_the_order_is_that_of_the_ids_whatever_came_first():
    records = [concept(f"x:{n}") for n in range(20)]
    records += [alias(f"x:{n % 20}", f"t{n}", lang=("en", "de")[n % 3 % 2]) for n in range(90)]
    expected = merge([records])
    random.Random(7).shuffle(records)
    assert merge([records]) == expected
    keys = [(a.concept_id, a.lang, a.text) for a in expected.aliases]
    assert keys == sorted(keys)


def test_an_alias_of_no_concept():
    with pytest.raises(InputError, match=r"alias 'a' of s names x:1"):
        merge([[alias("x:1", "a")]])
