"""Mantra GSC (Kors et al. 2015, doi:10.1093/jamia/ocv037): parallel texts in five languages.

BRAT files in ``<Language>/<Corpus>/``, a CUI as the type of each span. A span that is annotated
several times with different CUIs has several right answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.corpora.brat import (
    BratDocument,
    Fragments,
    TextBound,
    read_brat_dir,
)
from bioelx_ray.evaluation.corpora.umls import umls_id
from bioelx_ray.records import GoldMention, Mention

LANGS = {"Dutch": "nl", "English": "en", "French": "fr", "German": "de", "Spanish": "es"}


def gold_mentions(document: BratDocument, *, lang: str) -> list[GoldMention]:
    """One gold mention a span, by position, with the rest of the document as context.

    The text of a discontinuous span joins its fragments; `start`, `end` and the context are those
    of the whole, so the words between the fragments are in neither.

    Raises:
        InputError: the type of a span is no CUI.
    """
    spans: dict[Fragments, list[TextBound]] = {}
    for span in document.spans:
        spans.setdefault(span.fragments, []).append(span)
    return [
        GoldMention(
            mention=replace(_mention(same[0], document.text), lang=lang, document_id=document.id),
            concept_ids=frozenset(umls_id(span.type) for span in same),
        )
        for _, same in sorted(spans.items())
    ]


def _mention(span: TextBound, text: str) -> Mention:
    start = min(start for start, _ in span.fragments)
    end = max(end for _, end in span.fragments)
    return Mention(text=span.text, left=text[:start], right=text[end:], start=start, end=end)


def read_mantra_dir(path: Path) -> dict[tuple[str, str], list[GoldMention]]:
    """Gold mentions by language and corpus: ``("de", "emea")``.

    The corpus is what stands before the first ``_`` of its directory. English has four Medline
    directories, one for each language it is paired with; they hold other documents and are joined.

    Raises:
        InputError: no language's directory, no documents, or a file that does not read.
    """
    gold: dict[tuple[str, str], list[GoldMention]] = {}
    for name, lang in LANGS.items():
        for folder in sorted(p for p in (path / name).glob("*") if p.is_dir()):
            mentions = gold.setdefault((lang, folder.name.partition("_")[0].lower()), [])
            for document in read_brat_dir(folder):
                named = replace(document, id=f"{folder.name}/{document.id}")
                try:
                    mentions += gold_mentions(named, lang=lang)
                except InputError as error:
                    raise InputError(f"{folder / document.id}.ann: {error}") from error
    if not any(gold.values()):
        raise InputError(
            f"{path}: no annotations in {', '.join(LANGS)}: give the directory that holds these"
        )
    return gold
