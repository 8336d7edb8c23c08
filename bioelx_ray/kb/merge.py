"""Several sources into one knowledge base."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias, Concept


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Concepts by id; aliases by concept id, language and text.

    `unified` concepts went into another that lists their id as an xref. `ambiguous_xrefs` did not,
    since several list it. `ambiguous_forms` are the normalised forms that name several concepts in
    one language.
    """

    concepts: list[Concept]
    aliases: list[Alias]
    unified: int
    ambiguous_xrefs: int
    ambiguous_forms: int


def merge(streams: Iterable[Iterable[Concept | Alias]], *, unify: bool = True) -> Merged:
    """Join the streams of several sources, the most trusted first.

    A concept of several sources keeps its first name and definition and has all their types and
    xrefs. Of aliases that are alike in concept, language and normalised form the first is kept,
    preferred if any of them is.

    `unify` joins vocabularies: a concept whose id exactly one other concept lists as an xref goes
    into that one, whose name and id stay. Where several list it nothing tells which it is, and it
    stays on its own.

    Raises:
        InputError: an alias of a concept that no source gives.
    """
    concepts: dict[str, Concept] = {}
    aliases: list[Alias] = []
    for record in chain.from_iterable(streams):
        if isinstance(record, Alias):
            aliases.append(record)
        else:
            known = concepts.get(record.id)
            concepts[record.id] = _joined(known, record) if known else record
    _check_known(aliases, concepts)
    homes, ambiguous_xrefs = _homes(concepts) if unify else ({}, 0)
    for id_, home in sorted(homes.items()):
        concepts[home] = _joined(concepts[home], concepts.pop(id_))
    distinct = _distinct(aliases, homes)
    forms = Counter((lang, form) for _, lang, form in distinct)
    return Merged(
        concepts=sorted(concepts.values(), key=lambda c: c.id),
        aliases=sorted(distinct.values(), key=lambda a: (a.concept_id, a.lang, a.text)),
        unified=len(homes),
        ambiguous_xrefs=ambiguous_xrefs,
        ambiguous_forms=sum(n > 1 for n in forms.values()),
    )


def _joined(first: Concept, second: Concept) -> Concept:
    xrefs = dict.fromkeys((*first.xrefs, second.id, *second.xrefs))
    xrefs.pop(first.id, None)
    return replace(
        first,
        definition=first.definition or second.definition,
        semantic_types=tuple(dict.fromkeys(first.semantic_types + second.semantic_types)),
        xrefs=tuple(xrefs),
    )


def _check_known(aliases: list[Alias], concepts: dict[str, Concept]) -> None:
    for alias in aliases:
        if alias.concept_id not in concepts:
            raise InputError(
                f"alias {alias.text!r} of {alias.source} names {alias.concept_id}, "
                "which no source gives as a concept; add the source that does"
            )


def _homes(concepts: dict[str, Concept]) -> tuple[dict[str, str], int]:
    """Which concept goes into which, and how many stay because several list them."""
    listed_by: defaultdict[str, set[str]] = defaultdict(set)
    for concept in concepts.values():
        for xref in concept.xrefs:
            if xref in concepts and xref != concept.id:
                listed_by[xref].add(concept.id)
    lister = {id_: next(iter(ids)) for id_, ids in listed_by.items() if len(ids) == 1}
    order = {id_: place for place, id_ in enumerate(concepts)}
    homes = {id_: _last(id_, lister, order) for id_ in lister}
    moved = {id_: home for id_, home in homes.items() if id_ != home}
    return moved, len(listed_by) - len(lister)


def _last(id_: str, lister: dict[str, str], order: dict[str, int]) -> str:
    """The end of the chain of listers; of concepts that list each other the first one read."""
    path = [id_]
    while (above := lister.get(path[-1])) is not None:
        if above in path:
            return min(path[path.index(above) :], key=order.__getitem__)
        path.append(above)
    return path[-1]


def _distinct(aliases: Iterable[Alias], homes: dict[str, str]) -> dict[tuple[str, str, str], Alias]:
    """The aliases to keep, by concept id, language and normalised form."""
    kept: dict[tuple[str, str, str], Alias] = {}
    for alias in aliases:
        home = homes.get(alias.concept_id, alias.concept_id)
        key = (home, alias.lang, normalise(alias.text, alias.lang))
        known = kept.get(key)
        if known is None:
            kept[key] = alias if home == alias.concept_id else replace(alias, concept_id=home)
        elif alias.preferred and not known.preferred:
            kept[key] = replace(known, preferred=True)
    return kept
