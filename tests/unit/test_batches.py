import json
import multiprocessing
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bioelx_ray.config import TrainConfig
from bioelx_ray.errors import InputError
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.kb.text import normalise
from bioelx_ray.retrieval import token_store as module
from bioelx_ray.retrieval.batches import Batches
from bioelx_ray.retrieval.token_store import open_store
from tests.encoders import ODD
from tests.training import byte_tokens, made_pairs, made_store, pair, plain_pairs, silent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def decoded(store, number):
    ids = store.text(number).tolist()
    return byte_tokens().tokenizer.decode(ids).replace(" ", "").replace("\u0120", " ")


def test_a_store_holds_the_forms_of_every_pair_in_order(tmp_path):
    odd = [text.encode("utf-8", "replace").decode() for text in ODD]
    pairs = [pair(n, text, f"İ {n}", "en", "tr") for n, text in enumerate(odd)]
    pairs += [pair(0, odd[3], odd[3], "en", "en"), pair(3, "ISIRIK", "ISIRIK", "en", "tr")]
    store = made_store(tmp_path, pairs)
    tokens = byte_tokens()
    for row, made in enumerate(pairs):
        forms = normalise(made.left, made.left_lang), normalise(made.right, made.right_lang)
        for side, form in zip(store.sides[row], forms, strict=True):
            assert store.text(side).tolist() == tokens.ids(["q " + form])[0]
    assert store.concepts[: len(odd)].tolist() == list(range(len(odd)))
    assert store.concepts[-2:].tolist() == [0, 3]
    assert store.lengths(store.sides).max() == 25
    assert store.sides[-1, 0] != store.sides[-1, 1], "Turkish folds I to dotless i"
    assert store.sides[-2, 0] == store.sides[-2, 1] == store.sides[3, 0]


def test_a_concept_has_one_number_wherever_it_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr("bioelx_ray.kb.pairs._ROWS_PER_GROUP", 3)
    order = [5, 5, 5, 1, 5, 1, 2, 2, 5, 1]
    store = made_store(tmp_path, [pair(c, f"l{n}", f"r{n % 4}") for n, c in enumerate(order)])
    assert store.concepts.tolist() == [0, 0, 0, 1, 0, 1, 2, 2, 0, 1]
    assert [decoded(store, side) for side in store.sides[8]] == ["q l8", "q r0"]


def test_a_store_is_made_once_and_again_if_damaged_or_for_other_texts(tmp_path, monkeypatch):
    pairs = made_pairs(tmp_path / "pairs", plain_pairs(20))
    made = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda *a, **k: (made.append(1), write(*a, **k)))
    first = open_store(pairs, byte_tokens(), prefix="", home=tmp_path / "w", progress=silent)
    again = open_store(pairs, byte_tokens(), prefix="", home=tmp_path / "w", progress=silent)
    assert len(made) == 1
    assert first.fingerprint == again.fingerprint
    with (first.path / "sides.i4").open("r+b") as handle:
        handle.truncate(40)
    mended = open_store(pairs, byte_tokens(), prefix="", home=tmp_path / "w", progress=silent)
    assert len(made) == 2
    assert len(mended.sides) == 40
    (first.path / "store.json").write_text("[")
    open_store(pairs, byte_tokens(), prefix="", home=tmp_path / "w", progress=silent)
    assert len(made) == 3
    for tokens, prefix in ((byte_tokens(8), ""), (byte_tokens(), "query: ")):
        other = open_store(pairs, tokens, prefix=prefix, home=tmp_path / "w", progress=silent)
        assert other.fingerprint != first.fingerprint
    assert not list((tmp_path / "w").glob("*.draft"))


def _open(home, path, queue):
    from bioelx_ray.artifacts import open_artifact

    made = []
    store = open_store(
        open_artifact(path, "pairs"),
        byte_tokens(),
        prefix="",
        home=home,
        progress=lambda *_: made.append(1),
    )
    queue.put((bool(made), store.concepts.tolist()))


def test_of_processes_that_want_a_store_one_makes_it(tmp_path):
    pairs = made_pairs(tmp_path / "pairs", plain_pairs(200))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=_open, args=(tmp_path / "w", pairs.path, queue)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    assert sorted(made for made, _ in found) == [False, False, True]
    assert found[0][1] == found[1][1] == found[2][1]


def test_a_store_that_failed_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no pairs"):
        made_store(tmp_path, [])
    assert not list((tmp_path / "work").glob("tokens-*"))
    assert not list((tmp_path / "work").glob("*.draft"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("store")
        patch.setenv("BIOELX_CACHE", str(home / "cache"))
        yield made_store(home, plain_pairs(57))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(2, 130),
    world=st.integers(1, 9),
    epochs=st.floats(0.01, 3.5),
    seed=st.integers(0, 2**31),
)
def test_every_pair_once_an_epoch_whatever_the_workers(store, size, world, epochs, seed):
    config = TrainConfig(batch_pairs=size, epochs=epochs, seed=seed)
    ranks = [Batches(store, config, rank=rank, world=world) for rank in range(world)]
    seen = Counter()
    for step in range(ranks[0].steps):
        if step % ranks[0].per_epoch == 0:
            seen.clear()
        parts = [each.batch(step) for each in ranks]
        rows = parts[0].rows
        assert all((part.rows == rows).all() for part in parts)
        joint = sorted(
            (ids.tobytes(), label)
            for part in parts
            for ids, label in zip(part.texts, part.labels.tolist(), strict=True)
        )
        whole = [
            (store.text(side).tobytes(), int(store.concepts[row]))
            for row in rows
            for side in store.sides[row]
        ]
        assert joint == sorted(whole)
        sizes = [len(part.texts) for part in parts]
        assert max(sizes) - min(sizes) <= 2
        seen.update(rows.tolist())
        if (step + 1) % ranks[0].per_epoch == 0:
            assert set(seen.values()) == {1}
            assert len(seen) == 114


def test_a_part_is_left_sides_then_right_ones(store):
    part = Batches(store, TrainConfig(batch_pairs=30), rank=1, world=2).batch(1)
    half = len(part.texts) // 2
    assert (part.labels[:half] == part.labels[half:]).all()
    own = {(store.text(left).tobytes(), store.text(right).tobytes()) for left, right in store.sides}
    assert all(
        (left.tobytes(), right.tobytes()) in own
        for left, right in zip(part.texts[:half], part.texts[half:], strict=True)
    )


def test_work_is_dealt_evenly(store):
    config = TrainConfig(batch_pairs=57)
    parts = [Batches(store, config, rank=rank, world=3).batch(0) for rank in range(3)]
    tokens = [sum(map(len, part.texts)) for part in parts]
    assert max(tokens) - min(tokens) <= 0.04 * max(tokens)


@pytest.mark.parametrize(
    ("epochs", "size", "max_steps", "steps"),
    [
        (1, 114, None, 1),
        (1, 113, None, 2),
        (0.5, 10, None, 6),
        (0.001, 10, None, 1),
        (2, 10, None, 24),
        (2, 10, 7, 7),
        (0.3, 11, None, 4),
        (1, 10, 100, 12),
    ],
)
def test_how_many_steps(store, epochs, size, max_steps, steps):
    config = TrainConfig(batch_pairs=size, epochs=epochs, max_steps=max_steps)
    assert Batches(store, config).steps == steps


def test_epochs_and_seeds_differ(store):
    one = Batches(store, TrainConfig(batch_pairs=114, epochs=3, seed=1))
    other = Batches(store, TrainConfig(batch_pairs=114, epochs=3, seed=2))
    orders = [one.rows(0), one.rows(1), one.rows(2), other.rows(0)]
    assert len({order.tobytes() for order in orders}) == 4
    assert (one.rows(0) == orders[0]).all()


@pytest.mark.parametrize("start", [0, 3, 10, 11, 12])
def test_batches_made_ahead_are_the_same(store, start):
    batches = Batches(store, TrainConfig(batch_pairs=10))
    ahead = list(batches.between(start, 12))
    assert [batch.step for batch in ahead] == list(range(start, 12))
    for batch in ahead:
        again = batches.batch(batch.step)
        assert (batch.rows == again.rows).all()
        assert all(map(np.array_equal, batch.texts, again.texts))


def test_batches_made_ahead_may_be_left(store):
    batches = Batches(store, TrainConfig(batch_pairs=2)).between(0, 57)
    assert next(batches).step == 0
    batches.close()


def test_an_error_of_the_thread_is_raised(store, monkeypatch):
    batches = Batches(store, TrainConfig(batch_pairs=10))
    monkeypatch.setattr(batches, "rows", lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches.between(0, 12))


def test_a_store_is_small_beside_its_pairs(tmp_path):
    """Forms that pairs share are stored once."""
    aliases = [f"name {n}" for n in range(20)]
    pairs = [pair(1, left, right) for left in aliases for right in aliases if left < right]
    store = made_store(tmp_path, pairs)
    assert len(store.starts) - 1 == 20
    assert len(store.sides) == 190
    assert json.loads((store.path / "store.json").read_text())[1] == 21 * 8


def test_rows_are_those_of_the_artifact(store):
    from bioelx_ray.artifacts import open_artifact
    from bioelx_ray.retrieval.batches import described

    pairs = open_artifact(store.path.parents[1] / "pairs", "pairs")
    rows = np.array([100, 3, 3, 57])
    (table,) = read_pairs(pairs)
    assert described(pairs, rows) == [table.to_pylist()[row] for row in rows]
