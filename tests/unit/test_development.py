from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bioelx_ray.artifacts import Manifest, open_artifact, publish
from bioelx_ray.config import PairsConfig
from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, EncoderError, InputError
from bioelx_ray.kb.exclusion import read_exclusion
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.pairs import build_pairs, read_pairs
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import XREF_SCHEMA, KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias, Concept, Retired, SynonymPair
from bioelx_ray.retrieval import held_aliases
from bioelx_ray.retrieval.development import (
    EXCLUDE,
    FEWEST,
    OTHER,
    Development,
    build_development,
    evaluate,
    hold_out,
    open_development,
)
from bioelx_ray.retrieval.held_aliases import Query
from bioelx_ray.tables import from_table, to_table
from bioelx_ray.testing import HashEncoder

OPEN_KB = Path(__file__).parents[3] / "shared" / "data" / "open_kb.tsv"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def silent(*_):
    pass


def made_kb(directory, rows, *, batch=5):
    """A knowledge base of (concept, lang, text), with concepts that span record batches."""
    named = Counter((lang, normalise(text, lang)) for _, lang, text in rows)
    aliases = [
        Alias(
            concept_id=f"t:{concept:04}",
            lang=lang,
            text=text,
            source="test",
            ambiguous=named[lang, normalise(text, lang)] > 1,
        )
        for concept, lang, text in rows
    ]
    aliases.sort(key=lambda alias: (alias.concept_id, alias.lang, alias.text))
    ids = sorted({alias.concept_id for alias in aliases})
    tables = {
        "concepts": to_table([Concept(id=id_, name=id_) for id_ in ids], Concept),
        "aliases": to_table(aliases, Alias),
        "xrefs": XREF_SCHEMA.empty_table(),
        "retired": to_table([], Retired),
    }
    counts = {"languages": dict(Counter(alias.lang for alias in aliases))}
    with publish(directory, Manifest(kind="kb", code_version="1", counts=counts)) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    return KnowledgeBase.open(directory)


def many(concepts, langs=("de", "en", "th"), *, each=3):
    return [
        (concept, lang, f"{lang} name {number} of {concept}")
        for concept in range(concepts)
        for lang in langs
        for number in range(each)
    ]


def forms_of(kb, concept_id, lang=None):
    return {
        normalise(alias.text, alias.lang)
        for alias in kb.aliases_of(concept_id)
        if lang in {None, alias.lang}
    }


def perfect(development):
    """An encoder that knows which forms are one concept, and nothing else."""
    number = {form: at for at, form in enumerate(development.forms)}
    for at, query in enumerate(development.queries):
        for row in query.answers:
            number[development.forms[row]] = -1 - at
        number[query.form] = -1 - at

    def encode(texts):
        rng = {text: np.random.default_rng(number[text] + 10**6) for text in texts}
        vectors = np.stack([rng[text].normal(size=64) for text in texts]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def test_what_is_asked_is_hidden_and_what_answers_is_there(tmp_path):
    kb = made_kb(tmp_path / "kb", many(40))
    made = hold_out(kb, per_language=8, seed=1)
    assert Counter(query.lang for query in made.queries) == {"de": 8, "en": 8, "th": 8}
    assert len({query.concept_id for query in made.queries}) == 24
    assert len(set(made.forms)) == len(made.forms)
    assert list(made.forms) == sorted(made.forms)
    hidden = {(one.concept_id, one.form) for one in made.hidden}
    for query in made.queries:
        own, same = forms_of(kb, query.concept_id), forms_of(kb, query.concept_id, query.lang)
        answers = {made.forms[row] for row in query.answers}
        assert query.form in same
        assert query.form not in made.forms
        assert answers
        gone = {form for id_, form in hidden if id_ == query.concept_id}
        assert gone in ({query.form}, same)
        assert answers <= own - gone
        assert answers == own.intersection(made.forms)
        assert query.crossing == answers.isdisjoint(same)
    assert Counter(query.crossing for query in made.queries)[True] >= 12
    assert {len(forms_of(kb, query.concept_id)) for query in made.queries} == {9}


def test_pairs_leave_out_exactly_what_is_hidden(tmp_path):
    rows = [*many(12), (90, "tr", "IGE"), (90, "en", "IGE"), (90, "en", "immunoglobulin E")]
    kb = made_kb(tmp_path / "kb", rows)
    built = build_development(tmp_path / "dev", kb, per_language=3, seed=0)
    made = open_development(tmp_path / "dev")
    hidden = {(one.concept_id, one.text) for one in made.hidden}
    exclusion = read_exclusion(built.path / EXCLUDE)
    aliases = from_table(kb.aliases, Alias)
    assert {(a.concept_id, a.text) for a in aliases if a in exclusion} == hidden
    assert built.manifest.counts["hidden"] == len(made.hidden)
    pairs = build_pairs(
        tmp_path / "pairs",
        kb,
        config=PairsConfig(per_concept=500),
        exclude=[built.path / EXCLUDE],
        progress=silent,
    )
    drawn = from_table(pa.Table.from_batches(read_pairs(pairs)), SynonymPair)
    sides = {(p.concept_id, text) for p in drawn for text in (p.left, p.right)}
    assert sides.isdisjoint(hidden)
    kept = {id_ for id_, _ in sides}
    assert sides | hidden >= {(a.concept_id, a.text) for a in aliases if a.concept_id in kept}


def test_one_text_that_folds_in_two_ways_is_hidden_in_both(tmp_path):
    rows = [(1, "tr", "IGE"), (1, "en", "IGE"), (1, "de", "Immunglobulin E")]
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=1, seed=0)
    [query] = [query for query in made.queries if query.concept_id == "t:0001"]
    if query.lang == "de":
        assert set(made.forms) == {"ige", "ıge"}
    else:
        assert {one.form for one in made.hidden} == {"ige", "ıge"}
        assert made.forms == ("immunglobulin e",)


@pytest.mark.parametrize("seed", range(6))
def test_the_turkish_and_the_english_text_stand_and_fall_together(tmp_path, seed):
    rows = [(1, "tr", "IGE"), (1, "en", "IGE"), (1, "de", "Immunglobulin E")]
    rows += [(2, "de", "Zwei"), (2, "en", "two")]  # takes de's or en's question
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=1, seed=seed)
    own = {one.form for one in made.hidden if one.concept_id == "t:0001"}
    assert own in ({"ige", "ıge"}, {"immunglobulin e"})


def test_a_form_that_languages_share_is_not_asked_for(tmp_path):
    rows = [(n, lang, f"Latin {n}") for n in range(20) for lang in ("de", "en", "es")]
    rows += [(n, "en", f"English {n}") for n in range(20)]
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=9, seed=0)
    assert {query.lang for query in made.queries} == {"en"}
    assert {query.form.split()[0] for query in made.queries} == {"english"}


def test_regions_are_one_language(tmp_path):
    rows = [(n, lang, f"{lang} {n}") for n in range(4) for lang in ("pt", "pt-BR")]
    with pytest.raises(InputError, match="two languages"):
        hold_out(made_kb(tmp_path / "kb", rows), per_language=2, seed=0)


def test_ambiguous_and_undetermined_names_are_not_asked_for(tmp_path):
    rows = [
        *((n, "en", "cold") for n in range(5)),
        *((n, "und", f"code {n}") for n in range(5)),
        *((n, "de", f"kalt {n}") for n in range(5)),
    ]
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=9, seed=0)
    assert {query.lang for query in made.queries} == {"de"}
    assert len(made.queries) == 5


def test_another_concept_with_the_asked_form_stands_without_it(tmp_path):
    rows = [
        (1, "en", "tonsillitis"),
        (1, "de", "Angina"),
        (2, "en", "angina"),
        (2, "en", "stenocardia"),
    ]
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=1, seed=0)
    asked = {query.form for query in made.queries}
    assert asked.isdisjoint(made.forms)
    assert all(query.answers for query in made.queries)
    if "angina" in asked:
        assert {"tonsillitis", "stenocardia"} == set(made.forms)


def test_queries_whose_answers_are_asked_for_elsewhere_are_left_out(tmp_path):
    # of each concept one name is the other's too, in another language, so not marked ambiguous
    rows = [(1, "en", "aa"), (1, "de", "bb"), (2, "en", "bb"), (2, "de", "aa")]
    made = hold_out(made_kb(tmp_path / "kb", rows), per_language=1, seed=0)
    assert all(query.answers for query in made.queries)
    rows = [*rows, *many(30)]
    made = hold_out(made_kb(tmp_path / "more", rows), per_language=30, seed=0)
    assert all(query.answers for query in made.queries)


@pytest.mark.parametrize("forms", [1, 50, 117, 10_000])
def test_the_dictionary_is_bounded_beyond_the_answers(tmp_path, forms):
    kb = made_kb(tmp_path / "kb", many(40))
    made = hold_out(kb, per_language=4, seed=0, forms=forms)
    answers = {row for query in made.queries for row in query.answers}
    assert len(made.forms) == min(max(forms, len(answers)), 4 * 40)
    assert len(answers) <= 4 * len(made.queries)


def test_it_depends_on_the_seed_alone(tmp_path):
    rows = many(60)
    one = hold_out(made_kb(tmp_path / "one", rows, batch=1), per_language=5, seed=3, forms=200)
    two = hold_out(made_kb(tmp_path / "two", rows, batch=99), per_language=5, seed=3, forms=200)
    other = hold_out(made_kb(tmp_path / "three", rows), per_language=5, seed=4, forms=200)
    assert one == two
    assert one != other


def test_an_artifact_is_read_back_as_it_was(tmp_path):
    rows = [*many(30), (40, "zh", "心肌梗死"), (40, "ru", "инфаркт"), (40, "ko", '"심근 경색"')]
    kb = made_kb(tmp_path / "kb", rows)
    built = build_development(tmp_path / "dev", kb, per_language=6, seed=2, forms=100)
    assert open_development(tmp_path / "dev") == hold_out(kb, per_language=6, seed=2, forms=100)
    counts = open_artifact(tmp_path / "dev", "development").manifest.counts
    assert counts["queries"] == sum(counts["languages"].values())
    again = build_development(tmp_path / "again", kb, per_language=6, seed=2, forms=100)
    assert again.manifest.fingerprint == built.manifest.fingerprint
    with pytest.raises(ArtifactMismatch):
        open_development(tmp_path / "kb")
    (tmp_path / "dev" / "forms.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ArtifactCorrupt):
        open_development(tmp_path / "dev")


def test_recall_of_an_encoder_that_knows_all_and_of_one_that_knows_nothing(tmp_path):
    made = hold_out(made_kb(tmp_path / "kb", many(100)), per_language=25, seed=0)
    best = evaluate(perfect(made), made)
    assert best == {"de": 1.0, "en": 1.0, "th": 1.0}
    collapsed = evaluate(lambda texts: np.ones((len(texts), 4), np.float32) / 2, made)
    assert max(collapsed.values()) < 0.05


def test_recall_against_a_count_by_hand():
    queries = [
        Query(concept_id="t:1", form="a", lang="de", crossing=True, answers=(1, 2)),
        Query(concept_id="t:2", form="b", lang="de", crossing=True, answers=(0,)),
        Query(concept_id="t:3", form="c", lang="en", crossing=True, answers=(2,)),
    ]
    many_queries = tuple(queries[:2] * FEWEST + queries[2:])
    made = Development(queries=many_queries, forms=("x", "y", "z"), hidden=())
    vectors = {
        "a": [0.6, 0.8, 0.0],
        "b": [0.0, 1.0, 0.0],
        "c": [1.0, 0.0, 0.0],
        "x": [1, 0, 0],
        "y": [0, 1, 0],
        "z": [1, 0, 0],
    }
    found = evaluate(lambda texts: np.array([vectors[t] for t in texts], np.float32), made)
    # "a" finds y; "b" finds y, no answer; "c" finds x before z, which is equally near
    assert found == {"de": 0.5, OTHER: 0.0}


@pytest.mark.parametrize(
    "bad",
    [
        lambda texts: np.full((len(texts), 4), np.nan),
        lambda texts: np.full((len(texts), 4), np.inf),
        lambda texts: np.ones((len(texts) + 1, 4)),
        lambda texts: np.ones(len(texts)),
    ],
)
def test_broken_vectors_are_an_error(tmp_path, bad):
    made = hold_out(made_kb(tmp_path / "kb", many(4)), per_language=1, seed=0)
    with pytest.raises(EncoderError, match="diverged"):
        evaluate(bad, made)


def test_an_empty_knowledge_base_and_one_of_one_language(tmp_path):
    for name, rows in (("empty", []), ("one", many(5, ("en",)))):
        kb = made_kb(tmp_path / name, rows)
        with pytest.raises(InputError, match="two languages"):
            hold_out(kb, per_language=3, seed=0)


def test_how_many_aliases_are_looked_at_is_bounded(tmp_path, monkeypatch):
    rows = [(n, lang, f"same {n}") for n in range(300) for lang in ("de", "en")]
    kb = made_kb(tmp_path / "kb", rows, batch=1000)
    monkeypatch.setattr(held_aliases, "_TRIED", 3)
    looked = []
    plain = held_aliases._held
    monkeypatch.setattr(held_aliases, "_held", lambda *a, **k: looked.append(1) or plain(*a, **k))
    with pytest.raises(InputError):
        hold_out(kb, per_language=2, seed=0)
    assert len(looked) == 12


@pytest.mark.skipif(not OPEN_KB.exists(), reason="shared/data is not there")
def test_on_real_aliases(tmp_path):
    table = tmp_path / "some.tsv"
    with OPEN_KB.open(encoding="utf-8") as lines:
        table.write_text(next(lines) + "".join(row for row in lines if row[9:11] in {"17", "71"}))
    kb = KnowledgeBase(build_kb(tmp_path / "kb", [from_file(table)]))
    made = hold_out(kb, per_language=30, seed=0, forms=3000)
    assert len(made.forms) <= 3000
    assert len(made.queries) >= 60
    exclusion = kb.artifact.path.parent / "x.tsv"
    held_back = build_development(tmp_path / "dev", kb, per_language=30, seed=0, forms=3000)
    exclusion.write_bytes((held_back.path / EXCLUDE).read_bytes())
    excluded = read_exclusion(exclusion)
    recall = evaluate(HashEncoder(256).encode, made)
    assert 0.05 < np.mean(list(recall.values())) < 0.7
    for query in made.queries[::7]:
        aliases = kb.aliases_of(query.concept_id)
        assert any(a in excluded for a in aliases)
        assert {made.forms[row] for row in query.answers} <= {
            normalise(a.text, a.lang) for a in aliases if a not in excluded
        }
