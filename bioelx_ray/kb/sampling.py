"""Which pairs of a concept's aliases to train on, where there are more than are wanted.

SapBERT (Liu et al. 2021, arXiv 2010.11784) takes all pairs of a concept's English synonyms, at most
50 a concept. Here a concept has many languages, and drawn evenly nearly every pair would be of the
few languages that most aliases are in. So:

1. Every language of the concept is in one pair at least, the rarest first.
2. Cross-lingual pairs come before monolingual ones, which only fill up.
3. Of more pairs than are wanted these are drawn: one side by the weight of its language, the other
   evenly among its partners. (With rare languages on both sides most pairs would join two of them,
   and few the one that a mention is in to the one that a dictionary is in.)

The weight of an alias is (n of the most frequent language / n of its own) ** 0.5, with n aliases in
the knowledge base. That makes a language's share p of the draws proportional to p ** 0.5, which is
how multilingual pre-training is tempered (mBERT 0.7, XLM 0.5, XLM-R 0.3). It is 10 at most, for a
language of three aliases must not have these three repeated in every pair of their concepts.

A language is the primary subtag of its tag: pt and pt-BR are one. ``und`` and ``mul`` count as
languages of their own. A form that several languages write alike belongs to all of them, so that a
pair is cross-lingual only where no language has both of its forms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, combinations
from math import isqrt
from random import Random

from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias, SynonymPair

EXPONENT = 0.5
MAX_WEIGHT = 10.0

_Form = dict[str, Alias]
"""A form's alias in each language that has it."""


def primary(tag: str) -> str:
    """The language of a BCP 47 tag, without script and region."""
    return tag.partition("-")[0]


def is_cross_lingual(pair: SynonymPair) -> bool:
    """Whether the sides are in two languages."""
    return primary(pair.left_lang) != primary(pair.right_lang)


def language_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """The weight of an alias by language: 1 for the most frequent, `MAX_WEIGHT` at most.

    Args:
        counts: the number of aliases by tag.
    """
    totals: Counter[str] = Counter()
    for tag, n in counts.items():
        totals[primary(tag)] += n
    most = max(totals.values(), default=0)
    return {lang: min(MAX_WEIGHT, (most / n) ** EXPONENT) for lang, n in sorted(totals.items())}


def sample_pairs(
    aliases: Sequence[Alias],
    *,
    per_concept: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
) -> list[SynonymPair]:
    """At most `per_concept` pairs of one concept's aliases; ambiguous ones are left out.

    No two pairs have the same two normalised forms, and no pair has one form twice. A form stands
    as its rarest language writes it, in a monolingual pair as the rarest that has both does. Which
    stands left is drawn.

    The pairs depend on the aliases (in any order), the seed, the concept's id and the weights
    alone. Time and memory grow with the aliases and the square of the *sets of languages* that
    share a form, not with the square of the aliases.

    Args:
        aliases: those of one concept.
        per_concept: the most pairs to give.
        seed: of the draws.
        weights: see `language_weights`; a language without one has 1.
    """
    forms = _forms(alias for alias in aliases if not alias.ambiguous)
    if len(forms) < 2:
        return []
    weigh = weights or {}
    concept_id = aliases[0].concept_id
    key = blake2b(f"{seed}\0{concept_id}".encode(), digest_size=8).digest()
    # Not for secrets: the generator is to give the same pairs everywhere.
    rng = Random(int.from_bytes(key))
    if len(forms) * (len(forms) - 1) // 2 <= per_concept:
        drawn: Iterable[tuple[_Form, _Form]] = combinations(forms, 2)
    else:
        drawn = _draw(_groups(forms, weigh), weigh, number=per_concept, rng=rng)
    return [_pair(one, other, weigh, rng=rng) for one, other in drawn]


def _forms(aliases: Iterable[Alias]) -> list[_Form]:
    found: dict[str, _Form] = {}
    for alias in sorted(aliases, key=lambda alias: (alias.lang, alias.text)):
        form = normalise(alias.text, alias.lang)
        if form:
            found.setdefault(form, {}).setdefault(primary(alias.lang), alias)
    return [found[form] for form in sorted(found)]


def _rarest(langs: Collection[str], weights: Mapping[str, float]) -> str:
    if len(langs) == 1:
        return next(iter(langs))
    return min(langs, key=lambda lang: (-weights.get(lang, 1.0), lang))


def _pair(one: _Form, other: _Form, weights: Mapping[str, float], *, rng: Random) -> SynonymPair:
    if rng.random() < 0.5:
        one, other = other, one
    shared = one.keys() & other.keys()
    left = one[_rarest(shared or one.keys(), weights)]
    right = other[_rarest(shared or other.keys(), weights)]
    return SynonymPair(
        concept_id=left.concept_id,
        left=left.text,
        right=right.text,
        left_lang=left.lang,
        right_lang=right.lang,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The forms that the same languages have, with the weight of the rarest of these."""

    at: int
    langs: frozenset[str]
    forms: list[_Form]
    weight: float


@dataclass(slots=True)
class _Block:
    """All pairs of a form of one group and one of another, or of two of the same: counted only.

    A pair is a number below `size`. `taken` of them are to be drawn; `weight` is that of the whole.
    """

    one: _Group
    other: _Group
    langs: frozenset[str]
    size: int
    weight: float = 0.0
    taken: int = 0

    def pair(self, number: int) -> tuple[_Form, _Form]:
        """The pair of a number; in a group with itself they run (0, 1), (0, 2), (1, 2), (0, 3)."""
        if self.one is self.other:
            right = (1 + isqrt(1 + 8 * number)) // 2
            return self.one.forms[number - right * (right - 1) // 2], self.one.forms[right]
        left, right = divmod(number, len(self.other.forms))
        return self.one.forms[left], self.other.forms[right]


def _groups(forms: Iterable[_Form], weights: Mapping[str, float]) -> list[_Group]:
    alike: dict[tuple[str, ...], list[_Form]] = {}
    for form in forms:
        alike.setdefault(tuple(sorted(form)), []).append(form)
    return [
        _Group(
            at=at,
            langs=frozenset(langs),
            forms=alike[langs],
            weight=weights.get(_rarest(langs, weights), 1.0),
        )
        for at, langs in enumerate(sorted(alike))
    ]


def _draw(
    groups: Sequence[_Group], weights: Mapping[str, float], *, number: int, rng: Random
) -> Iterator[tuple[_Form, _Form]]:
    cross, mono = _blocks(groups)
    left = _cover(cross, mono, weights, number=number, rng=rng)
    left = _fill(cross, left, rng=rng)
    _fill(mono, left, rng=rng)
    for block in chain(cross, mono):
        for drawn in rng.sample(range(block.size), block.taken):
            yield block.pair(drawn)


def _blocks(groups: Sequence[_Group]) -> tuple[list[_Block], list[_Block]]:
    """The blocks of cross-lingual pairs, and those of monolingual ones."""
    cross: list[_Block] = []
    mono: list[_Block] = []
    for one in groups:
        for other in groups[one.at :]:
            size = len(one.forms) * len(other.forms)
            if one is other:
                size = len(one.forms) * (len(one.forms) - 1) // 2
            kind = cross if one.langs.isdisjoint(other.langs) else mono
            if size:
                kind.append(_Block(one, other, one.langs | other.langs, size))
    _weigh(cross)
    _weigh(mono)
    return cross, mono


def _weigh(blocks: Sequence[_Block]) -> None:
    """A pair's weight is its sides' weights, each divided by the number of that form's partners."""
    partners: Counter[int] = Counter()
    for block in blocks:
        partners[block.one.at] += len(block.other.forms) - (block.one is block.other)
        if block.one is not block.other:
            partners[block.other.at] += len(block.one.forms)
    for block in blocks:
        one, other = block.one, block.other
        block.weight = block.size * (
            one.weight / partners[one.at] + other.weight / partners[other.at]
        )


def _cover(
    cross: Sequence[_Block],
    mono: Sequence[_Block],
    weights: Mapping[str, float],
    *,
    number: int,
    rng: Random,
) -> int:
    """Take a pair for every language, of other languages where it can; give how many are left.

    Where the pairs do not suffice for one a language, a pair serves two that have none yet.
    """
    reaching: dict[str, list[_Block]] = {}
    for blocks in (cross, mono):
        known = frozenset(reaching)
        for block in blocks:
            for lang in block.langs - known:
                reaching.setdefault(lang, []).append(block)
    missing = set(reaching)
    for lang in sorted(reaching, key=lambda lang: (-weights.get(lang, 1.0), lang)):
        if lang not in missing or not number:
            continue
        fitting = reaching[lang]
        if len(missing) > number:
            most = max(len(block.langs & missing) for block in fitting)
            fitting = [block for block in fitting if len(block.langs & missing) == most]
        (block,) = rng.choices(fitting, [block.weight for block in fitting])
        block.taken += 1
        missing -= block.langs
        number -= 1
    return number


def _fill(blocks: Sequence[_Block], number: int, *, rng: Random) -> int:
    """Take so many more pairs of the blocks, as far as they go; give how many are left."""
    free = [block for block in blocks if block.taken < block.size]
    while number and free:
        for block in rng.choices(free, [block.weight for block in free], k=number):
            # What falls on a full block is drawn again, as if the block had not been there.
            if block.taken < block.size:
                block.taken += 1
                number -= 1
        free = [block for block in free if block.taken < block.size]
    return number
