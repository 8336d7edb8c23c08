"""Which aliases a knowledge base hides from itself to measure training by: see `development`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_ray.errors import InputError
from bioelx_ray.kb.sampling import primary
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import UNDETERMINED

_FORMS_PER_CONCEPT = 4
"""Of a concept with more forms so many are drawn: rather more concepts than forms of one."""
_TRIED = 50
"""Aliases looked at for each query that is wanted, at most."""
_NO_LANGUAGE = frozenset({UNDETERMINED, "mul", "zxx"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A held-out form, to be found by `answers`, rows of the dictionary in order.

    `lang` is a primary subtag. `crossing`: none of the answers is in that language.
    """

    concept_id: str
    form: str
    lang: str
    crossing: bool
    answers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """An alias that is neither in the dictionary nor to be trained on."""

    concept_id: str
    text: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Development:
    """The queries by language and concept, the dictionary's forms in order, and what is hidden."""

    queries: tuple[Query, ...]
    forms: tuple[str, ...]
    hidden: tuple[Hidden, ...]


def hold_out(kb: KnowledgeBase, *, per_language: int, seed: int, forms: int = 8_000) -> Development:
    """Choose up to `per_language` queries a language, and a dictionary of up to `forms` forms.

    A concept is asked for once, the rarest language choosing first. Ambiguous aliases are no
    queries, and where another concept of the slice has a query's form too, it stands there without
    it. Beyond the answers, which are always in the dictionary, concepts are drawn evenly.

    Memory: 13 bytes an alias of the knowledge base, and 9 a concept.

    Raises:
        InputError: no concept has names in two languages that could be asked for.
    """
    rng = np.random.default_rng(seed)
    layout = _Layout(kb.aliases)
    held = list(_hold(layout, per_language=per_language, rng=rng))
    if not held:
        raise InputError(
            f"{kb.artifact.path}: no concept has unambiguous names in two languages, so none can "
            "be held out; take a knowledge base with several languages"
        )
    asked = {one.form for one in held}
    names = {one.concept: _drawn(one.answers, rng) for one in held}
    size = sum(map(len, names.values()))
    for concept in rng.permutation(len(layout.starts) - 1).tolist():
        if size >= forms:
            break
        if concept not in names:
            found = sorted(layout.forms(concept).keys() - asked)
            names[concept] = _drawn(found, rng)[: forms - size]
            size += len(names[concept])
    return _development(held, names)


def _drawn(forms: Sequence[str], rng: np.random.Generator) -> list[str]:
    if len(forms) <= _FORMS_PER_CONCEPT:
        return list(forms)
    return [forms[at] for at in rng.choice(len(forms), _FORMS_PER_CONCEPT, replace=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A query as it is chosen: its concept's number, and the forms that may answer it.

    `same` are the answers in the query's own language.
    """

    concept: int
    concept_id: str
    form: str
    lang: str
    answers: list[str]
    same: frozenset[str]
    hidden: list[Hidden]


@dataclass(frozen=True, slots=True)
class _Name:
    text: str
    lang: str


class _Layout:
    """Where each concept's aliases stand, and which of them may be asked for."""

    def __init__(self, aliases: pa.Table) -> None:
        self._aliases = aliases
        ids, n = aliases.column("concept_id"), aliases.num_rows
        changes = pc.not_equal(ids.slice(1), ids.slice(0, max(n - 1, 0)))
        inner = np.flatnonzero(changes.to_numpy()) + 1
        self.starts = np.unique(np.concatenate([[0], inner, [n]])).astype(np.int64)
        tags = aliases.column("lang").dictionary_encode().unify_dictionaries()
        known = tags.chunk(0).dictionary.to_pylist() if tags.num_chunks else []
        self.langs = sorted({primary(tag) for tag in known})
        code_of = np.array([self.langs.index(primary(tag)) for tag in known], dtype=np.int32)
        codes = [code_of[chunk.indices.to_numpy()] for chunk in tags.chunks]
        self.codes = np.concatenate([*codes, np.zeros(0, dtype=np.int32)])

    def askable(self) -> NDArray[np.bool_]:
        """Which aliases are not ambiguous, and of a concept that has names in two languages."""
        if not len(self.codes):
            return np.zeros(0, dtype=np.bool_)
        first = self.starts[:-1]
        several = np.minimum.reduceat(self.codes, first) != np.maximum.reduceat(self.codes, first)
        askable: NDArray[np.bool_] = np.repeat(several, np.diff(self.starts))
        askable &= ~self._aliases.column("ambiguous").to_numpy()
        return askable

    def concept(self, row: int) -> int:
        """The number of the concept that an alias's row belongs to."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def concept_id(self, concept: int) -> str:
        """The id of a concept by its number."""
        id_: str = self._aliases.column("concept_id")[int(self.starts[concept])].as_py()
        return id_

    def name(self, row: int) -> _Name:
        """The text and primary language of an alias."""
        text: str = self._aliases.column("text")[row].as_py()
        return _Name(text, self._aliases.column("lang")[row].as_py())

    def forms(self, concept: int) -> dict[str, list[_Name]]:
        """A concept's aliases by their form."""
        start, stop = self.starts[concept : concept + 2].tolist()
        own = self._aliases.slice(start, stop - start)
        found: dict[str, list[_Name]] = {}
        rows = zip(own.column("text").to_pylist(), own.column("lang").to_pylist(), strict=True)
        for text, lang in rows:
            if form := normalise(text, lang):
                found.setdefault(form, []).append(_Name(text, lang))
        return found


def _hold(layout: _Layout, *, per_language: int, rng: np.random.Generator) -> Iterator[_Held]:
    askable = layout.askable()
    counts = np.bincount(layout.codes[askable], minlength=len(layout.langs))
    asked: set[int] = set()
    for code in np.argsort(counts, kind="stable").tolist():
        if layout.langs[code] in _NO_LANGUAGE:
            continue
        rows = np.flatnonzero(askable & (layout.codes == code))
        found = 0
        for row in rng.permutation(rows)[: _TRIED * per_language].tolist():
            concept = layout.concept(row)
            if found == per_language:
                break
            if concept in asked:
                continue
            if held := _held(layout, row, crossing=found % 2 == 0):
                asked.add(concept)
                found += 1
                yield held


def _held(layout: _Layout, row: int, *, crossing: bool) -> _Held | None:
    concept, name = layout.concept(row), layout.name(row)
    lang, form = primary(name.lang), normalise(name.text, name.lang)
    forms = layout.forms(concept)
    langs = {other: {primary(one.lang) for one in names} for other, names in forms.items()}
    if langs.get(form) != {lang}:
        return None
    hidden = _with_same_texts(forms, {form})
    if crossing:
        same = _with_same_texts(forms, {other for other in forms if lang in langs[other]})
        hidden = same if forms.keys() - same else hidden
    answers = sorted(forms.keys() - hidden)
    if not answers:
        return None
    id_ = layout.concept_id(concept)
    return _Held(
        concept=concept,
        concept_id=id_,
        form=form,
        lang=lang,
        answers=answers,
        same=frozenset(answer for answer in answers if lang in langs[answer]),
        hidden=[
            Hidden(concept_id=id_, text=text, form=other)
            for other in sorted(hidden)
            for text in sorted({one.text for one in forms[other]})
        ],
    )


def _with_same_texts(forms: dict[str, list[_Name]], hidden: set[str]) -> set[str]:
    """And the forms of the same texts in other languages (I folds otherwise in Turkish)."""
    texts = {one.text for form in hidden for one in forms[form]}
    more = {form for form, names in forms.items() if any(one.text in texts for one in names)}
    return hidden if more <= hidden else _with_same_texts(forms, hidden | more)


def _development(held: Sequence[_Held], names: dict[int, list[str]]) -> Development:
    asked = {one.form for one in held}
    kept = {concept: set(forms) - asked for concept, forms in names.items()}
    held = [one for one in held if kept[one.concept]]  # its answers may be other queries' forms
    forms = sorted(set().union(*kept.values()))
    row_of = {form: row for row, form in enumerate(forms)}
    queries = [
        Query(
            concept_id=one.concept_id,
            form=one.form,
            lang=one.lang,
            crossing=one.same.isdisjoint(kept[one.concept]),
            answers=tuple(sorted(row_of[form] for form in kept[one.concept])),
        )
        for one in held
    ]
    ordered = sorted(queries, key=lambda query: (query.lang, query.concept_id))
    hidden = sorted(
        (alias for one in held for alias in one.hidden),
        key=lambda alias: (alias.concept_id, alias.form, alias.text),
    )
    return Development(queries=tuple(ordered), forms=tuple(forms), hidden=tuple(hidden))
