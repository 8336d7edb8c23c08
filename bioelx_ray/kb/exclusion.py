"""Forms that must not be trained on: those of a benchmark's mentions, for their gold concepts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias

TEXT, FORM, GOLD = "text", "form", "gold"
GOLD_SEPARATOR = "|"


class Exclusion:
    """Aliases to leave out: by concept, in whatever language they are.

    An alias is left out if its concept is among the gold of a row and its normalised form is the
    row's form. The language does not matter, for an encoder sees the text alone. The same text
    stays where the row's text is exactly the alias's but the form is not (Turkish I is one letter
    in a Turkish mention and another in an English alias), so the text excludes too. Aliases of
    *other* concepts with the form stay: they teach no right answer, and as ambiguous ones they are
    no pairs anyway.
    """

    def __init__(self, rows: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """Take rows of a text, its form and the gold concept ids."""
        self._texts: set[tuple[str, str]] = set()
        self._forms: set[tuple[str, str]] = set()
        for text, form, gold in rows:
            for concept_id in gold:
                self._texts.add((concept_id, text))
                self._forms.add((concept_id, form))
        self._concepts = {concept_id for concept_id, _ in self._forms}

    def __contains__(self, alias: Alias) -> bool:
        """Whether an alias is to be left out."""
        id_ = alias.concept_id
        return id_ in self._concepts and (
            (id_, alias.text) in self._texts
            or (id_, normalise(alias.text, alias.lang)) in self._forms
        )


def read_exclusion(*paths: Path) -> Exclusion:
    """Read TSVs with the columns `text`, `form` and `gold` (ids joined by ``|``); more may stand.

    Raises:
        InputError: a file cannot be read, is no UTF-8, lacks a column, or a row has another
            number of fields. Nothing is skipped: what is not read is not excluded.
    """
    return Exclusion(row for path in paths for row in _rows(path))


def _rows(path: Path) -> list[tuple[str, str, list[str]]]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 ({error})") from error
    columns = lines[0].rstrip("\r").split("\t")
    if missing := [name for name in (TEXT, FORM, GOLD) if name not in columns]:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; give the list that `bioelx audit --list` "
            "writes, or another TSV with a header and these columns"
        )
    places = [columns.index(name) for name in (TEXT, FORM, GOLD)]
    rows: list[tuple[str, str, list[str]]] = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.rstrip("\r").split("\t")
        if fields == [""]:
            continue
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields, the header has {len(columns)}"
            )
        text, form, gold = (fields[place] for place in places)
        rows.append((text, form, [id_ for id_ in gold.split(GOLD_SEPARATOR) if id_]))
    return rows
