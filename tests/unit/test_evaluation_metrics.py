import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_ray.evaluation.metrics import (
    first_gold_rank,
    group_by_document,
    hits_at,
    paired_test,
    percentile_interval,
    reciprocal_ranks,
    resampled_means,
)

RANKS = np.array([1, 0, 3, 64, 5, 6])

ranks = st.lists(st.integers(0, 70), min_size=1, max_size=30).map(np.array)


def test_a_rank_counts_distinct_concepts_from_one():
    assert first_gold_rank(["a", "a", "b", "c"], {"c", "b"}) == 2
    assert first_gold_rank(["a"], {"c"}) == 0
    assert first_gold_rank([], {"c"}) == 0


@pytest.mark.parametrize(("k", "hits"), [(1, 1), (3, 2), (5, 3), (6, 4), (63, 4), (64, 5)])
def test_recall_at_k(k, hits):
    assert hits_at(RANKS, k).mean() == hits / 6


def test_reciprocal_ranks():
    assert reciprocal_ranks(RANKS).tolist() == [1, 0, 1 / 3, 1 / 64, 1 / 5, 1 / 6]


@given(ranks, st.integers(1, 70))
def test_recall_grows_with_k_and_bounds_mrr(found, k):
    here, above = hits_at(found, k).mean(), hits_at(found, k + 1).mean()
    assert 0 <= here <= above <= 1
    assert hits_at(found, 1).mean() <= reciprocal_ranks(found).mean() <= (found > 0).mean()


@given(ranks, st.randoms(use_true_random=False))
def test_the_order_of_mentions_does_not_matter(found, random):
    shuffled = found.copy()
    random.shuffle(shuffled)
    assert hits_at(found, 5).mean() == hits_at(shuffled, 5).mean()
    assert math.isclose(reciprocal_ranks(found).mean(), reciprocal_ranks(shuffled).mean())


def test_mentions_without_a_document_are_groups_of_their_own():
    assert group_by_document(["x", None, "y", "x", None]).tolist() == [0, 1, 2, 0, 3]


def test_bootstrap_means_of_single_mentions_have_the_binomial_spread():
    values = np.array([1.0] * 30 + [0.0] * 70)[:, None]
    means = resampled_means(values, np.arange(100), samples=20_000)
    assert means.shape == (20_000, 1)
    assert means.mean() == pytest.approx(0.3, abs=0.002)
    assert means.std() == pytest.approx(math.sqrt(0.3 * 0.7 / 100), rel=0.03)
    low, high = percentile_interval(means)
    assert (low[0], high[0]) == pytest.approx((0.21, 0.39), abs=0.011)


def test_bootstrap_draws_whole_documents():
    # Two documents, one all right, one all wrong: only 0, 1/2 and 1 can come up.
    values = np.array([[1.0], [1.0], [0.0], [0.0]])
    means = resampled_means(values, np.array([0, 0, 1, 1]))
    assert set(means.ravel()) == {0.0, 0.5, 1.0}


def test_bootstrap_is_seeded_and_columns_share_their_draws():
    values = np.random.default_rng(1).random((20, 1))
    groups = np.arange(20)
    once = resampled_means(np.hstack([values, values]), groups, seed=3)
    assert np.array_equal(once[:, 0], once[:, 1])
    # another shape is another BLAS kernel, which may round the last digit differently
    assert np.allclose(once[:, :1], resampled_means(values, groups, seed=3), rtol=1e-12)
    assert not np.allclose(once[:, :1], resampled_means(values, groups, seed=4))


def test_no_mentions_have_no_figures():
    means = resampled_means(np.empty((0, 2)), np.empty(0, dtype=np.int64), samples=5)
    assert means.shape == (5, 2)
    assert np.isnan(means).all()


def test_the_paired_test_agrees_with_the_exact_distribution():
    # Six mentions, all better by 1: both all-plus and all-minus are as large, p = 2 / 2**6.
    found = paired_test(np.ones(6), np.zeros(6), np.arange(6), samples=50_000)
    assert found.mean == 1.0
    assert found.p_value == pytest.approx(2 / 64, rel=0.1)


def test_the_paired_test_exchanges_whole_documents():
    # The same six mentions in two documents: every exchange that is not a tie counts, p = 2 / 4.
    found = paired_test(np.ones(6), np.zeros(6), np.array([0, 0, 0, 1, 1, 1]), samples=50_000)
    assert found.p_value == pytest.approx(0.5, rel=0.05)


def test_equal_runs_do_not_differ():
    found = paired_test(np.ones(4), np.ones(4), np.arange(4))
    assert (found.mean, found.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("length", [0, 2])
def test_the_paired_test_needs_pairs(length):
    with pytest.raises(ValueError, match="give the same, not 0"):
        paired_test(np.ones(length), np.ones(3), np.arange(3))
