"""The forms of an index, and the aliases and concepts behind each.

A *form* is a distinct normalised alias: one vector, one row of the lexical index. Several aliases
(of several concepts, languages and sources) can have the same form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import normalise
from bioelx_ray.retrieval.filters import Filter

FORMS, ALIASES, CONCEPTS = "forms.arrow", "aliases.arrow", "concepts.arrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormTable:
    """In memory, for a build.

    `forms` are sorted. `starts` int64 [forms + 1] bounds the rows of `aliases` that a form has;
    the column `concept` of `aliases` is a row of `concepts`, which are sorted by id.
    """

    forms: list[str]
    starts: NDArray[np.int64]
    aliases: pa.Table
    concepts: pa.Table

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The distinct pairs of a form and a concept that it names, both int64 [m]."""
        forms = np.repeat(np.arange(len(self.forms)), np.diff(self.starts))
        concepts = self.aliases.column("concept").to_numpy().astype(np.int64)
        pairs = np.unique(forms * len(self.concepts) + concepts)
        return np.divmod(pairs, len(self.concepts))

    def languages(self) -> list[str]:
        """The language of each form's first alias."""
        first: list[str] = self.aliases.column("lang").take(pa.array(self.starts[:-1])).to_pylist()
        return first


def make_forms(aliases: pa.Table, concepts: pa.Table) -> FormTable:
    """The forms of a knowledge base's tables (columns of `records.Alias` and `records.Concept`)."""
    texts, langs = aliases.column("text").to_pylist(), aliases.column("lang").to_pylist()
    keys = [normalise(text, lang) for text, lang in zip(texts, langs, strict=True)]
    forms = sorted(set(keys) - {""})
    row_of = {form: row for row, form in enumerate(forms)}
    rows = np.array([row_of.get(key, -1) for key in keys], dtype=np.int64)
    concept = pc.index_in(aliases.column("concept_id"), value_set=concepts.column("id"))
    table = pa.table(
        {
            "concept": concept.cast(pa.int32()),
            "text": aliases.column("text"),
            "lang": aliases.column("lang").dictionary_encode().unify_dictionaries(),
            "source": aliases.column("source").dictionary_encode(),
            "also": aliases.column("also"),
            "preferred": aliases.column("preferred"),
        }
    ).combine_chunks()
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]
    starts = np.searchsorted(rows[order], np.arange(len(forms) + 1))
    return FormTable(
        forms=forms,
        starts=starts.astype(np.int64),
        aliases=table.take(pa.array(order)),
        concepts=concepts.select(["id", "semantic_types"]),
    )


def write_forms(table: FormTable, directory: Path) -> None:
    """Write the three Arrow files of a form table."""
    forms = pa.table({"form": table.forms, "start": table.starts[:-1]})
    for name, content in ((FORMS, forms), (ALIASES, table.aliases), (CONCEPTS, table.concepts)):
        one = content.combine_chunks()
        with pa.ipc.new_file(directory / name, one.schema) as writer:
            writer.write_table(one)


class Forms:
    """The opened tables, memory-mapped."""

    def __init__(self, directory: Path) -> None:
        self._forms = _open(directory / FORMS)
        self._aliases = _open(directory / ALIASES)
        self._concepts = _open(directory / CONCEPTS)
        self._mask = lru_cache(maxsize=64)(self._make_mask)

    def __len__(self) -> int:
        """The number of forms."""
        return int(self._forms.num_rows)

    @property
    def concepts(self) -> int:
        """The number of concepts, which bounds the rows in `concept_of`."""
        return int(self._concepts.num_rows)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The rows of aliases of each form: int64 [forms + 1]."""
        starts = self._forms.column("start").to_numpy()
        return np.append(starts, self._aliases.num_rows).astype(np.int64)

    @cached_property
    def concept_of(self) -> NDArray[np.int32]:
        """The row of each alias's concept: int32 [aliases]."""
        rows: NDArray[np.int32] = self._aliases.column("concept").to_numpy()
        return rows

    @cached_property
    def preferred(self) -> NDArray[np.bool_]:
        """Whether each alias is a preferred one, bool [aliases]."""
        flags: NDArray[np.bool_] = self._aliases.column("preferred").to_numpy()
        return flags

    @cached_property
    def _lang_codes(self) -> NDArray[np.int32]:
        return self._codes("lang")

    @cached_property
    def _lang_numbers(self) -> Mapping[str, int]:
        return self._numbers("lang")

    def in_language(
        self, aliases: NDArray[np.int64], langs: Sequence[str], query: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether alias row ``aliases[i]`` is in the language ``langs[query[i]]``."""
        numbers = np.array([self._lang_numbers.get(lang, -1) for lang in langs], dtype=np.int64)
        same: NDArray[np.bool_] = self._lang_codes[aliases] == numbers[query]
        return same

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The normalised texts of forms."""
        texts: list[str] = self._forms.column("form").take(pa.array(rows)).to_pylist()
        return texts

    def columns(self, aliases: NDArray[np.int64]) -> dict[str, list[str]]:
        """`concept_id`, `alias`, `lang` and `source` of alias rows, in their order."""
        rows = pa.array(aliases)
        taken = self._aliases.take(rows)
        concepts = self._concepts.column("id").take(taken.column("concept"))
        return {
            "concept_id": concepts.to_pylist(),
            "alias": taken.column("text").to_pylist(),
            "lang": taken.column("lang").to_pylist(),
            "source": taken.column("source").to_pylist(),
        }

    def allowed(self, where: Filter) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which forms and which aliases a filter allows: bool [forms], bool [aliases].

        Raises:
            InputError: a value does not occur here.
        """
        return self._mask(where)

    def _make_mask(self, where: Filter) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        aliases = np.ones(self._aliases.num_rows, dtype=np.bool_)
        if where.langs:
            aliases &= np.isin(self._codes("lang"), self._wanted("lang", where.langs))
        if where.sources:
            aliases &= self._source_mask(where.sources)
        if where.vocabularies or where.semantic_types:
            aliases &= self._concept_mask(where)[self.concept_of]
        forms = np.logical_or.reduceat(aliases, self.starts[:-1]) if len(self) else aliases
        return forms, aliases

    def _source_mask(self, wanted: frozenset[str]) -> NDArray[np.bool_]:
        """Whether an alias is given by one of the sources, be it as the first or not."""
        also = self._aliases.column("also").combine_chunks()
        known = set(self._numbers("source")) | set(pc.unique(also.values).to_pylist())
        self._check("source", wanted, known)
        numbers = self._numbers("source")
        mask: NDArray[np.bool_] = np.isin(
            self._codes("source"), [numbers[name] for name in wanted if name in numbers]
        )
        hit = pc.is_in(also.flatten(), pa.array(sorted(wanted))).to_numpy(zero_copy_only=False)
        mask[pc.list_parent_indices(also).to_numpy()[hit]] = True
        return mask

    def _concept_mask(self, where: Filter) -> NDArray[np.bool_]:
        mask = np.ones(self._concepts.num_rows, dtype=np.bool_)
        if where.vocabularies:
            prefixes = pc.list_element(pc.split_pattern(self._concepts.column("id"), ":"), 0)
            self._check("vocabulary", where.vocabularies, set(pc.unique(prefixes).to_pylist()))
            mask &= pc.is_in(prefixes, pa.array(sorted(where.vocabularies))).to_numpy()
        if where.semantic_types:
            types = self._concepts.column("semantic_types").combine_chunks()
            self._check(
                "semantic type", where.semantic_types, set(pc.unique(types.values).to_pylist())
            )
            hit = pc.is_in(types.values, pa.array(sorted(where.semantic_types)))
            owners = pc.list_parent_indices(types).to_numpy()
            typed = np.zeros(len(mask), dtype=np.bool_)
            typed[owners[hit.to_numpy(zero_copy_only=False)]] = True
            mask &= typed
        return mask

    def _codes(self, column: str) -> NDArray[np.int32]:
        codes: NDArray[np.int32] = self._aliases.column(column).chunk(0).indices.to_numpy()
        return codes

    def _numbers(self, column: str) -> dict[str, int]:
        values = self._aliases.column(column).chunk(0).dictionary.to_pylist()
        return {value: number for number, value in enumerate(values)}

    def _wanted(self, column: str, values: frozenset[str]) -> list[int]:
        numbers = self._numbers(column)
        self._check(column, values, set(numbers))
        return [numbers[value] for value in values]

    def _check(self, what: str, values: frozenset[str], known: set[str]) -> None:
        if unknown := sorted(values - known):
            some = ", ".join(sorted(known)[:30])
            raise InputError(f"no {what} {', '.join(unknown)} in this index; it has: {some}")


def _open(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
