from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from bioelx_ray.artifacts import Manifest, publish
from bioelx_ray.config import PairsConfig
from bioelx_ray.errors import InputError
from bioelx_ray.kb.pairs import build_pairs
from bioelx_ray.kb.store import XREF_SCHEMA, KnowledgeBase
from bioelx_ray.records import Alias, Concept, Retired
from bioelx_ray.retrieval import negatives
from bioelx_ray.retrieval.negatives import Bank, concept_ids, make_bank, mine, shared_keys
from bioelx_ray.tables import to_table


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def at_angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def nothing_shared(concepts):
    return csr_array((concepts, 1), dtype=np.float32)


def row(*numbers):
    return np.array(numbers, dtype=np.int64)


def made_kb(directory, rows, xrefs=(), *, batch=3):
    """A knowledge base of (concept, lang, text) and of (xref, concept, kind)."""
    named = Counter((lang, text.lower()) for _, lang, text in rows)
    aliases = sorted(
        (
            Alias(
                concept_id=id_,
                lang=lang,
                text=text,
                source="test",
                ambiguous=named[lang, text.lower()] > 1,
            )
            for id_, lang, text in rows
        ),
        key=lambda alias: (alias.concept_id, alias.lang, alias.text),
    )
    ids = sorted({alias.concept_id for alias in aliases})
    links = [dict(zip(XREF_SCHEMA.names, link, strict=True)) for link in sorted(xrefs)]
    tables = {
        "concepts": to_table([Concept(id=id_, name=id_) for id_ in ids], Concept),
        "aliases": to_table(aliases, Alias),
        "xrefs": pa.Table.from_pylist(links, schema=XREF_SCHEMA),
        "retired": to_table([], Retired),
    }
    counts = {"languages": dict(Counter(alias.lang for alias in aliases))}
    with publish(directory, Manifest(kind="kb", code_version="1", counts=counts)) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    return KnowledgeBase.open(directory)


def related(keys):
    """The pairs of concepts that have something in common."""
    common = (keys @ keys.T).toarray()
    return {(a, b) for a, b in zip(*np.nonzero(common), strict=True) if a < b}


def test_the_nearest_text_of_another_concept_is_taken():
    # text:                 0  1   2   3   4
    vectors = at_angles(0, 20, 5, 25, 60)
    bank = Bank(texts=row(0, 1, 2, 3, 4), concepts=row(0, 0, 0, 1, 2), vectors=vectors)
    found = mine(bank, row(0, 1), row(1, 0), shared=nothing_shared(3), per_anchor=3)
    assert found.tolist() == [[3, 4, -1], [3, 4, -1]]


def test_one_row_a_concept():
    vectors = at_angles(0, 30, 31, 32, 33, 60)
    bank = Bank(texts=np.arange(6), concepts=row(0, 0, 1, 1, 1, 2), vectors=vectors)
    found = mine(bank, row(0), row(1), shared=nothing_shared(3), per_anchor=3)
    assert found.tolist() == [[2, 5, -1]]


def test_what_is_nearer_than_the_positive_by_more_than_the_margin_is_passed_over():
    vectors = at_angles(0, 60, 3, 40, 55)  # cosines with 0: 1, .5, .9986, .766, .574
    bank = Bank(texts=np.arange(5), concepts=row(0, 0, 1, 2, 3), vectors=vectors)
    for margin, wanted in ((0.0, -1), (0.1, 4), (0.3, 3), (1.0, 2)):
        found = mine(bank, row(0), row(1), shared=nothing_shared(4), per_anchor=1, margin=margin)
        assert found.tolist() == [[wanted]], margin


def test_concepts_with_something_in_common_are_passed_over():
    vectors = at_angles(0, 30, 31, 32, 33)
    bank = Bank(texts=np.arange(5), concepts=row(0, 0, 1, 2, 3), vectors=vectors)
    shared = csr_array(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32))
    found = mine(bank, row(0), row(1), shared=shared, per_anchor=2)
    assert found.tolist() == [[3, 4]]


def test_the_anchors_own_text_is_never_its_negative():
    # text 0 names the concepts 0 and 1, which nothing else joins
    vectors = at_angles(0, 10, 30)
    bank = make_bank(row(0, 1, 0, 2).reshape(2, 2), row(0, 1), vectors)
    assert bank.texts.tolist() == [0, 0, 1, 2]
    found = mine(bank, row(0), row(2), shared=nothing_shared(2), per_anchor=1)
    assert bank.texts[found].tolist() == [[2]]


def test_the_bank_of_pairs():
    sides = np.array([[0, 1], [1, 2], [0, 2], [3, 0]], dtype=np.int32)
    vectors = at_angles(0, 10, 20, 30)
    vectors[2] = 0  # not embedded: the bank is a sample
    bank = make_bank(sides, row(5, 5, 5, 6), vectors.astype(np.float16))
    named = list(zip(bank.texts.tolist(), bank.concepts.tolist(), strict=True))
    assert named == [(0, 5), (0, 6), (1, 5), (3, 6)]
    found = bank.rows(row(3, 0, 0, 2, 9), row(6, 6, 5, 5, 99))
    assert found.tolist() == [3, 1, 0, -1, -1]
    empty = make_bank(sides[:0], row(), vectors)
    assert empty.rows(row(1), row(1)).tolist() == [-1]


def slow(bank, anchors, positives, *, shared, per_anchor, margin):
    """The definition, one anchor at a time."""
    dense = shared.toarray()
    result = []
    for a, p in zip(anchors, positives, strict=True):
        scores = bank.vectors[bank.texts] @ bank.vectors[bank.texts[a]]
        limit = scores[p] + np.float32(margin)
        taken, seen = [], set()
        for r in sorted(range(len(scores)), key=lambda r: (-scores[r], r)):
            b, concept = bank.concepts[a], bank.concepts[r]
            if concept == b or bank.texts[r] == bank.texts[a] or (dense[b] * dense[concept]).any():
                continue
            if scores[r] <= limit and concept not in seen:
                seen.add(concept)
                taken.append(r)
        result.append((taken + [-1] * per_anchor)[:per_anchor])
    return np.array(result)


def example(seed, *, texts=36, concepts=12, pairs=30):
    """Pairs of texts of one concept each: fewer rows than are looked at."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(concepts, size=pairs)
    sides = labels[:, None] + concepts * rng.integers(texts // concepts, size=(pairs, 2))
    bank = make_bank(sides, labels, unit(rng.normal(size=(texts, 6))))
    left, right = (bank.rows(sides[:, side], labels) for side in (0, 1))
    shared = csr_array((rng.random((concepts, 5)) < 0.1).astype(np.float32))
    return bank, left, right, shared


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), per_anchor=st.integers(1, 4), margin=st.sampled_from([0, 0.2]))
def test_against_the_definition(seed, per_anchor, margin):
    bank, left, right, shared = example(seed)
    given_ = {"shared": shared, "per_anchor": per_anchor, "margin": margin + 1e-5}
    np.testing.assert_array_equal(
        mine(bank, left, right, **given_), slow(bank, left, right, **given_)
    )


def test_parts_of_the_anchors_and_blocks_of_texts_give_the_same(monkeypatch):
    bank, left, right, shared = example(1, texts=300, concepts=50, pairs=400)
    whole = mine(bank, left, right, shared=shared, per_anchor=2, margin=2)
    assert (whole >= 0).any(axis=1).all()
    monkeypatch.setattr(negatives, "_TEXTS", 70)
    monkeypatch.setattr(negatives, "_ANCHORS", 33)
    parts = [
        mine(bank, left[part], right[part], shared=shared, per_anchor=2, margin=2)
        for part in (slice(at, at + 90) for at in range(0, 400, 90))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_half_precision_vectors_find_the_same():
    bank, left, right, shared = example(2)
    half = Bank(texts=bank.texts, concepts=bank.concepts, vectors=bank.vectors.astype(np.float16))
    one, other = (mine(b, left, right, shared=shared, per_anchor=3) for b in (bank, half))
    assert (one == other).mean() > 0.95


def test_a_crowd_of_own_names_does_not_hide_all_negatives():
    own = np.linspace(0, 10, negatives.DEPTH - 1)
    vectors = at_angles(*own, 12, 13)
    concepts = np.array([0] * len(own) + [1, 2])
    bank = Bank(texts=np.arange(len(vectors)), concepts=concepts, vectors=vectors)
    found = mine(bank, row(0), row(len(own) - 1), shared=nothing_shared(3), per_anchor=2)
    assert found.tolist() == [[len(own), -1]]  # the second lies beyond what is looked at


def test_nothing_to_mine():
    bank, left, right, shared = example(3)
    none = mine(bank, left[:0], right[:0], shared=shared, per_anchor=2)
    assert none.shape == (0, 2)
    lone = make_bank(row(0, 1).reshape(1, 2), row(0), at_angles(0, 5))
    found = mine(lone, row(0), row(1), shared=nothing_shared(1), per_anchor=2)
    assert found.tolist() == [[-1, -1]]


@pytest.mark.parametrize(
    ("anchors", "positives"), [((0,), ()), ((-1,), (0,)), ((0,), (-1,)), ((10**6,), (0,))]
)
def test_rows_that_the_bank_lacks_are_an_error(anchors, positives):
    bank, _, _, shared = example(4)
    with pytest.raises(InputError, match="rows of a bank"):
        mine(bank, row(*anchors), row(*positives), shared=shared, per_anchor=1)


ROWS = [
    ("t:1", "en", "heart attack"),
    ("t:1", "de", "Herzinfarkt"),
    ("t:2", "en", "Heart Attack"),  # ambiguous: in no pair, but it joins 1 and 2
    ("t:2", "en", "MI"),
    ("t:3", "de", "Angina"),  # tonsillitis
    ("t:3", "en", "tonsillitis"),
    ("t:4", "en", "angina"),  # of the heart: another language, the same form
    ("t:5", "en", "hp:0001658"),  # a name that is written like an id is no id
    ("t:6", "tr", "KIL"),
    ("t:7", "en", "kil"),  # another form: in Turkish I is no i
    ("t:8", "en", "lone"),
]


def test_concepts_are_joined_by_forms_of_any_language(tmp_path):
    kb = made_kb(tmp_path / "kb", ROWS)
    ids = kb.concepts["id"].to_pylist()
    assert related(shared_keys(kb, ids)) == {(0, 1), (2, 3)}


def test_concepts_are_joined_by_ids_unless_these_are_wider(tmp_path):
    xrefs = [
        ("icd10:I21", "t:1", "broad"),
        ("icd10:I21", "t:4", "broad"),
        ("mesh:D1", "t:3", "exact"),
        ("mesh:D1", "t:5", "xref"),
        ("hp:0001658", "t:6", "exact"),
        ("t:8", "t:7", "xref"),
    ]
    kb = made_kb(tmp_path / "kb", ROWS, xrefs)
    ids = kb.concepts["id"].to_pylist()
    assert related(shared_keys(kb, ids)) == {(0, 1), (2, 3), (2, 4), (6, 7)}


def test_numbers_are_those_of_the_order_given(tmp_path):
    kb = made_kb(tmp_path / "kb", ROWS)
    assert related(shared_keys(kb, ["t:4", "t:8", "t:3"])) == {(0, 2)}
    assert shared_keys(kb, ["t:8"]).shape == (1, 1)
    assert shared_keys(kb, []).shape[0] == 0


def test_another_knowledge_base_is_refused(tmp_path):
    kb = made_kb(tmp_path / "kb", ROWS)
    with pytest.raises(InputError, match="lacks 1 of 2 concepts"):
        shared_keys(kb, ["t:1", "t:99"])


def test_concepts_are_numbered_as_the_pairs_name_them(tmp_path):
    rows = [(f"t:{n:03}", lang, f"{lang} {n}") for n in range(50) for lang in ("de", "en")]
    kb = made_kb(tmp_path / "kb", [*rows, ("t:0005", "en", "alone")])
    pairs = build_pairs(tmp_path / "pairs", kb, config=PairsConfig(), progress=lambda *_: None)
    assert concept_ids(pairs) == [f"t:{n:03}" for n in range(50)]
