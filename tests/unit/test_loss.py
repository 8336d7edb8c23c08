import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bioelx_ray.retrieval.loss as module
from bioelx_ray.config import LossConfig
from bioelx_ray.retrieval.loss import make_loss

DOUBLE, SINGLE = torch.float64, torch.float32
CONFIG = LossConfig()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def library(config=CONFIG):
    """The loss that SapBERT's authors train with."""
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.losses import MultiSimilarityLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    loss = MultiSimilarityLoss(alpha=config.alpha, beta=config.beta, base=config.base)
    miner = TripletMarginMiner(margin=config.margin, type_of_triplets="all")
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


def run(loss, embeddings, labels):
    """The loss and its gradient."""
    given = embeddings.detach().clone().requires_grad_()
    value = loss(given, labels)
    value.backward()
    return value.detach(), given.grad


def assert_same(embeddings, labels, *, config=CONFIG, tolerance=1e-6, expected=None):
    labels = torch.as_tensor(labels, dtype=torch.int64)
    value, gradient = run(make_loss(config), embeddings, labels)
    wanted, slope = expected or run(library(config), embeddings, labels)
    assert value.shape == ()
    assert abs(value - wanted) <= tolerance * abs(wanted)
    rounding = 4 * torch.finfo(embeddings.dtype).eps  # where the terms of a gradient cancel out
    assert (gradient - slope).norm() <= tolerance * slope.norm() + rounding
    return value


def unit(n, dim=16, *, seed=0, dtype=DOUBLE, of=(0, 1), spread=1.0):
    """Unit vectors, the i-th near the centre ``of[i % len(of)]``."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(of) + 1, dim, dtype=dtype, generator=draw)
    noise = torch.randn(n, dim, dtype=dtype, generator=draw)
    own = torch.as_tensor(of)[torch.arange(n) % len(of)]
    return torch.nn.functional.normalize(centres[own] + spread * noise)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize(("n", "classes"), [(3, 2), (12, 4), (60, 30), (120, 7), (200, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_as_the_library(dtype, n, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    assert_same(unit(n, seed=seed, dtype=dtype, of=labels, spread=0.5), labels)


def test_the_batches_of_the_comparison_are_neither_all_nor_nothing():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 100, 200))
    block = module._block(unit(200, of=labels, spread=0.5), labels, slice(0, 200))
    positive, negative = module._mined(block, CONFIG.margin)
    assert 0.1 < positive.sum() / block.positive.sum() < 0.9
    assert 0.001 < negative.sum() / block.negative.sum() < 0.9


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.2, 1.0, 2.5]),
    st.sampled_from([DOUBLE, SINGLE]),
)
def test_few_points_and_labels_in_any_arrangement(rows, margin, dtype):
    """Duplicates, ties, one label, distinct labels, single triplets: all come up here."""
    points = torch.eye(5, dtype=dtype) + torch.tensor([0.0, 0.5, 0.25, 1.0, 0.0], dtype=dtype)
    embeddings = torch.stack([points[point] for _, point in rows])
    assert_same(embeddings, [label for label, _ in rows], config=LossConfig(margin=margin))


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize(
    "labels",
    [[0] * 40, list(range(40)), [0, 1] * 20, [0] * 39 + [1], [0] * 38 + [1, 1], [-1, 2**62] * 20],
    ids=["one", "distinct", "two", "one other", "two others", "far apart"],
)
def test_labels(dtype, labels):
    assert_same(unit(40, dtype=dtype), labels)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
def test_zero_distances(dtype):
    """The distance's root has no derivative at 0; mining needs none."""
    same = unit(1, dtype=dtype).repeat(40, 1)
    assert assert_same(same, [i // 2 for i in range(40)]) > 0
    pairs = unit(30, dtype=dtype, spread=0.1).repeat(2, 1)
    assert assert_same(pairs, list(range(30)) * 2) > 0
    _, gradient = run(make_loss(CONFIG), pairs, torch.arange(30).repeat(2))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("beyond", [False, True])
def test_ties_at_the_margin_are_kept(dtype, beyond):
    """A negative at 1 + the margin from the anchor, its positive at 1: exact in binary."""
    at = torch.tensor([0.0, 1.0, -1.25], dtype=dtype)
    distances = (at[:, None] - at).abs()
    labels = torch.tensor([0, 0, 1])
    positive = (labels[:, None] == labels) & ~torch.eye(3, dtype=torch.bool)
    block = module._Block(distances, distances, positive, labels[:, None] != labels)
    margin = 0.25 - 2**-20 * beyond
    pull, push = module._mined(block, margin)
    assert pull.tolist() == [[False, not beyond, False], [False] * 3, [False] * 3]
    assert push.tolist() == [[False, False, not beyond], [False] * 3, [False] * 3]


def test_ties_of_equal_distances_as_the_library():
    """Anchors at a right angle to everything: each positive is as far as each negative."""
    for margin in (0.0, 0.2):
        config = LossConfig(margin=margin)
        assert assert_same(torch.eye(32, dtype=DOUBLE), [0, 1, 2, 3] * 8, config=config) > 0


def test_what_has_no_triplet_is_zero_with_zero_gradient():
    far = torch.eye(6, dtype=SINGLE)[[0, 0, 1, 1, 2, 2]]
    for embeddings, labels in [
        (far, [0, 0, 1, 1, 2, 2]),
        (unit(1), [0]),
        (unit(2), [0, 0]),
        (unit(2), [0, 1]),
        (unit(9), [0] * 9),
        (unit(9), list(range(9))),
    ]:
        value, gradient = run(make_loss(CONFIG), embeddings, torch.tensor(labels))
        assert value == 0
        assert gradient.shape == embeddings.shape
        assert (gradient == 0).all()
        assert_same(embeddings, labels)


def test_no_row():
    for name in ("multi-similarity", "info-nce"):
        empty = torch.zeros(0, 8, requires_grad=True)
        value = make_loss(LossConfig(name=name))(empty, torch.zeros(0, dtype=torch.int64))
        value.backward()
        assert value == 0
        assert empty.grad.shape == (0, 8)


def test_a_single_triplet_is_none_as_in_the_library():
    """Anchor 0 has its positive at the distance of the negative; anchor 1 has it far nearer."""
    angle = torch.tensor([0.0, 0.6, -0.6], dtype=DOUBLE)
    embeddings = torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.tensor([0, 0, 1])
    mined = module._mined(module._block(embeddings, labels, slice(0, 3)), 0.2)
    assert [int(kind.sum()) for kind in mined] == [1, 1]
    assert assert_same(embeddings, labels) == 0


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(alpha=2, beta=50, base=0.5, margin=0.1),
        LossConfig(alpha=1, beta=60, base=-1, margin=2),
        LossConfig(alpha=0.1, beta=500, base=0.9, margin=1),
        LossConfig(alpha=400, beta=2000, base=0, margin=0),
    ],
)
@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
def test_settings_and_exponents_that_overflow(config, dtype):
    tolerance = 1e-6 if dtype == DOUBLE else 1e-4  # a cosine's rounding, times beta
    assert_same(unit(60, dtype=dtype), np.arange(60) % 20, config=config, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
def test_lengths_do_not_matter(dtype):
    """The library takes cosines and distances of the normalised rows, and so does the gradient."""
    scales = torch.linspace(0.1, 9, 40, dtype=dtype)[:, None]
    assert_same(unit(40, dtype=dtype) * scales, np.arange(40) % 20)


def test_gradient_by_differences():
    embeddings, labels = unit(14, dim=4), torch.arange(14) % 5
    for name in ("multi-similarity", "info-nce"):
        loss = make_loss(LossConfig(name=name, beta=5, temperature=0.3))
        value = embeddings.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda e, loss=loss: loss(e, labels), value)


def test_a_factor_reaches_the_gradient():
    embeddings, labels = unit(20), torch.arange(20) % 5
    for name in ("multi-similarity", "info-nce"):
        loss = make_loss(LossConfig(name=name))
        value, gradient = run(loss, embeddings, labels)
        scaled, more = run(lambda e, y, loss=loss: 1024 * loss(e, y), embeddings, labels)
        assert scaled == 1024 * value
        assert (more == 1024 * gradient).all()


def test_order_does_not_matter():
    embeddings, labels = unit(50), torch.arange(50) % 9
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for name in ("multi-similarity", "info-nce"):
        loss = make_loss(LossConfig(name=name))
        value, gradient = run(loss, embeddings, labels)
        moved, other = run(loss, embeddings[order], labels[order])
        torch.testing.assert_close(moved, value, rtol=1e-12, atol=0)
        torch.testing.assert_close(other, gradient[order], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["multi-similarity", "info-nce"])
@pytest.mark.parametrize("at_once", [1, 97, 60 * 59, 60 * 61])
def test_blocks_change_nothing(monkeypatch, name, at_once):
    """One row a block, several with a short last one, all but one row, all."""
    embeddings, labels = unit(60), torch.arange(60) % 20
    loss = make_loss(LossConfig(name=name))
    value, gradient = run(loss, embeddings, labels)
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    blocked, other = run(loss, embeddings, labels)
    torch.testing.assert_close(blocked, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-15)


def test_a_batch_past_the_library_in_bounded_blocks(monkeypatch):
    """3,000 rows have 27 billion triplets of places; blocks against one block."""
    embeddings, labels = unit(3000, dim=8, dtype=SINGLE), torch.arange(3000) % 1000
    monkeypatch.setattr(module, "_AT_ONCE", 1 << 24)
    whole = run(make_loss(CONFIG), embeddings, labels)
    seen = []
    monkeypatch.setattr(module, "_AT_ONCE", 1 << 19)
    monkeypatch.setattr(module, "_block", lambda *a, own=module._block: seen.append(a) or own(*a))
    assert_same(embeddings, labels, expected=whole, tolerance=1e-5)
    assert len(seen) == 18
    assert whole[0].isfinite()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["multi-similarity", "info-nce"])
def test_what_is_not_finite_is_not_hidden(name, broken):
    """A miner keeps no pair of such a row, and all of a batch would have the loss 0."""
    for rows in (1, 20):
        embeddings = unit(20)
        embeddings[:rows, 3] = broken
        value, _ = run(make_loss(LossConfig(name=name)), embeddings, torch.arange(20) % 10)
        assert value.isnan()


def test_a_zero_vector_is_finite():
    embeddings = unit(20)
    embeddings[3] = 0
    value, gradient = run(make_loss(CONFIG), embeddings, torch.arange(20) % 10)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["multi-similarity", "info-nce"])
def test_half_precision_and_autocast_compute_in_float32(name):
    loss, labels = make_loss(LossConfig(name=name)), torch.arange(40) % 20
    embeddings = unit(40, dtype=SINGLE)
    plain, gradient = run(loss, embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, other = run(loss, embeddings, labels)
    assert value.dtype == SINGLE
    assert value == plain
    assert (other == gradient).all()
    half, slope = run(loss, embeddings.bfloat16(), labels)
    assert half.dtype == SINGLE
    assert slope.dtype == torch.bfloat16
    assert half == run(loss, embeddings.bfloat16().float(), labels)[0]


def test_without_a_gradient():
    with torch.no_grad():
        value = make_loss(CONFIG)(unit(40), torch.arange(40) % 20)
    assert value > 0
    assert not value.requires_grad


def info_nce(embeddings, labels, temperature):
    """Its formula, pair by pair."""
    unit_rows = torch.nn.functional.normalize(embeddings)
    powers = (unit_rows @ unit_rows.T / temperature).exp()
    anchors = []
    for a, label in enumerate(labels):
        negatives = powers[a, labels != label].sum()
        own = [p for p in range(len(labels)) if p != a and labels[p] == label]
        terms = [-torch.log(powers[a, p] / (powers[a, p] + negatives)) for p in own]
        if terms:
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0] * 12 + [1, 1, 2, 3], [0, 1] * 8])
def test_info_nce_is_its_formula(dtype, labels):
    config = LossConfig(name="info-nce", temperature=0.2)
    labels = torch.tensor(labels)
    embeddings = unit(len(labels), dtype=dtype)
    wanted = run(lambda e, y: info_nce(e, y, 0.2), embeddings, labels)
    assert assert_same(embeddings, labels, config=config, expected=wanted) > 0


def test_info_nce_of_pairs_as_the_library():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels = unit(60), torch.arange(60) % 30
    wanted = run(losses.NTXentLoss(temperature=0.05), embeddings, labels)
    assert_same(embeddings, labels, config=LossConfig(name="info-nce"), expected=wanted)


def test_info_nce_without_negatives_or_positives():
    """Aliases of one concept alone are not driven apart: they are no negatives of one another."""
    loss = make_loss(LossConfig(name="info-nce"))
    for labels in ([0] * 6, list(range(6))):
        value, gradient = run(loss, unit(6), torch.tensor(labels))
        assert value == 0
        assert (gradient == 0).all()


def test_info_nce_at_a_low_temperature():
    config = LossConfig(name="info-nce", temperature=1e-4)
    value, gradient = run(make_loss(config), unit(40, dtype=SINGLE), torch.arange(40) % 20)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.gpu
def test_on_cuda():
    embeddings, labels = unit(200, dtype=SINGLE), torch.arange(200) % 100
    for name in ("multi-similarity", "info-nce"):
        loss = make_loss(LossConfig(name=name))
        value, gradient = run(loss, embeddings, labels)
        other, slope = run(loss, embeddings.cuda(), labels.cuda())
        torch.testing.assert_close(other.cpu(), value, rtol=1e-4, atol=0)
        torch.testing.assert_close(slope.cpu(), gradient, rtol=1e-3, atol=1e-6)
