import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.kb.text import normalise
from bioelx_ray.retrieval.lexical import LexicalIndex, write_lexical
from bioelx_ray.retrieval.ngrams import ngrams


def bags(*texts):
    hashes, owners = ngrams([normalise(text) for text in texts])
    return [set(hashes[owners == at].tolist()) for at in range(len(texts))]


def overlap(a, b):
    one, two = bags(a, b)
    return len(one & two) / len(one | two)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("инфаркт", "infarct"),
        ("アスピリン", "aspirin"),
        ("καρκίνος", "karkinos"),
        ("метформин", "metformin"),
        ("thrombocytopenia", "trombocitopenia"),
        ("œdème", "oedeme"),
    ],
)
def test_loan_words_meet_across_scripts(left, right):
    assert overlap(left, right) >= 0.15
    assert overlap(left, "broken leg") < 0.05


@pytest.mark.parametrize(
    "name", ["심근경색", "心肌梗死", "喘息", "โรคเบาหวาน", "ब्रोंकाइटिस", "حساسية", "אסתמה"]
)
def test_one_deleted_character_leaves_much_in_common(name):
    assert overlap(name, name[:-1]) >= 0.3


def test_short_and_long_forms_have_the_ngrams_that_they_should():
    for text, n in (("a", 1), ("ab", 1), ("abc", 2), ("心", 1), ("心肌", 3), ("심근", 3 + 6)):
        assert len(bags(text)[0]) == n, text


def test_ngrams_do_not_cross_forms():
    alone = bags("fever", "cough")
    assert alone == [bags("fever")[0], bags("cough")[0]]


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_has_ngrams_that_do_not_depend_on_its_neighbours(texts):
    forms = [normalise(text) for text in texts]
    hashes, owners = ngrams(forms)
    assert len(hashes) == len(owners)
    for at, form in enumerate(forms):
        assert sorted(hashes[owners == at]) == sorted(ngrams([form])[0])
        if any(char.isascii() and char.isalpha() and char != "h" for char in form):
            assert (owners == at).any()


FORMS = sorted({"asthma", "fever", "hay fever", "heart attack", "心肌梗死", "心肌炎", "инфаркт"})


@pytest.fixture(scope="module")
def lexical(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lexical")
    write_lexical(FORMS, directory)
    return LexicalIndex(directory, forms=len(FORMS))


def test_form_finds_itself_with_score_one(lexical):
    scores, rows, _ = lexical.search(FORMS, k=3)
    assert rows[:, 0].tolist() == list(range(len(FORMS)))
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_scores_of_given_forms_equal_those_of_the_search(lexical):
    scores, rows, _ = lexical.search(["fever of hay", "心肌"], k=len(FORMS))
    wanted = np.array([np.arange(len(FORMS))] * 2)
    _, _, asked = lexical.search(["fever of hay", "心肌"], k=1, also=wanted)
    for at in range(2):
        found = rows[at] >= 0
        np.testing.assert_array_equal(asked[at][rows[at][found]], scores[at][found])
        assert np.count_nonzero(asked[at]) == np.count_nonzero(found)


def test_only_allowed_forms_are_found(lexical):
    allowed = np.array([form == "hay fever" for form in FORMS])
    _, rows, _ = lexical.search(["fever"], k=5, allowed=allowed)
    assert rows[0].tolist() == [FORMS.index("hay fever"), -1, -1, -1, -1]


def test_unknown_letters_find_nothing(lexical):
    scores, rows, _ = lexical.search(["ᚠᚢᚦ"], k=2)
    assert (rows == -1).all()
    assert (scores == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.permutations(FORMS), st.integers(1, 5))
def test_answers_do_not_depend_on_the_batch(lexical, queries, size):
    whole = lexical.search(queries, k=4)
    parts = [lexical.search(queries[a : a + size], k=4) for a in range(0, len(queries), size)]
    np.testing.assert_array_equal(whole[1], np.concatenate([rows for _, rows, _ in parts]))
    np.testing.assert_allclose(whole[0], np.concatenate([s for s, _, _ in parts]), atol=1e-6)
