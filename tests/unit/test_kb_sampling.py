import random
import subprocess
import sys
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.kb.sampling import (
    MAX_WEIGHT,
    is_cross_lingual,
    language_weights,
    primary,
    sample_pairs,
)
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias, SynonymPair

LANGS = ("de", "en", "pt", "pt-BR", "th", "tr", "und", "zh-Hant")


def alias(lang, text, **given):
    return Alias(concept_id="t:1", text=text, lang=lang, source="test", **given)


def aliases(**texts):
    return [alias(lang, text) for lang, own in texts.items() for text in own]


def forms(pair):
    return frozenset((normalise(pair.left, pair.left_lang), normalise(pair.right, pair.right_lang)))


def numbered(lang, n):
    return [alias(lang, f"{lang} {number}") for number in range(n)]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(LANGS), st.text("abIıİi -\u00ad", min_size=1, max_size=3)),
        max_size=40,
    ),
    per_concept=st.integers(1, 30),
    seed=st.integers(0, 3),
)
def test_what_always_holds(rows, per_concept, seed):
    own = [alias(lang, text) for lang, text in rows]
    weights = language_weights(Counter(one.lang for one in own))
    pairs = sample_pairs(own, per_concept=per_concept, seed=seed, weights=weights)

    known = {(one.text, one.lang) for one in own}
    for pair in pairs:
        assert {(pair.left, pair.left_lang), (pair.right, pair.right_lang)} <= known
    drawn = [forms(pair) for pair in pairs]
    assert all(len(pair) == 2 for pair in drawn)
    assert len(set(drawn)) == len(drawn)

    langs_of = {}
    for one in own:
        if form := normalise(one.text, one.lang):
            langs_of.setdefault(form, set()).add(primary(one.lang))
    n = len(langs_of)
    assert len(pairs) == min(per_concept, n * (n - 1) // 2)
    for pair, (one, other) in zip(pairs, map(tuple, drawn), strict=True):
        assert is_cross_lingual(pair) == langs_of[one].isdisjoint(langs_of[other])
    covered = set().union(*(langs_of[form] for pair in drawn for form in pair), ())
    if n > 1 and per_concept >= len(set().union(*langs_of.values())):
        assert covered == set().union(*langs_of.values())


def test_all_pairs_of_a_small_concept():
    own = aliases(en=["heart attack", "MI"], de=["Herzinfarkt"])
    pairs = sample_pairs(own, per_concept=50, seed=0)
    assert sorted(sorted((pair.left, pair.right)) for pair in pairs) == [
        ["Herzinfarkt", "MI"],
        ["Herzinfarkt", "heart attack"],
        ["MI", "heart attack"],
    ]
    assert {pair.concept_id for pair in pairs} == {"t:1"}


@pytest.mark.parametrize(
    "own",
    [
        [],
        aliases(en=["asthma"]),
        aliases(en=["asthma"], de=["Asthma"], fr=["ASTHMA"]),
        aliases(en=["café"], fr=[unicodedata.normalize("NFD", "café")]),
        [alias("en", "cold", ambiguous=True), alias("de", "Erkältung")],
        aliases(en=["\u00ad", "asthma"]),
    ],
)
def test_no_pair(own):
    assert sample_pairs(own, per_concept=50, seed=0) == []


def test_an_ambiguous_alias_is_left_out_in_its_language_only():
    own = [alias("en", "Gift", ambiguous=True), alias("de", "Gift"), alias("en", "poison")]
    assert sample_pairs(own, per_concept=9, seed=0) in (
        [
            SynonymPair(
                concept_id="t:1", left="Gift", right="poison", left_lang="de", right_lang="en"
            )
        ],
        [
            SynonymPair(
                concept_id="t:1", left="poison", right="Gift", left_lang="en", right_lang="de"
            )
        ],
    )


def test_a_form_that_two_languages_share_makes_no_cross_lingual_pair_in_either():
    own = aliases(en=["TP53", "tumor protein p53"], de=["TP53"], zh=["腫瘤蛋白"])
    weights = {"de": 2.0, "en": 1.0, "zh": 3.0}
    pairs = sample_pairs(own, per_concept=9, seed=0, weights=weights)
    sides = {
        frozenset(((p.left, p.left_lang), (p.right, p.right_lang))): is_cross_lingual(p)
        for p in pairs
    }
    assert sides == {
        # both English, and tagged so; with Chinese it stands as the rarer German
        frozenset((("TP53", "en"), ("tumor protein p53", "en"))): False,
        frozenset((("TP53", "de"), ("腫瘤蛋白", "zh"))): True,
        frozenset((("tumor protein p53", "en"), ("腫瘤蛋白", "zh"))): True,
    }


def test_regions_and_scripts_are_no_other_language():
    pairs = sample_pairs(
        [alias("pt", "facto"), alias("pt-BR", "fato"), alias("mul", "F")], per_concept=9, seed=0
    )
    assert sorted(is_cross_lingual(pair) for pair in pairs) == [False, True, True]


def test_the_order_of_the_aliases_does_not_matter():
    own = numbered("en", 30) + numbered("de", 20) + numbered("th", 2)
    want = sample_pairs(own, per_concept=50, seed=1)
    mixed = own.copy()
    random.Random(0).shuffle(mixed)
    assert sample_pairs(mixed, per_concept=50, seed=1) == want
    assert sample_pairs(own, per_concept=50, seed=2) != want


def test_other_processes_give_the_same():
    # str hashes, and so the order of sets, differ between processes
    code = (
        "from tests.unit.test_kb_sampling import *\n"
        "own = [a for n in range(12) for a in numbered(f'l{chr(97 + n)}', n + 1)]\n"
        "own += [alias(f'l{chr(97 + n)}', 'same') for n in range(9)]\n"
        "print(sample_pairs(own, per_concept=20, seed=5))"
    )
    given = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in (1, 2)
    ]
    assert given[0] == given[1]
    assert given[0].count(b"SynonymPair") == 20


def test_cross_lingual_pairs_come_first():
    # 60 cross-lingual pairs for 50 places: none is left for the English ones
    pairs = sample_pairs(numbered("en", 60) + numbered("de", 1), per_concept=50, seed=0)
    assert all(map(is_cross_lingual, pairs))
    pairs = sample_pairs(numbered("en", 20) + numbered("de", 2), per_concept=50, seed=0)
    assert Counter(map(is_cross_lingual, pairs)) == {True: 40, False: 10}


@pytest.mark.parametrize("per_concept", [20, 25, 39, 40])
def test_every_language_where_half_as_many_pairs_suffice(per_concept):
    own = [one for n in range(40) for one in numbered(f"{chr(97 + n // 26)}{chr(97 + n % 26)}", 3)]
    pairs = sample_pairs(own, per_concept=per_concept, seed=3)
    assert len({lang for p in pairs for lang in (p.left_lang, p.right_lang)}) == 40


def test_too_few_pairs_serve_the_rarest_languages():
    own = [one for lang in ("de", "en", "fr", "hi", "ko", "th") for one in numbered(lang, 4)]
    weights = {"hi": 9.0, "ko": 8.0, "th": 7.0, "de": 1.0, "en": 1.0, "fr": 1.0}
    pairs = sample_pairs(own, per_concept=2, seed=0, weights=weights)
    langs = {lang for p in pairs for lang in (p.left_lang, p.right_lang)}
    assert len(langs) == 4
    assert "hi" in langs
    (one,) = sample_pairs(own, per_concept=1, seed=0, weights=weights)
    assert "hi" in (one.left_lang, one.right_lang)


def test_a_language_that_only_monolingual_pairs_reach():
    # every French form is English too: no pair of a French and an English one is cross-lingual
    own = aliases(fr=["a"], en=["a", *map(str, range(40))], de=[f"d{n}" for n in range(40)])
    own = [one for one in own if one.text != "a"] + aliases(fr=["a"], en=["a"], de=["a"])
    pairs = sample_pairs(own, per_concept=10, seed=0)
    assert any("a" in (pair.left, pair.right) for pair in pairs)
    assert sum(not is_cross_lingual(pair) for pair in pairs) == 1


def test_one_side_is_drawn_by_weight_and_the_other_evenly():
    own = numbered("en", 100) + numbered("de", 100) + numbered("th", 10)
    weights = {"en": 1.0, "de": 1.0, "th": 5.0}
    sides = Counter()
    for seed in range(200):
        for pair in sample_pairs(own, per_concept=50, seed=seed, weights=weights):
            sides.update((pair.left_lang, pair.right_lang))
    # th: 50 of 250 by weight on one side; on the other 10 of 110 partners, but none of its own
    expected = 50 / 250 + (1 - 50 / 250) * 10 / 110
    assert sides["th"] / sides.total() == pytest.approx(expected / 2, rel=0.06)
    evenly = 2 * (10 * 200) / (2 * (10 * 200 + 100 * 100))
    assert sides["th"] / sides.total() > 0.8 * evenly
    unweighted = Counter()
    for seed in range(200):
        for pair in sample_pairs(own, per_concept=50, seed=seed):
            unweighted.update((pair.left_lang, pair.right_lang))
    assert unweighted["th"] < 0.6 * sides["th"]


def test_either_side_may_stand_left():
    pairs = sample_pairs(numbered("en", 40) + numbered("de", 40), per_concept=200, seed=0)
    assert 60 < sum(pair.left_lang == "de" for pair in pairs) < 140


def test_thousands_of_aliases_are_not_paired_all_with_all():
    own = numbered("en", 15_000) + numbered("de", 5_000)
    begin = time.process_time()
    pairs = sample_pairs(own, per_concept=50, seed=0)
    assert time.process_time() - begin < 2  # 2e8 pairs to enumerate would take a minute
    assert len({forms(pair) for pair in pairs}) == 50


def test_pairs_within_a_group_are_all_reached():
    own = numbered("en", 12)
    seen = set()
    for seed in range(60):
        seen |= {forms(pair) for pair in sample_pairs(own, per_concept=10, seed=seed)}
    assert len(seen) == 12 * 11 // 2


def test_weights():
    counts = {"en": 900, "en-GB": 100, "de": 250, "pt": 5, "pt-BR": 5, "hi": 1}
    assert language_weights(counts) == {
        "en": 1.0,
        "de": 2.0,
        "pt": MAX_WEIGHT,
        "hi": MAX_WEIGHT,
    }
    assert language_weights({}) == {}
