"""XL-BEL (Liu et al. 2021, arXiv 2105.14398): mentions from Wikipedia's links in ten languages.

v0.0 has ``CUI[|CUI]||mention``, v1.0 adds ``||sentence`` with ``<tgt>mention</tgt>``; any of the
CUIs counts as right. A row that does not read is an error and never skipped: figures over a part
of a benchmark look like figures over the whole of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.corpora.umls import umls_id
from bioelx_ray.records import GoldMention, Mention

LANGS = ("en", "de", "es", "fi", "ru", "tr", "ko", "zh", "ja", "th")
_TAG = re.compile(r"</?tgt>")


def read_xlbel(lines: Iterable[bytes], *, lang: str, origin: str) -> Iterator[GoldMention]:
    """The rows of one file in their order, repeated rows included; blank lines are left out.

    `origin` names the file in errors. The first row decides which version the file has. Spaces,
    HTML entities and case of the sentence stay as they are; only the tags are taken out.

    Raises:
        InputError: no UTF-8, a row of the other version or of neither, no mention, an id that is
            no CUI, no ``<tgt>`` pair, or a pair around another text than the mention.
    """
    width = 0
    for number, line in enumerate(lines, start=1):
        try:
            row = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            if not row.strip():
                continue
            columns = row.split("||", 2)
            width = width or len(columns)
            if len(columns) != width:
                raise InputError(f"{len(columns)} columns after rows of {width}: {row[:80]!r}")
            yield _gold(columns, lang)
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(
                f"{origin}, line {number}: {error}; expected CUI[|CUI]||mention, or the same and "
                "||sentence with <tgt>mention</tgt>, in every row: get the file again"
            ) from error


def _gold(columns: list[str], lang: str) -> GoldMention:
    if len(columns) == 1:
        raise InputError(f"no '||' in {columns[0][:80]!r}")
    ids = frozenset(umls_id(cui) for cui in columns[0].split("|"))
    text = columns[1].strip()
    if not text or text.startswith("|"):  # C1|||text: an empty id takes the separator along
        raise InputError(f"an empty mention or id: {columns[:2]}")
    left, right = _context(columns[2], text) if len(columns) > 2 else ("", "")
    return GoldMention(
        mention=Mention(text=text, lang=lang, left=left, right=right), concept_ids=ids
    )


def _context(sentence: str, text: str) -> tuple[str, str]:
    left, _, rest = sentence.partition("<tgt>")
    marked, closing, right = rest.partition("</tgt>")
    if not closing:
        raise InputError(f"no <tgt>...</tgt> in {sentence[:80]!r}")
    if _folded(marked) != _folded(text):
        raise InputError(f"the sentence marks {marked[:80]!r}, the mention is {text[:80]!r}")
    # A sentence may mark further places: the first pair is the mention, the rest is context.
    return _TAG.sub("", left), _TAG.sub("", right)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def read_xlbel_dir(path: Path) -> dict[str, list[GoldMention]]:
    """The gold mentions of a version's directory by language.

    Files are named ``de.txt``, or ``de_1k_test_query.txt`` as they are published.

    Raises:
        InputError: no such file at all, two files of a language, or a row that does not read.
    """
    gold: dict[str, list[GoldMention]] = {}
    for file in sorted(path.glob("*.txt")):
        lang = file.stem.partition("_")[0]
        if lang not in LANGS:
            continue
        if lang in gold:
            raise InputError(f"{path}: several files of {lang!r}: keep one version a directory")
        with file.open("rb") as lines:
            gold[lang] = list(read_xlbel(lines, lang=lang, origin=str(file)))
    if not gold:
        raise InputError(
            f"{path}: no file of XL-BEL (de.txt, en.txt ...): give the directory of one version, "
            "as in xlbel/v1.0"
        )
    return gold
