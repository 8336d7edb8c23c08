"""From log-probabilities to scores."""

import asyncio
import math
import re

import numpy as np
import pytest

from bioelx_ray.config_ranking import PromptConfig, ScoringConfig
from bioelx_ray.errors import EngineError
from bioelx_ray.ranking.asking import Asked, _deal, ask_listwise, ask_pointwise
from bioelx_ray.ranking.engine import Answered
from bioelx_ray.ranking.prompt import LETTERS, Prompts
from bioelx_ray.ranking.scoring import (
    LIMIT,
    behind,
    grouped,
    listwise_scores,
    pointwise_scores,
    rotations,
)
from bioelx_ray.ranking.template import open_template
from bioelx_ray.records import Candidate, Mention
from bioelx_ray.testing import ScriptedEngine
from tests.unit.test_negatives import made_kb

INF = np.inf


def heard(*rows, exact=True):
    values = np.array(rows, dtype=np.float64)
    return Answered(logprobs=values, exact=np.broadcast_to(exact, values.shape))


def test_spellings_are_added_up():
    found = grouped(
        heard([np.log(0.2), np.log(0.3), -INF, np.log(0.1)]), [("yes", " yes", "YES"), ("no",)]
    )
    assert np.exp(found) == pytest.approx(np.array([[0.5, 0.1]]))
    assert pointwise_scores(found) == pytest.approx([np.log(5)])


def test_a_missing_answer_is_bounded_and_never_added_to_what_was_heard():
    answered = heard([-1.0, -6.0, -6.0], exact=[True, False, False])
    found = grouped(answered, [("yes", " yes"), ("no",)])
    assert found.tolist() == [[-1.0, -6.0]]  # no is at most e^-6: the score is at least 5
    nothing = grouped(heard([-6.0, -6.0, -6.0], exact=False), [("yes", " yes"), ("no",)])
    assert pointwise_scores(nothing).tolist() == [0.0]


def test_a_bound_never_overstates_a_score():
    rng = np.random.default_rng(0)
    for _ in range(300):
        true = np.log(rng.dirichlet(np.full(30, 0.3)) + 1e-12)
        kept = np.sort(true)[-5]
        left = math.log(max(1e-6, 1 - np.exp(true[true >= kept]).sum()) + 1e-6)
        bounded = np.where(true >= kept, true, min(kept, left))
        answered = Answered(logprobs=bounded[None, :2], exact=(true >= kept)[None, :2])
        score = pointwise_scores(grouped(answered, [("yes",), ("no",)]))[0]
        wanted = np.clip(true[0] - true[1], -LIMIT, LIMIT)
        assert abs(score) <= abs(wanted) + 1e-6
        assert score * wanted >= 0 or abs(score) < 1e-6


def test_answers_that_are_no_token_are_an_error():
    with pytest.raises(EngineError, match="none of 'ja', ' ja' is a single token"):
        grouped(heard([-INF, -INF, -1.0]), [("ja", " ja"), ("nein",)])


def test_scores_are_finite_whatever_is_heard():
    found = pointwise_scores(grouped(heard([-9999.0, -9999.0], [0, -1e300]), [("yes",), ("no",)]))
    assert found.tolist() == [0.0, LIMIT]
    assert grouped(Answered(np.empty((0, 2)), np.ones((0, 2), bool)), [("a",), ("b",)]).shape == (
        0,
        2,
    )


@pytest.mark.parametrize("options", [2, 3, 9, 20])
@pytest.mark.parametrize("wanted", [1, 2, 3, 20])
def test_rotations_put_every_option_at_each_place_once(options, wanted):
    orders = rotations(options, wanted)
    assert len(orders) == min(options, wanted)
    assert orders[0] == list(range(options))
    for order in orders:
        assert sorted(order) == list(range(options))
    for places in zip(*orders, strict=True):
        assert len(set(places)) == len(orders)


def test_whole_rotations_remove_any_bias_of_place():
    rng = np.random.default_rng(0)
    true, bias = rng.normal(size=6), rng.normal(size=6) * 10
    orders = rotations(6, 20)
    letters = np.array(
        [[true[option] + bias[place] for place, option in enumerate(o)] for o in orders]
    )
    found = listwise_scores(letters, orders, bias=np.zeros(6))
    assert found == pytest.approx(true[:-1] - true[-1])
    once = listwise_scores(letters[:1], orders[:1], bias=np.zeros(6))
    assert once != pytest.approx(true[:-1] - true[-1])
    assert listwise_scores(letters[:1], orders[:1], bias=bias) == pytest.approx(
        true[:-1] - true[-1]
    )


def test_what_was_not_asked_comes_behind():
    known = np.array([True, True, False])
    assert behind(np.array([1.0, -2.0, 0.0]), known).tolist() == [1.0, -2.0, -2.0]
    assert behind(np.zeros(2), np.zeros(2, bool)).tolist() == [0.0, 0.0]


SIZE = 64


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    rows = [(f"t:{n:02}", "en", f"name {n:02}") for n in range(SIZE)]
    return made_kb(tmp_path_factory.mktemp("kb") / "kb", rows)


def asked(n, text="the mention"):
    candidates = tuple(
        Candidate(concept_id=f"t:{i:02}", alias=f"name {i:02}", lang="en", source="s", score=1.0)
        for i in range(n)
    )
    return Asked(mention=Mention(text=text, lang="en"), candidates=candidates)


class Judge:
    """Answers lists as if each name had a true score, and each place a bias."""

    def __init__(self, true, *, nil=0.0, bias=0.0):
        self.true, self.nil, self.bias = true, nil, bias
        self.engine = ScriptedEngine(self.answer)

    def answer(self, text):
        lines = re.findall(r"^([A-T])\. (.*)$", text, flags=re.MULTILINE)
        values = {}
        for place, (letter, line) in enumerate(lines):
            number = re.search(r"t:(\d+)|name (\d+)", line)
            value = self.nil if number is None else self.true[int(number[1] or number[2])]
            value = 0.0 if line == "N/A" else value
            values[letter] = value - 30 + self.bias * place
            values[f" {letter}"] = -np.inf
        return values


def run(judge, kb, items, **settings):
    config = ScoringConfig(**settings)
    prompts = Prompts(
        open_template("listwise"),
        kb,
        engine=judge.engine,
        config=PromptConfig(template="listwise"),
    )
    return asyncio.run(ask_listwise(judge.engine.logprobs, prompts, items, config=config))


def test_the_list_gives_log_odds_against_none(kb):
    judge = Judge([1.0, 5.0, -2.0], nil=2.0)
    (scores,) = run(judge, kb, [asked(3)], rotations=1, content_free=False)
    assert scores == pytest.approx([-1.0, 3.0, -4.0])


@pytest.mark.parametrize("settings", [{"rotations": 1, "content_free": True}, {"rotations": 20}])
def test_bias_of_place_is_removed_by_either_way(kb, settings):
    judge = Judge([1.0, 5.0, -2.0, 0.5], nil=2.0, bias=3.0)
    (scores,) = run(judge, kb, [asked(4)], **settings)
    assert scores == pytest.approx([-1.0, 3.0, -4.0, -1.5])
    (biased,) = run(judge, kb, [asked(4)], rotations=1, content_free=False)
    assert biased != pytest.approx([-1.0, 3.0, -4.0, -1.5])


@pytest.mark.parametrize("chunk", [2, 3, 8, 19])
def test_the_best_of_64_wins_whatever_the_chunk(kb, chunk):
    true = np.random.default_rng(chunk).permutation(np.linspace(-9, 9, SIZE))
    judge = Judge(true)
    items = [asked(SIZE), asked(5, "another"), asked(1), asked(chunk), asked(chunk + 1)]
    found = run(judge, kb, items, chunk=chunk, rotations=2)
    for item, scores in zip(items, found, strict=True):
        n = len(item.candidates)
        assert len(scores) == n
        assert int(scores.argmax()) == int(true[:n].argmax())
        assert scores[scores.argmax()] == pytest.approx(true[:n].max())
        # whoever lost a round is not above one that went on
        assert (scores <= true[:n] + 1e-6).all()
    for text in judge.engine.asked:
        assert len(re.findall(r"^[A-T]\. ", text, flags=re.MULTILINE)) <= chunk + 1


def test_losers_score_at_most_what_the_least_winner_does(kb):
    # a strong first hand: its losers are better than the best of the others
    true = np.array([40.0 if n % 8 == 0 else 0.0 for n in range(SIZE)]) + np.arange(SIZE) / 100
    (scores,) = run(Judge(true), kb, [asked(SIZE)], chunk=8, rotations=1, content_free=False)
    finalists = set(range(56, 64))
    assert {n: scores[n] for n in finalists} == pytest.approx(
        {n: min(true[n], LIMIT) for n in finalists}
    )
    assert (
        max(scores[n] for n in range(SIZE) if n not in finalists) <= scores[list(finalists)].min()
    )


def test_dealing_spreads_the_retrievers_first():
    hands = _deal(range(20), 8)
    assert [hand[0] for hand in hands] == [0, 1, 2]
    assert sorted(n for hand in hands for n in hand) == list(range(20))
    assert max(map(len, hands)) <= 8


def test_pointwise_questions_are_asked_once_and_in_order(kb):
    names = iter(range(1000))
    engine = ScriptedEngine(lambda _: {"yes": -float(next(names)) - 1, "no": -1.0})
    prompts = Prompts(
        open_template("qwen3-reranker"), kb, engine=engine, config=PromptConfig(card_tokens=300)
    )
    items = [asked(3), asked(2, "other"), asked(3)]
    found = asyncio.run(ask_pointwise(engine.logprobs, prompts, items))
    assert [len(scores) for scores in found] == [3, 2, 3]
    assert found[0].tolist() == found[2].tolist()
    assert len(engine.asked) == 5
    assert (np.diff(np.concatenate(found[:2])) < 0).all()
    contexts = [re.search("<Query>: (.*)\n", text)[1] for text in engine.asked]
    assert len(dict.fromkeys(contexts)) == 2
    assert contexts == sorted(contexts, key=contexts.index)


def test_letters_are_enough():
    assert len(LETTERS) == len(set(LETTERS)) == 20
