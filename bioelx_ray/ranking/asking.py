"""Candidates -> scores by asking an engine, pointwise or in lists.

All mentions of a batch are asked about together, so that the engine's batches are full. The prompts
of a mention follow each other, and mentions come by document and place, so that what the prompts
begin with is found in the engine's prefix cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bioelx_ray.config_ranking import ScoringConfig
from bioelx_ray.ranking.engine import Answered, Prompt
from bioelx_ray.ranking.prompt import LETTERS, Prompts
from bioelx_ray.ranking.scoring import (
    Values,
    grouped,
    listwise_scores,
    pointwise_scores,
    rotations,
)
from bioelx_ray.records import Candidate, Mention

Ask = Callable[[Sequence[Prompt], Sequence[str]], Awaitable[Answered]]
"""Prompts and answers -> log-probabilities: an engine with its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A mention and the candidates to score, at least one."""

    mention: Mention
    candidates: tuple[Candidate, ...]


async def ask_pointwise(ask: Ask, prompts: Prompts, asked: Sequence[Asked]) -> list[Values]:
    """The scores of each mention's candidates, float64 [candidates], one question a candidate.

    Raises:
        EngineError: see `Engine.logprobs`.
    """
    questions: list[Prompt] = []
    for item in asked:
        subject = prompts.subject(item.mention)
        questions += [prompts.pointwise(subject, c, item.mention.lang) for c in item.candidates]
    groups = [prompts.template.body.yes, prompts.template.body.no]
    scores = pointwise_scores(await _ask_once(ask, questions, groups))
    ends = np.cumsum([len(item.candidates) for item in asked])
    return np.split(scores, ends[:-1])


async def _ask_once(
    ask: Ask, questions: Sequence[Prompt], groups: Sequence[Sequence[str]]
) -> Values:
    """Log-probabilities [questions, groups]; the same question is asked only once."""
    distinct = {question: row for row, question in enumerate(dict.fromkeys(questions))}
    answers = [spelling for group in groups for spelling in group]
    values = grouped(await ask(list(distinct), answers), groups)
    return values[[distinct[question] for question in questions]]


@dataclass(slots=True)
class _Contest:
    """The rounds of one mention's candidates."""

    subject: dict[str, str]
    cards: list[str]
    left: list[int]
    scores: Values
    rounds: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Of each round but the last who went on and who did not."""


async def ask_listwise(
    ask: Ask, prompts: Prompts, asked: Sequence[Asked], *, config: ScoringConfig
) -> list[Values]:
    """The scores of each mention's candidates, float64 [candidates], from lists of options.

    More than `config.chunk` candidates are dealt out into lists of that size; the best of each list
    meet again, until one list holds them. Who is left out on the way scores at most what the least
    of those that went on does.

    Raises:
        EngineError: see `Engine.logprobs`.
    """
    contests = [_contest(prompts, item) for item in asked]
    active = contests
    while active:
        lists = [(c, dealt) for c in active for dealt in _deal(c.left, config.chunk)]
        for (contest, members), scores in zip(
            lists, await _score_lists(ask, prompts, lists, config=config), strict=True
        ):
            contest.scores[members] = scores
        active = [c for c in active if _goes_on(c, chunk=config.chunk)]
    return [_settled(contest) for contest in contests]


def _contest(prompts: Prompts, item: Asked) -> _Contest:
    cards = [prompts.card(candidate, item.mention.lang) for candidate in item.candidates]
    return _Contest(
        subject=prompts.subject(item.mention),
        cards=cards,
        left=list(range(len(cards))),
        scores=np.zeros(len(cards)),
    )


def _deal(members: Sequence[int], chunk: int) -> list[list[int]]:
    """Members dealt like cards into as few lists as hold them.

    The retriever's first ones come into different lists, and do not throw each other out.
    """
    hands = -(-len(members) // chunk)
    return [list(members[hand::hands]) for hand in range(hands)]


def _goes_on(contest: _Contest, *, chunk: int) -> bool:
    """Whether another round is needed, and who is in it: the best of each list, in their order."""
    hands = _deal(contest.left, chunk)
    if len(hands) == 1:
        return False
    share = max(1, chunk // len(hands))
    best = {
        member
        for hand in hands
        for member in sorted(hand, key=lambda m: (-contest.scores[m], m))[:share]
    }
    contest.rounds.append(
        ([m for m in contest.left if m in best], [m for m in contest.left if m not in best])
    )
    contest.left = contest.rounds[-1][0]
    return True


def _settled(contest: _Contest) -> Values:
    for winners, losers in reversed(contest.rounds):
        if losers:
            least = contest.scores[winners].min()
            contest.scores[losers] = np.minimum(contest.scores[losers], least)
    return contest.scores


async def _score_lists(
    ask: Ask,
    prompts: Prompts,
    lists: Sequence[tuple[_Contest, list[int]]],
    *,
    config: ScoringConfig,
) -> list[Values]:
    """The scores of each list's members, in the order of the members."""
    orders = [rotations(len(members) + 1, config.rotations) for _, members in lists]
    questions: list[Prompt] = []
    for (contest, members), turns in zip(lists, orders, strict=True):
        options = [*(contest.cards[member] for member in members), prompts.template.body.none]
        questions += [
            prompts.listwise(contest.subject, [options[option] for option in order])
            for order in turns
        ]
    sizes = sorted({len(members) + 1 for _, members in lists})
    blanks = [prompts.blank(size) for size in sizes] if config.content_free else []
    groups = [(letter, f" {letter}") for letter in LETTERS[: sizes[-1]]]
    values = await _ask_once(ask, [*questions, *blanks], groups)
    bias = {
        size: row[:size] for size, row in zip(sizes, values[len(questions) :], strict=bool(blanks))
    }
    return _read_lists(values, orders, bias)


def _read_lists(
    values: Values, orders: Sequence[Sequence[Sequence[int]]], bias: dict[int, Values]
) -> list[Values]:
    scores, start = [], 0
    for turns in orders:
        size = len(turns[0])
        rows = values[start : start + len(turns), :size]
        start += len(turns)
        scores.append(listwise_scores(rows, turns, bias=bias.get(size, np.zeros(size))))
    return scores
