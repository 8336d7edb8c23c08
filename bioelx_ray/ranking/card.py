"""What a prompt says of a candidate: name, semantic types, aliases, definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain

from bioelx_ray.config_ranking import PromptConfig
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.ranking.plain import Plain
from bioelx_ray.ranking.template import CardParts, fill
from bioelx_ray.ranking.window import Count, abridged
from bioelx_ray.records import Alias, Candidate

Cards = Callable[[Candidate, str], str]
"""A candidate and the mention's language -> the candidate's card, one line of plain text."""

_ENGLISH = "en"
_KEPT = 65_536
_ALIAS_CODE_POINTS = 120
"""A longer alias is a sentence: it would crowd out the others."""


def card_maker(
    kb: KnowledgeBase, *, parts: CardParts, config: PromptConfig, count: Count, plain: Plain
) -> Cards:
    """Cards from a knowledge base, at most `config.card_tokens` long; the last used are kept.

    The aliases are the one that matched, then those in the mention's language, then the English
    ones, each only if it differs from the name and the others. What does not fit is cut from the
    end: the definition first, the name last. A card raises InputError if the knowledge base lacks
    the concept.
    """

    @lru_cache(maxsize=_KEPT)
    def made(concept_id: str, matched: str, lang: str) -> str:
        concept = kb.concept(concept_id)
        near = near_aliases(
            kb.aliases_of(concept_id), lang, name=concept.name, limit=config.aliases
        )
        names = _distinct(concept.name, chain([matched], near) if config.aliases else ())
        values = {
            "name": concept.name,
            "types": ", ".join(concept.semantic_types),
            "aliases": "; ".join(names),
            "definition": concept.definition or "",
        }
        values = {key: plain(value) for key, value in values.items()}
        filled = (fill(part, values) for key, part in parts if values[key])
        return abridged("".join(filled), config.card_tokens, count=count)

    def card(candidate: Candidate, lang: str) -> str:
        return made(candidate.concept_id, candidate.alias, lang)

    return card


def near_aliases(aliases: Iterable[Alias], lang: str, *, name: str, limit: int) -> Iterator[str]:
    """Aliases in a language, then in English, `limit` of each, preferred ones first.

    Those with the form of the name are passed over, and those too long to be a name.
    """
    form = normalise(name)
    short = [
        alias
        for alias in aliases
        if len(alias.text) <= _ALIAS_CODE_POINTS and normalise(alias.text) != form
    ]
    short.sort(key=lambda alias: not alias.preferred)
    for tag in dict.fromkeys([_primary(lang), _ENGLISH]):
        texts = [alias.text for alias in short if _primary(alias.lang) == tag]
        yield from texts[:limit]


def _primary(lang: str) -> str:
    return lang.partition("-")[0]


def _distinct(name: str, others: Iterable[str]) -> list[str]:
    """Those that differ from a name and from each other, in their order."""
    seen = {normalise(name), ""}
    found = []
    for text in others:
        form = normalise(text)
        if form not in seen:
            found.append(text)
        seen.add(form)
    return found
