"""Which test mentions a model has been trained on, and which its dictionary holds.

A mention leaks where its text is an alias: *verbatim*, the same code points, or *normalised*, the
same form (verbatim leaks count here too). It does so for its *gold* concept, which gives the answer
away, or for *any* concept. The dictionary may know a mention, for searching it is what it is for;
training may not, so the list of what is found can be left out of the pairs (`kb.exclusion`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import pyarrow as pa

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.errors import InputError
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import GoldMention

Where = Literal["dictionary", "training"]
Of = Literal["gold", "any"]
Match = Literal["verbatim", "normalised"]
Way = tuple[Where, Of, Match]
"""A way to leak: where, for which concept, and how alike."""

_OF: tuple[Of, ...] = ("gold", "any")
_MATCHES: tuple[Match, ...] = ("verbatim", "normalised")

_COLUMNS = ("concept_id", "text", "lang")
_ROWS = 1 << 16

Progress = Callable[[str, int, int], None]
"""Told the step, and how much of it is done and in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A mention's text that is an alias of `concept_id`.

    `gold` are the annotators' ids, in order; with them those that replace a retired one, and those
    of concepts that list one as an xref, of whatever kind: rather a mention too many than a leak.
    """

    key: str
    text: str
    form: str
    gold: tuple[str, ...]
    where: Where
    match: Match
    concept_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How many of the `n` mentions of a key leak; `n_in_kb` have gold in the knowledge base."""

    key: str
    n: int
    n_in_kb: int
    found: Mapping[Way, int]

    def share(self, way: Way) -> float:
        """The share of the mentions, from 0 to 1; NaN without mentions."""
        return self.found[way] / self.n if self.n else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """The rows by key, and each distinct leak once: by key and text, dictionary first.

    A verbatim leak is not listed as a normalised one again. `places` are where was looked.
    """

    rows: tuple[Row, ...]
    leaks: tuple[Leak, ...]
    places: tuple[Where, ...]

    def ways(self) -> list[Way]:
        """The ways that were looked at, in the order of a table's columns."""
        return _ways(self.places)

    def mean(self, way: Way) -> float:
        """The unweighted mean of the keys' shares; keys without mentions do not count."""
        shares = [row.share(way) for row in self.rows if row.n]
        return sum(shares) / len(shares)


def _ways(places: Iterable[Where]) -> list[Way]:
    return [(where, of, match) for where in places for of in _OF for match in _MATCHES]


def find_leaks(
    gold: Mapping[str, Sequence[GoldMention]],
    kb: KnowledgeBase,
    pairs: Path | None = None,
    *,
    progress: Progress = lambda *_: None,
) -> Leaks:
    """Look for the mentions of a benchmark in a dictionary, and in the pairs trained on if given.

    Memory holds the mentions and what is found; aliases and pairs are read once, in batches.

    Raises:
        ArtifactError: `pairs` is no sound artifact of that kind.
        InputError: there are no mentions.
    """
    items = [item for found in gold.values() for item in found]
    if not items:
        raise InputError("no gold mentions to look for")
    sought: dict[Where, _Sought] = {"dictionary": _Sought(items)}
    sought["dictionary"].read(_aliases(kb, progress))
    if pairs is not None:
        sought["training"] = _Sought(items)
        sought["training"].read(_sides(pairs, progress))

    @cache
    def meant(ids: frozenset[str]) -> tuple[str, ...]:
        retired = [found for id_ in ids if (found := kb.retired(id_))]
        current = ids.union(found.replaced_by for found in retired if found.replaced_by)
        return tuple(sorted(current.union(*(kb.by_xref(id_) for id_ in current))))

    found = {
        key: [_look(item, meant(item.concept_ids), sought) for item in mentions]
        for key, mentions in gold.items()
    }
    return Leaks(
        rows=tuple(
            Row(
                key=key,
                n=len(looked),
                n_in_kb=sum(any(id_ in kb for id_ in one.gold) for one in looked),
                found=_count(looked, sought),
            )
            for key, looked in found.items()
        ),
        leaks=tuple(leak for key, looked in found.items() for leak in _list(key, looked)),
        places=tuple(sought),
    )


class _Sought:
    """The texts and forms of mentions, each with the concepts that they turn out to name."""

    def __init__(self, items: Iterable[GoldMention]) -> None:
        mentions = [item.mention for item in items]
        self.texts: dict[str, set[str]] = {mention.text: set() for mention in mentions}
        self.forms: dict[str, set[str]] = {
            normalise(mention.text, mention.lang): set() for mention in mentions
        }
        self.forms.pop("", None)

    def read(self, batches: Iterable[pa.RecordBatch | pa.Table]) -> None:
        """Note the concepts of aliases that were sought."""
        for batch in batches:
            columns = [batch.column(name).to_pylist() for name in _COLUMNS]
            for concept_id, text, lang in zip(*columns, strict=True):
                if (named := self.texts.get(text)) is not None:
                    named.add(concept_id)
                if (named := self.forms.get(normalise(text, lang))) is not None:
                    named.add(concept_id)


def _aliases(kb: KnowledgeBase, progress: Progress) -> Iterator[pa.RecordBatch]:
    table, done = kb.aliases.select(list(_COLUMNS)), 0
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield batch
        done += batch.num_rows
        progress("dictionary", done, table.num_rows)


def _sides(path: Path, progress: Progress) -> Iterator[pa.Table]:
    """The aliases in pairs. One that is in many pairs is given once a batch and side."""
    artifact, done = open_artifact(path, "pairs"), 0
    for batch in read_pairs(artifact):
        for side in ("left", "right"):
            columns = [batch.column(name) for name in ("concept_id", side, f"{side}_lang")]
            table = pa.Table.from_arrays(columns, names=list(_COLUMNS))
            yield table.group_by(list(_COLUMNS)).aggregate([])
        done += batch.num_rows
        progress("training", done, artifact.manifest.counts["pairs"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """A mention, and the concepts that it names in each place."""

    text: str
    form: str
    gold: tuple[str, ...]
    named: Mapping[tuple[Where, Match], frozenset[str]]

    def has(self, where: Where, of: Of, match: Match) -> bool:
        """Whether it leaks in this way."""
        named = self.named[where, match]
        return bool(named.intersection(self.gold) if of == "gold" else named)


def _look(item: GoldMention, gold: tuple[str, ...], sought: Mapping[Where, _Sought]) -> _Looked:
    text, form = item.mention.text, normalise(item.mention.text, item.mention.lang)
    named: dict[tuple[Where, Match], frozenset[str]] = {}
    for where, place in sought.items():
        named[where, "verbatim"] = verbatim = frozenset(place.texts[text])
        named[where, "normalised"] = verbatim.union(place.forms.get(form, ()))
    return _Looked(text=text, form=form, gold=gold, named=named)


def _count(looked: Sequence[_Looked], places: Iterable[Where]) -> dict[Way, int]:
    return {way: sum(one.has(*way) for one in looked) for way in _ways(places)}


def _list(key: str, looked: Sequence[_Looked]) -> Iterator[Leak]:
    distinct = {(one.text, one.gold): one for one in looked}
    for (text, gold), one in sorted(distinct.items()):
        listed: set[tuple[Where, str]] = set()
        for (where, match), named in one.named.items():  # verbatim before normalised
            for concept_id in sorted(named):
                if (where, concept_id) not in listed:
                    listed.add((where, concept_id))
                    yield Leak(
                        key=key,
                        text=text,
                        form=one.form,
                        gold=gold,
                        where=where,
                        match=match,
                        concept_id=concept_id,
                    )
