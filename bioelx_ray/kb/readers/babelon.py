"""Translations of an ontology: labels and exact synonyms in other languages.

Three kinds of tab-separated file are known by their columns:

- Babelon (https://monarch-initiative.github.io/babelon/), a translation a row;
- the synonym tables of HPO's translations, templates of ROBOT
  (http://robot.obolibrary.org/template) whose second line says what a column holds:
  ``ID``, ``AL oboInOwl:hasExactSynonym@cs``; a cell may hold several texts joined by ``|``;
- Disease Ontology's table of translations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.readers.quoted import QuotedTable, missing_columns, read_quoted
from bioelx_ray.kb.readers.rows import Row, reject_row
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.text import language_tag
from bioelx_ray.records import Alias

_LABELS = frozenset({"rdfs:label", "skos:prefLabel"})
_SYNONYMS = frozenset(
    {"oboInOwl:hasExactSynonym", "oio:hasExactSynonym", "oio:exactSynonym", "skos:altLabel"}
)
_ACCEPTED = frozenset({"OFFICIAL", "MANUALLY TRANSLATED"})
_LANGUAGE_TEMPLATE = re.compile(r"AL\s+(?P<predicate>\S+)@(?P<lang>[\w-]+)(\s.*)?")


class _BadRow(ValueError):
    """A row that cannot be used. Its text is the reason."""


@dataclass(slots=True, kw_only=True)
class _Translation:
    """A row as it stands, whichever kind of file it comes from."""

    subject: str
    predicate: str
    lang: str
    texts: list[str]
    status: str
    precision: str = ""
    notes: str = ""


_Layout = Callable[[dict[str, str]], _Translation]
"""What a row's values by column mean."""


def read_babelon(
    path: Path,
    *,
    origin: str,
    rejects: Rejects,
    machine_translations: bool = True,
    skipped: Counter[str] | None = None,
) -> Iterator[Alias]:
    """The aliases of a file of translations, in its order; the concepts come from elsewhere.

    The source is ``babelon:hp`` (the prefix of the id), or ``babelon:hp-candidate`` for what a
    machine translated or nobody accepted yet; without `machine_translations` these are left out.
    A label is preferred, the first if a concept has several in a language. Definitions, broader,
    narrower and related synonyms, inexact translations, and rows that are marked as wrong or as
    not translated are left out, too.

    Args:
        path: the file; a name that ends in ``.gz`` is unpacked.
        origin: how `rejects` call the file.
        rejects: takes the rows that cannot be used.
        machine_translations: take translations that nobody has accepted.
        skipped: takes the number of sound rows left out for each reason.

    Raises:
        InputError: at the first step of the iterator, where the file cannot be read or is of no
            known kind.
    """
    table = read_quoted(path, origin=origin, rejects=rejects)
    skipped = Counter() if skipped is None else skipped
    labelled: set[tuple[str, str]] = set()
    layout = _layout(path, table)
    for row in table.rows:
        translation = layout(row.values)
        if reason := _left_out(translation, machine_translations=machine_translations):
            skipped[reason] += 1
            continue
        try:
            yield from _aliases(translation, labelled)
        except _BadRow as error:
            reject_row(row, str(error), origin=origin, rejects=rejects)


def _layout(path: Path, table: QuotedTable) -> _Layout:
    for layout, wanted in _LAYOUTS:
        if not missing_columns(table.columns, wanted):
            return layout
    if "translation_value" in table.columns:
        return _template_layout(path, next(table.rows, None))
    kinds = "; or ".join(", ".join(wanted) for _, wanted in _LAYOUTS)
    raise InputError(
        f"{path}: not known as a file of translations. Expected the columns {kinds}; or a ROBOT "
        "template with a column translation_value"
    )


def _babelon(values: dict[str, str]) -> _Translation:
    return _Translation(
        subject=values["subject_id"],
        predicate=values["predicate_id"],
        lang=values["translation_language"],
        texts=[values["translation_value"]],
        status=values.get("translation_status", ""),
        precision=values.get("translation_precision", ""),
    )


def _disease_ontology(values: dict[str, str]) -> _Translation:
    return _Translation(
        subject=values["source_id"],
        predicate=values["predicate"],
        lang=values["translation_lang"],
        texts=[values["translation_text"]],
        status=values["status"],
        notes=values.get("review_notes", ""),
    )


_LAYOUTS: tuple[tuple[_Layout, tuple[str, ...]], ...] = (
    (_babelon, ("subject_id", "predicate_id", "translation_language", "translation_value")),
    (
        _disease_ontology,
        ("source_id", "predicate", "translation_lang", "translation_text", "status"),
    ),
)


def _template_layout(path: Path, row: Row | None) -> _Layout:
    """What the second line of a ROBOT template says."""
    templates = row.values if row else {}
    subject = next((name for name, template in templates.items() if template == "ID"), None)
    match = _LANGUAGE_TEMPLATE.fullmatch(templates.get("translation_value", ""))
    if subject is None or match is None:
        raise InputError(
            f"{path}: its second line is no ROBOT template; expected ID for the column of ids and "
            "'AL oboInOwl:hasExactSynonym@' with a language for translation_value"
        )
    predicate, lang = match["predicate"], match["lang"]
    # A remark in "comment" is no status where there is a column of that name.
    bare = {name.lower(): name for name, template in templates.items() if not template}
    status = bare.get("status") or bare.get("comment")

    def layout(values: dict[str, str]) -> _Translation:
        return _Translation(
            subject=values[subject],
            predicate=predicate,
            lang=lang,
            texts=values["translation_value"].split("|"),
            # Files without the column go into the ontology's releases as they are.
            status=values[status] if status else "OFFICIAL",
        )

    return layout


def _left_out(translation: _Translation, *, machine_translations: bool) -> str | None:
    """Why a sound row gives no alias, or None."""
    if translation.predicate not in _LABELS | _SYNONYMS:
        return "neither a label nor an exact synonym"
    if translation.status == "NOT_TRANSLATED" or not any(map(_named, translation.texts)):
        return "not translated"
    if _is_wrong(translation.status) or any(map(_is_wrong, translation.notes.splitlines())):
        return "marked as wrong"
    if translation.precision.upper() not in ("", "EXACT"):
        return "inexact translation"
    if not machine_translations and translation.status not in _ACCEPTED:
        return "not accepted"
    return None


def _named(text: str) -> bool:
    return text.strip() not in ("", "NA")


def _is_wrong(line: str) -> bool:
    return line.startswith("ERROR")


def _aliases(translation: _Translation, labelled: set[tuple[str, str]]) -> Iterator[Alias]:
    """One alias for each text; `labelled` remembers which concepts have a preferred one."""
    concept_id = curie(translation.subject)
    if concept_id is None:
        raise _BadRow("subject is no CURIE (prefix:local)")
    try:
        lang = language_tag(translation.lang)
    except InputError:
        raise _BadRow("language is no BCP 47 tag") from None
    preferred = translation.predicate in _LABELS and (concept_id, lang) not in labelled
    if preferred:
        labelled.add((concept_id, lang))
    source = f"babelon:{concept_id.partition(':')[0]}"
    if translation.status not in _ACCEPTED:
        source += "-candidate"
    for text in filter(_named, translation.texts):
        yield Alias(
            concept_id=concept_id,
            text=text.strip(),
            lang=lang,
            source=source,
            preferred=preferred,
        )
