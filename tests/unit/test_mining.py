import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.sparse import csr_array
from torch import multiprocessing as mp

from bioelx_ray.config import NegativesConfig, TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval.batches import Batches
from bioelx_ray.retrieval.mining import NONE, HardNegatives, miner
from bioelx_ray.retrieval.negatives import MARGIN
from bioelx_ray.retrieval.schedule import windows
from bioelx_ray.retrieval.step import embed_all
from bioelx_ray.retrieval.training import train
from bioelx_ray.retrieval.watch import Watch
from tests.training import made_store, plain_pairs, tiny_module

CONFIG = TrainConfig(
    batch_pairs=8,
    epochs=2,
    lr=1e-4,
    save_every=3,
    micro_tokens=128,
    precision="fp32",
    negatives=NegativesConfig(every=4),
)
CONCEPTS = 39


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sharing(*groups):
    """A key for each group of concepts that may be the same."""
    matrix = np.zeros((CONCEPTS, max(1, len(groups))), dtype=np.float32)
    for key, concepts in enumerate(groups):
        matrix[list(concepts), key] = 1
    return csr_array(matrix)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("store")
        patch.setenv("BIOELX_CACHE", str(home / "cache"))
        made = made_store(home, plain_pairs(CONCEPTS, each=1))  # batches of 8, 8, 8, 8, 7
        yield replace(made, shared=sharing())


def owners(store):
    """The concepts of each text."""
    found = {}
    for sides, concept in zip(store.sides.tolist(), store.concepts.tolist(), strict=True):
        for text in sides:
            found.setdefault(text, set()).add(concept)
    return found


def expected(store, module, pair, *, among, barred=frozenset()):
    """By looking at all: the safe text of another concept that is nearest to the left side."""
    texts = range(len(store.starts) - 1)
    vectors = embed_all(module, [store.text(text) for text in texts], CONFIG).float().numpy()
    left, right = store.sides[pair].tolist()
    limit = vectors[left] @ vectors[right] + MARGIN
    safe = [
        (float(vectors[left] @ vectors[text]), text)
        for text, concepts in owners(store).items()
        if text in among and concepts.isdisjoint({int(store.concepts[pair]), *barred})
    ]
    return max(((score, text) for score, text in safe if score <= limit), default=(0, NONE))[1]


def test_the_nearest_safe_texts_are_mined(store):
    module, pairs = tiny_module(), np.array([30, 3, 3, 17])
    found = miner(store, config=CONFIG)(module, pairs, 0)
    assert found.pairs.tolist() == [3, 17, 30]
    assert (found.texts != NONE).any()
    for pair, text, concept in zip(
        found.pairs, found.texts[:, 0], found.concepts[:, 0], strict=True
    ):
        assert text == expected(store, module, pair, among=owners(store))
        assert concept == NONE if text == NONE else {concept} == owners(store)[text]
    assert module.training


def test_concepts_that_may_be_the_same_are_passed_over(store):
    module, pairs = tiny_module(), np.arange(CONCEPTS)
    plain = miner(store, config=CONFIG)(module, pairs, 0)
    at = int(np.flatnonzero(plain.texts[:, 0] != NONE)[0])
    pair, rival = int(plain.pairs[at]), int(plain.concepts[at, 0])
    own = int(store.concepts[pair])
    barred = replace(store, shared=sharing((own, rival)))
    found = miner(barred, config=CONFIG)(module, pairs, 0)
    assert found.concepts[at, 0] != rival
    assert found.texts[at, 0] == expected(
        store, module, pair, among=owners(store), barred=frozenset({rival})
    )


def test_a_bank_of_a_part_is_another_one_each_time(store):
    config = CONFIG.model_copy(update={"negatives": NegativesConfig(every=4, bank=12)})
    module, pairs = tiny_module(), np.array([3, 17])
    ever = [miner(store, config=config)(module, pairs, step) for step in range(6)]
    again = miner(store, config=config)(module, pairs, 0)
    assert np.array_equal(ever[0].texts, again.texts)
    assert len({found.texts.tobytes() for found in ever}) > 1


def test_negatives_join_the_batch_of_their_pair(store):
    texts, concepts = np.full((CONCEPTS, 2), NONE), np.full((CONCEPTS, 2), NONE)
    texts[:, 0] = (store.sides[:, 0] + 5) % (len(store.starts) - 1)
    concepts[:, 0] = np.arange(CONCEPTS) + 100
    given = HardNegatives(pairs=np.arange(CONCEPTS), texts=texts, concepts=concepts)
    whole = Batches(store, CONFIG).batch(1, given)
    parts = [Batches(store, CONFIG, rank=rank, world=2).batch(1, given) for rank in (0, 1)]
    assert len(whole.texts) == 8 + 8 + 8
    assert len(whole.labels) == len(whole.texts)
    assert sorted(whole.labels[16:] - 100) == sorted(whole.labels[:8]) == sorted(whole.rows)
    for own, label in zip(whole.texts[16:], whole.labels[16:], strict=True):
        assert np.array_equal(own, store.text(texts[label - 100, 0]))
    dealt = [
        (label, *text)
        for part in parts
        for label, text in zip(part.labels, part.texts, strict=True)
    ]
    assert sorted(dealt) == sorted(
        (label, *text) for label, text in zip(whole.labels, whole.texts, strict=True)
    )
    ahead = list(Batches(store, CONFIG).between(1, 3, given))
    assert [batch.step for batch in ahead] == [1, 2]
    assert all(map(np.array_equal, ahead[0].texts, whole.texts))


@pytest.mark.parametrize(
    ("step", "steps", "every", "spans"),
    [
        (0, 10, 0, [(0, 10)]),
        (7, 10, 0, [(7, 10)]),
        (0, 10, 4, [(0, 4), (4, 8), (8, 10)]),
        (5, 10, 4, [(5, 8), (8, 10)]),
        (8, 10, 4, [(8, 10)]),
        (0, 3, 100, [(0, 3)]),
        (10, 10, 4, []),
    ],
)
def test_windows(step, steps, every, spans):
    assert list(windows(step, steps, every=every)) == spans


class Interrupt(Exception):
    pass


def run(store, workdir, *, until=None, config=CONFIG):
    def report(told):
        if told.step == until:
            raise Interrupt

    module = tiny_module(dropout=0)
    train(module, store, config=config, workdir=workdir, watch=Watch(report=report))
    return module


def test_training_mines_anew_and_learns_otherwise(store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        with_them = run(store, tmp_path / "with")
    mined = [r.getMessage() for r in caplog.records if "mining" in r.getMessage()]
    assert mined == [
        f"mining hard negatives for {pairs} pairs at step {step}"
        for pairs, step in [(32, 0), (31, 4), (15, 8)]
    ]
    config = CONFIG.model_copy(update={"negatives": NegativesConfig()})
    without = run(store, tmp_path / "without", config=config)
    differ = [
        not torch.equal(one, other)
        for one, other in zip(with_them.parameters(), without.parameters(), strict=True)
    ]
    assert any(differ)


@pytest.mark.parametrize("step", [2, 4, 5, 7, 9])
def test_after_an_interruption_it_ends_with_the_same_bits(store, tmp_path, step):
    plain = run(store, tmp_path / "plain")
    with pytest.raises(Interrupt):
        run(store, tmp_path / "cut", until=step)
    resumed = run(store, tmp_path / "cut")
    for one, other in zip(plain.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def _work(rank, world, home, store):
    torch.set_num_threads(1)
    os.environ["BIOELX_CACHE"] = str(home / "cache")
    dist.init_process_group("gloo", init_method=f"file://{home}/r", rank=rank, world_size=world)
    found = miner(store, config=CONFIG)(tiny_module(), np.arange(0, CONCEPTS, 2), 0)
    module = run(store, home / "run-2")
    torch.save({"weights": module.state_dict(), **found.pack()}, home / f"out-{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_mine_and_learn_what_one_does(store, tmp_path):
    mp.start_processes(_work, args=(2, tmp_path, store), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"out-{rank}.pt") for rank in (0, 1))
    alone = miner(store, config=CONFIG)(tiny_module(), np.arange(0, CONCEPTS, 2), 0)
    for name, expected_rows in alone.pack().items():
        assert torch.equal(first[name], expected_rows)
        assert torch.equal(second[name], expected_rows)
    for name, value in run(store, tmp_path / "run-1").state_dict().items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=2e-4)


def test_without_what_concepts_share_nothing_is_mined(store, tmp_path):
    with pytest.raises(TrainingError, match="the store must say what concepts share"):
        run(replace(store, shared=None), tmp_path)
