"""The development metric of training: Recall@1 on aliases that a knowledge base hides from itself.

::

    build_development(Path("dev"), kb, per_language=100, seed=0)
    bioelx pairs kb --exclude dev/exclude.tsv --out pairs      # what is asked is not trained on
    recall = evaluate(encoder.encode, open_development(Path("dev")))

No benchmark is in it. A query is an alias whose form no other language of its concept has; it is to
be found by the concept's other forms. Every second query of a language is *crossing*: hidden are
all forms of the concept in that language, as for a mention whose language the knowledge base lacks
(see also `heldout`, whose questions are for an index that is there already). The dictionary is a
slice: some forms of the queries' concepts and of others, so that it can be embedded anew at every
evaluation. Figures over a slice are higher than over the whole, and good for comparing alone.

An artifact of the kind ``development`` holds ``queries.arrow``, ``forms.arrow`` and
``exclude.tsv``, so that all workers and a resumed run are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact, Manifest, code_version, open_artifact, publish
from bioelx_ray.errors import EncoderError, InputError
from bioelx_ray.kb.exclusion import FORM, GOLD, TEXT
from bioelx_ray.kb.sampling import primary
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import UNDETERMINED

QUERIES, FORMS, EXCLUDE = "queries.arrow", "forms.arrow", "exclude.tsv"
OTHER = "other"
"""The group of the languages that have fewer queries than `FEWEST`."""
FEWEST = 20

_FORMS_PER_CONCEPT = 4
"""Of a concept with more forms so many are drawn: rather more concepts than forms of one."""
_TRIED = 50
"""Aliases looked at for each query that is wanted, at most."""
_NO_LANGUAGE = frozenset({UNDETERMINED, "mul", "zxx"})
_BLOCK = 256
_QUERY_SCHEMA = pa.schema(
    [
        pa.field("concept_id", pa.string(), nullable=False),
        pa.field("form", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("crossing", pa.bool_(), nullable=False),
        pa.field("answers", pa.list_(pa.int64()), nullable=False),
    ]
)

Rows = NDArray[np.int64]
Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Normalised texts to unit vectors [n, dim], as `encoder.Encoder.encode`."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Recall@1, from 0 to 1, by language and as their unweighted mean.

    Languages of fewer than `FEWEST` queries count together, as `OTHER`.
    """

    mean: float
    by_language: dict[str, float]


def evaluate(encode: Encode, development: Development) -> Recall:
    """How many queries have an answer for their nearest form; of equally near ones the first counts.

    `encode` gets the queries, then the dictionary. Memory holds the vectors, and the scores of 256
    queries at a time.

    Raises:
        EncoderError: the vectors are not finite, or not one a text.
    """
    queries = _encoded(encode, [query.form for query in development.queries])
    dictionary = _encoded(encode, development.forms)
    hits = np.zeros(len(queries), dtype=np.bool_)
    for start in range(0, len(queries), _BLOCK):
        nearest = np.argmax(queries[start : start + _BLOCK] @ dictionary.T, axis=1)
        for at, row in enumerate(nearest.tolist(), start=start):
            hits[at] = row in development.queries[at].answers
    groups = np.array(_groups([query.lang for query in development.queries]))
    by_language = {str(name): float(hits[groups == name].mean()) for name in np.unique(groups)}
    return Recall(mean=float(np.mean(list(by_language.values()))), by_language=by_language)


def _encoded(encode: Encode, texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise EncoderError(
            f"{len(texts)} texts gave an array {list(vectors.shape)}, or numbers that are not "
            "finite; expected a finite vector a text: has the training diverged?"
        )
    return vectors


def _groups(langs: Sequence[str]) -> list[str]:
    return [lang if langs.count(lang) >= FEWEST else OTHER for lang in langs]


def hold_out(
    kb: KnowledgeBase, *, per_language: int, seed: int, forms: int = 20_000
) -> Development:
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
    """A query as it is chosen: its concept's number, and the forms that may answer it."""

    concept: int
    concept_id: str
    form: str
    lang: str
    crossing: bool
    answers: list[str]
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
        ambiguous = self._aliases.column("ambiguous").to_numpy()
        return np.repeat(several, np.diff(self.starts)) & ~ambiguous

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
    first = {other for other in forms if lang in langs[other]} if crossing else {form}
    hidden = _with_same_texts(forms, first)
    answers = sorted(forms.keys() - hidden)
    if not answers:
        return None
    id_ = layout.concept_id(concept)
    return _Held(
        concept=concept,
        concept_id=id_,
        form=form,
        lang=lang,
        crossing=all(lang not in langs[answer] for answer in answers),
        answers=answers,
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
    forms = sorted(set().union(*kept.values()))
    row_of = {form: row for row, form in enumerate(forms)}
    queries = [
        Query(
            concept_id=one.concept_id,
            form=one.form,
            lang=one.lang,
            crossing=one.crossing,
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


def build_development(
    target: Path, kb: KnowledgeBase, *, per_language: int, seed: int, forms: int = 20_000
) -> Artifact:
    """Hold out (see `hold_out`) and publish as `target`.

    Raises:
        InputError: nothing can be held out.
    """
    made = hold_out(kb, per_language=per_language, seed=seed, forms=forms)
    manifest = Manifest(
        kind="development",
        code_version=code_version(),
        config={"per_language": per_language, "seed": seed, "forms": forms},
        inputs={"kb": kb.artifact.manifest.fingerprint},
        sources=kb.artifact.manifest.sources,
        counts={
            "queries": len(made.queries),
            "crossing": sum(query.crossing for query in made.queries),
            "forms": len(made.forms),
            "hidden": len(made.hidden),
            "languages": _counted([query.lang for query in made.queries]),
        },
    )
    rows = [{name: getattr(query, name) for name in Query.__slots__} for query in made.queries]
    tables = {
        QUERIES: pa.Table.from_pylist(rows, schema=_QUERY_SCHEMA),
        FORMS: pa.table({"form": pa.array(made.forms, pa.string())}),
    }
    with publish(target, manifest) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / name, table.schema) as writer:
                writer.write_table(table)
        write_exclusion(made, draft / EXCLUDE)
    return Artifact(path=target, manifest=manifest)


def _counted(langs: Sequence[str]) -> dict[str, int]:
    return {lang: langs.count(lang) for lang in sorted(set(langs))}


def write_exclusion(development: Development, path: Path) -> None:
    """Write what is hidden as a TSV that `kb.exclusion.read_exclusion` reads.

    Aliases hold no tabs and no line breaks: a knowledge base takes no control characters.
    """
    lines = ["\t".join((TEXT, FORM, GOLD))]
    lines += ["\t".join((one.text, one.form, one.concept_id)) for one in development.hidden]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_development(path: Path) -> Development:
    """Open and verify an artifact of `build_development`.

    Raises:
        ArtifactError: none is there, it is damaged, or it is of another kind.
    """
    artifact = open_artifact(path, "development")
    tables = {}
    for name in (QUERIES, FORMS):
        with pa.ipc.open_file(artifact.file(name)) as reader:
            tables[name] = reader.read_all()
    lines = artifact.file(EXCLUDE).read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [line.split("\t") for line in lines]
    return Development(
        queries=tuple(
            Query(**row | {"answers": tuple(row["answers"])}) for row in tables[QUERIES].to_pylist()
        ),
        forms=tuple(tables[FORMS].column("form").to_pylist()),
        hidden=tuple(
            Hidden(concept_id=id_, text=text, form=form) for text, form, id_ in rows
        ),
    )
