from pathlib import Path

import numpy as np
import pytest

from bioelx_ray.config import IndexConfig
from bioelx_ray.errors import ArtifactCorrupt, IndexBuildError
from bioelx_ray.retrieval.index import DenseIndex, build_faiss, exact_search, language_probes

DIM = 24


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, DIM))
    rows = centres[rng.integers(60, size=6000)] + 0.4 * rng.normal(size=(6000, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def probes(vectors):
    return language_probes(vectors, ["en", "ko"] * 3000, queries=256, seed=0)


def built_in(directory, vectors, probes, **settings):
    built = build_faiss(vectors, directory, config=IndexConfig(**settings), probes=probes)
    return built, DenseIndex(directory, nprobe=built.nprobe)


def test_probes_are_of_every_language_and_between(probes):
    assert set(probes) == {"en", "ko", "between"}
    for queries in probes.values():
        np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)


def test_small_index_is_exact(tmp_path, vectors, probes):
    built, index = built_in(tmp_path, vectors, probes)
    assert (built.kind, built.recall, len(index)) == ("flat", 1.0, 6000)
    wanted = np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, :10]
    np.testing.assert_array_equal(index.search(vectors[:5], k=10)[1], wanted)


def test_ivf_reaches_the_recall_that_it_states(tmp_path, vectors, probes):
    built, index = built_in(tmp_path, vectors, probes, kind="ivf")
    assert built.kind == "ivf"
    assert 1 <= built.nprobe < built.nlist
    assert built.recall >= 0.99
    assert min(built.recall_by_language.values()) >= 0.98
    queries = np.concatenate(list(probes.values()))
    wanted = exact_search([vectors], queries, k=64)[1]
    found = index.search(queries, k=64)[1]
    hits = sum(len(np.intersect1d(f, w)) for f, w in zip(found, wanted, strict=True))
    assert hits / wanted.size == pytest.approx(built.recall, abs=1e-3)


def test_fewer_lists_than_chosen_would_miss_the_recall(tmp_path, vectors, probes):
    built, _ = built_in(tmp_path, vectors, probes, kind="ivf")
    queries = np.concatenate(list(probes.values()))
    wanted = exact_search([vectors], queries, k=64)[1]
    found = DenseIndex(tmp_path, nprobe=max(1, built.nprobe // 2)).search(queries, k=64)[1]
    hits = sum(len(np.intersect1d(f, w)) for f, w in zip(found, wanted, strict=True))
    assert hits / wanted.size < 0.99


def test_build_fails_where_the_recall_cannot_be_reached(tmp_path, vectors, probes, monkeypatch):
    monkeypatch.setattr("bioelx_ray.retrieval.index._overlap", lambda found, wanted: 0.5)
    with pytest.raises(IndexBuildError, match=r"reaches Recall@64 0\.5000"):
        built_in(tmp_path, vectors, probes, kind="ivf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_filter_and_scores_of_rows(tmp_path, vectors, probes, kind):
    _, index = built_in(tmp_path, vectors, probes, kind=kind)
    allowed = np.zeros(6000, dtype=bool)
    allowed[[3, 700, 5999]] = True
    scores, rows = index.search(vectors[:2], k=5, allowed=allowed)
    assert set(rows[0]) - {-1} <= {3, 700, 5999}
    again = index.scores_of(vectors[:2], rows)
    np.testing.assert_allclose(again[rows >= 0], scores[rows >= 0], atol=1e-5)
    assert (again[rows < 0] == 0).all()


def test_exact_search_over_blocks_equals_one_block(vectors):
    blocks = [vectors[:10], vectors[10:4000], vectors[4000:]]
    np.testing.assert_array_equal(
        exact_search(blocks, vectors[:7], k=20)[1], exact_search([vectors], vectors[:7], k=20)[1]
    )


def test_garbage_is_no_index(tmp_path):
    (tmp_path / "dense.faiss").write_bytes(b"garbage")
    with pytest.raises(ArtifactCorrupt, match="no FAISS index"):
        DenseIndex(tmp_path, nprobe=1)


def test_scores_are_exact_and_vectors_stay_on_disk(tmp_path, vectors, probes):
    _, index = built_in(tmp_path, vectors, probes, kind="ivf")
    scores, rows = index.search(vectors[:50], k=20)
    np.testing.assert_allclose(
        scores, np.einsum("qd,qkd->qk", vectors[:50], vectors[rows]), atol=2e-3
    )
    halves = tmp_path / "dense.vectors.faiss"
    assert halves.stat().st_size < 6000 * DIM * 2 + 1000
    assert str(halves) in Path("/proc/self/maps").read_text()
