"""Fusion, probabilities that mean something, the NIL threshold, and the artifact."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config_ranking import CalibrationConfig
from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactNotFound, InputError
from bioelx_ray.ranking import fusion
from bioelx_ray.ranking.calibration import (
    FILE,
    Calibration,
    build_calibration,
    fit,
    judge,
    open_calibration,
)
from bioelx_ray.ranking.curve import calibration_error, corrected, fit_curve, threshold_for
from bioelx_ray.ranking.fusion import Judged, Weights, probabilities
from bioelx_ray.records import Candidate, GoldMention, Mention

BINDING = {"engine": "e", "template": "t", "scoring": "s", "retriever": "r"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def made(n, *, seed=0, ranker=2.0, retrieval=20.0, nil=14.0, noise=None, width=12):
    """Mentions whose gold is drawn by the model itself; `noise` replaces the ranker's scores."""
    rng = np.random.default_rng(seed)
    result = []
    for row in range(n):
        k = int(rng.integers(1, width))
        true = rng.normal(0, 1.5, k)
        scores = np.sort(rng.uniform(0.4, 0.9, k))[::-1]
        chances = probabilities(Weights(ranker=ranker, retrieval=retrieval, nil=nil), true, scores)
        drawn = rng.choice(k + 1, p=np.append(chances, 1 - chances.sum()))
        gold = np.arange(k) == drawn
        shown = true if noise is None else rng.normal(0, noise, k)
        result.append(Judged(ranker=shown, retrieval=scores, gold=gold, group=f"d{row // 3}"))
    return result


def recall(judged, weights):
    found = [probabilities(weights, item.ranker, item.retrieval) for item in judged]
    return fusion.hits(judged, found).mean()


def test_probabilities_are_a_softmax_with_nil():
    found = probabilities(
        Weights(ranker=1.0, retrieval=2.0, nil=0.5), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    )
    parts = np.exp([1.0, 2.0, 0.5])
    assert found == pytest.approx(parts[:2] / parts.sum())
    assert probabilities(Weights(ranker=1, retrieval=1), np.empty(0), np.empty(0)).shape == (0,)
    alone = probabilities(Weights(ranker=1.0, retrieval=0.0), np.array([2.0]), np.array([9.0]))
    assert alone == pytest.approx(expit([2.0]))  # the ranker's own log-odds against NIL
    huge = probabilities(Weights(ranker=99.0, retrieval=0.0), np.array([50.0, -50.0]), np.zeros(2))
    assert np.isfinite(huge).all()


def test_the_fit_finds_the_weights_that_made_the_data():
    found = fusion.fit_weights(made(6000), ridge=0.0)
    assert found.ranker == pytest.approx(2.0, rel=0.1)
    assert found.retrieval == pytest.approx(20.0, rel=0.1)
    assert found.nil == pytest.approx(14.0, rel=0.1)


def test_the_gradient_is_that_of_the_loss():
    table = fusion._table(made(40))
    inputs = np.stack([table.ranker, table.retrieval, table.nil], axis=2)
    settings = {"inputs": inputs, "there": table.there, "right": table.right, "ridge": 0.7}
    at = np.array([0.4, 2.0, 0.3])
    _, gradient = fusion._loss(at, **settings)
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-5
        above, below = (fusion._loss(at + s, **settings)[0] for s in (step, -step))
        assert gradient[axis] == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_several_gold_candidates_count_together():
    both = Judged(ranker=np.zeros(2), retrieval=np.zeros(2), gold=np.array([True, True]), group="a")
    assert fusion.log_likelihoods([both], [np.array([0.3, 0.4])]) == pytest.approx([np.log(0.7)])


@pytest.mark.parametrize("seed", range(8))
def test_a_ranker_that_knows_nothing_costs_nothing(seed):
    noise = 10.0 ** (seed % 4 - 1)  # from timid to loud
    development = made(400, seed=seed, ranker=0.0, noise=noise)
    held = made(4000, seed=seed + 100, ranker=0.0, noise=noise)
    calibration, figures = fit(development, CalibrationConfig())
    alone = recall(held, Weights(ranker=0.0, retrieval=1.0))
    assert recall(held, calibration.weights) >= alone - 0.005
    assert calibration.weights.ranker * noise < 0.2
    assert not figures["ranker_counts"] or figures["recall_at_1"] >= alone - 0.1


def test_random_rankers_are_nearly_always_left_out():
    counted = sum(
        fit(made(150, seed=seed, ranker=0.0, noise=1.0), CalibrationConfig())[1]["ranker_counts"]
        for seed in range(20)
    )
    assert counted <= 2


def test_a_ranker_that_harms_is_left_out():
    bad = [
        Judged(ranker=-item.ranker, retrieval=item.retrieval, gold=item.gold, group=item.group)
        for item in made(400)
    ]
    calibration, figures = fit(bad, CalibrationConfig())
    assert calibration.weights.ranker == 0
    assert figures["recall_at_1"] == figures["recall_at_1_retrieval"]


def test_a_ranker_that_knows_something_counts():
    calibration, figures = fit(made(600), CalibrationConfig())
    held = made(3000, seed=1)
    gain = recall(held, calibration.weights) - recall(held, Weights(ranker=0.0, retrieval=1.0))
    assert gain > 0.1
    assert figures["ranker_counts"]
    assert figures["recall_at_1"] - figures["recall_at_1_retrieval"] > 0.1


def test_without_the_ranker_the_retrievers_order_remains():
    # gold at random: the retriever knows nothing either, and the fit would give it no weight
    rng = np.random.default_rng(0)
    judged = [
        Judged(
            ranker=rng.normal(size=6),
            retrieval=np.linspace(0.9, 0.4, 6),
            gold=np.arange(6) == rng.integers(6),
            group=str(row),
        )
        for row in range(100)
    ]
    weights = fit(judged, CalibrationConfig())[0].weights
    found = probabilities(weights, judged[0].ranker, judged[0].retrieval)
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_probabilities_come_true(method):
    calibration, figures = fit(made(1500), CalibrationConfig(method=method))
    held = made(4000, seed=5)
    chances = [calibration.chances(item.ranker, item.retrieval) for item in held]
    right = fusion.hits(held, chances).astype(bool)
    assert calibration_error(np.array([p.max() for p in chances]), right) < 0.04
    assert figures["calibration_error"] < 0.05


def test_isotonic_repairs_what_a_temperature_cannot():
    # promises of 0.5 to 1 that come true by their square
    rng = np.random.default_rng(0)
    promised = rng.uniform(0.5, 1, 4000)
    right = rng.random(4000) < promised**2
    curve = fit_curve(promised[:2000], right[:2000])
    before = calibration_error(promised[2000:], right[2000:])
    after = calibration_error(corrected(promised[2000:], curve), right[2000:])
    assert before > 0.1
    assert after < before / 3


def test_a_correction_keeps_the_order():
    rng = np.random.default_rng(1)
    promised = rng.random(500)
    curve = fit_curve(promised, rng.random(500) < promised**3)
    given = np.sort(np.concatenate([10.0 ** -np.arange(1, 200), rng.random(500)]))
    found = corrected(given, curve)
    assert (np.diff(found) > 0).all()
    assert found.min() > 0
    assert found.max() < 1
    assert corrected(given, ()) is given


@pytest.mark.parametrize("right", [True, False])
def test_a_curve_of_one_kind_of_outcome(right):
    curve = fit_curve(np.linspace(0.1, 0.9, 50), np.full(50, right))
    found = corrected(np.array([0.5]), curve)
    assert found[0] > 0.9 if right else found[0] < 0.1
    assert fit_curve(np.empty(0), np.empty(0, bool)) == ()


def test_calibration_error_by_hand():
    chances = np.array([0.9, 0.9, 0.1, 0.1])
    right = np.array([True, False, False, False])
    assert calibration_error(chances, right) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert calibration_error(np.empty(0), np.empty(0, bool)) == 0


def test_the_threshold_reaches_the_precision_with_most_links():
    chances = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, False])
    assert threshold_for(0.75, chances, right, least=1) == 0.6
    assert threshold_for(0.9, chances, right, least=1) == 0.8
    with pytest.raises(InputError, match=r"reaches precision 0.9 with 3 .* the highest is 0.750"):
        threshold_for(0.9, chances, right, least=3)
    tied = np.array([0.9, 0.9, 0.5])  # the two pass together or not at all
    with pytest.raises(InputError, match=r"highest is 0\.667"):
        threshold_for(0.9, tied, np.array([True, False, True]), least=1)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_the_precision_is_reached_on_other_data(method):
    config = CalibrationConfig(method=method, precision=0.9)
    calibration, _ = fit(made(1500), config)
    held = made(4000, seed=9)
    chances = [calibration.chances(item.ranker, item.retrieval) for item in held]
    best = np.array([p.max() for p in chances])
    right = fusion.hits(held, chances)
    passed = best >= calibration.nil_threshold
    assert right.mean() < 0.85
    assert right[passed].mean() > 0.87
    assert passed.mean() > 0.2


def test_what_is_held_out_was_not_fitted_on():
    judged = made(30)
    config = CalibrationConfig()
    before = fusion.held_out(judged, config=config, use_ranker=True)
    item = judged[7]
    judged[7] = Judged(
        ranker=item.ranker, retrieval=item.retrieval, gold=~item.gold, group=item.group
    )
    after = fusion.held_out(judged, config=config, use_ranker=True)
    same = [bool((a == b).all()) for a, b in zip(before, after, strict=True)]
    part = fusion.parts(judged, config.folds)
    assert same == [number == part[7] for number in part]
    assert all(len({part[row] for row in range(3 * d, 3 * d + 3)}) == 1 for d in range(10))


def test_too_few_documents_are_an_error():
    with pytest.raises(InputError, match="3 documents of development mentions"):
        fit(made(9), CalibrationConfig())


def test_gold_and_candidates_are_judged():
    candidates = tuple(
        Candidate(concept_id=f"t:{n}", alias="a", lang="en", source="s", score=1 - n / 8)
        for n in range(3)
    )
    gold = [
        GoldMention(mention=Mention(text="a", document_id="d"), concept_ids=frozenset({"t:1"})),
        GoldMention(mention=Mention(text="b"), concept_ids=frozenset()),
        GoldMention(mention=Mention(text="c"), concept_ids=frozenset({"t:9"})),
    ]
    evidence = [np.arange(3.0)] * 2 + [np.empty(0)]
    found = judge(gold, [candidates, candidates, ()], evidence)
    assert found[0].gold.tolist() == [False, True, False]
    assert found[0].retrieval.tolist() == [1, 0.875, 0.75]
    assert not found[1].gold.any()
    assert found[2].gold.shape == (0,)
    assert [item.group for item in found] == ["d", "mention 1", "mention 2"]


def test_an_artifact_brings_the_calibration_back(tmp_path):
    config = CalibrationConfig(method="isotonic", precision=0.8)
    judged = made(300)
    built = build_calibration(tmp_path / "c", judged, config=config, binding=BINDING)
    fitted, figures = fit(judged, config)
    opened = open_calibration(tmp_path / "c", binding=BINDING)
    assert opened == built
    assert (opened.weights, opened.curve, opened.nil_threshold) == (
        fitted.weights,
        fitted.curve,
        fitted.nil_threshold,
    )
    assert opened.fingerprint.startswith("sha256:")
    manifest = open_artifact(tmp_path / "c", "calibration").manifest
    assert manifest.inputs == BINDING
    assert manifest.counts == figures
    assert manifest.config == config.model_dump()


@pytest.mark.parametrize("role", BINDING)
def test_a_calibration_of_other_scores_is_refused(tmp_path, role):
    build_calibration(tmp_path / "c", made(60), config=CalibrationConfig(), binding=BINDING)
    with pytest.raises(ArtifactMismatch, match=f"was fitted with {role} {BINDING[role]}, here it"):
        open_calibration(tmp_path / "c", binding=BINDING | {role: "other"})


def test_a_missing_or_damaged_calibration_is_refused(tmp_path):
    with pytest.raises(ArtifactNotFound):
        open_calibration(tmp_path / "c", binding=BINDING)
    build_calibration(tmp_path / "c", made(60), config=CalibrationConfig(), binding=BINDING)
    file = tmp_path / "c" / FILE
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"ranker": stored["ranker"] + 1}))
    with pytest.raises(ArtifactCorrupt):
        open_calibration(tmp_path / "c", binding=BINDING)


def test_log_odds_of_the_curve_are_those_of_its_points():
    calibration = Calibration(weights=Weights(ranker=1.0, retrieval=0.0), curve=((0.0, 1.0),))
    assert logit(calibration.chances(np.array([0.3]), np.zeros(1))) == pytest.approx([1.3])
