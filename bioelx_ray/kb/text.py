"""One normalisation for both sides of the match: the dictionary's aliases and the mentions."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from functools import cache
from typing import Literal

from langcodes import standardize_tag

from bioelx_ray.errors import InputError

Script = Literal[
    "Latin",
    "Cyrillic",
    "Greek",
    "Han",
    "Kana",
    "Hangul",
    "Thai",
    "Arabic",
    "Hebrew",
    "Devanagari",
    "Other",
]

MAX_TEXT = 500
"""Code points. No name of a concept is longer; what is longer is a definition or a lost quote."""

_TURKIC = frozenset({"tr", "tur", "az", "aze"})
_TURKIC_I = str.maketrans("I\u0130", "\u0131i")
# Lithuanian and careless lower-casing of İ leave an i with a dot above its own dot. Tatweel only
# stretches a word; it goes after NFKC, which makes it out of presentation forms.
_DRAWN_ONLY = re.compile("(?<=i)[\u0307\u0640]+|\u0640+")

# Mapped before NFKC, which would turn a spacing accent into a space with a combining one and a
# double prime into two. Escaped, for editors normalise some of them.
_DASHES = (
    "\u058a\u05be\u1400\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u207b\u208b\u2212"
    "\u2e17\u2e3a\u2e3b\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_SINGLE_QUOTES = (
    "\u0060\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u0374\u0384\u05f3\u1fbd\u1fef\u1ffd"
    "\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\uff07\uff40"
)
_DOUBLE_QUOTES = "\u00ab\u00bb\u05f4\u201c\u201d\u201e\u201f\u2033\u2036\u301d\u301e\u301f\uff02"
_VARIATIONS = (0x034F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
_PUNCTUATION = str.maketrans(
    dict.fromkeys(_DASHES, "-")
    | dict.fromkeys(_SINGLE_QUOTES, "'")
    | dict.fromkeys(_DOUBLE_QUOTES, '"')
    | {"\u2034": "'''", "\u2037": "'''", "\u2057": "''''", "\u0149": "'n"}
    | dict.fromkeys(map(chr, _VARIATIONS), "")
)

_INVISIBLE = frozenset({"Cc", "Cf", "Cs"})
"""Controls, formats, and halves of surrogate pairs, which no tokenizer takes."""

_ARABIC = "\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufefc"
_ARABIC_ZWNJ = re.compile(f"(?<=[{_ARABIC}])\u200c+(?=[{_ARABIC}])")

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?P<variants>(?:-(?:[a-z\d]{5,8}|\d[a-z\d]{3}))*)",
    re.ASCII | re.IGNORECASE,
)

_PLACEHOLDERS = frozenset({"nan", "null", "none"})

# Of Unicode's blocks: first code point, first one after, script. Only letters are looked up.
_BLOCKS: tuple[tuple[int, int, Script], ...] = (
    (0x00000, 0x00370, "Latin"),
    (0x00370, 0x00400, "Greek"),
    (0x00400, 0x00530, "Cyrillic"),
    (0x00590, 0x00600, "Hebrew"),
    (0x00600, 0x00700, "Arabic"),
    (0x00750, 0x00780, "Arabic"),
    (0x00870, 0x00900, "Arabic"),
    (0x00900, 0x00980, "Devanagari"),
    (0x00E00, 0x00E80, "Thai"),
    (0x01100, 0x01200, "Hangul"),
    (0x01C80, 0x01C90, "Cyrillic"),
    (0x01D00, 0x01F00, "Latin"),
    (0x01F00, 0x02000, "Greek"),
    (0x02070, 0x020A0, "Latin"),
    (0x0212A, 0x0212C, "Latin"),
    (0x02C60, 0x02C80, "Latin"),
    (0x02DE0, 0x02E00, "Cyrillic"),
    (0x02E80, 0x03040, "Han"),
    (0x03040, 0x03100, "Kana"),
    (0x03130, 0x03190, "Hangul"),
    (0x031F0, 0x03200, "Kana"),
    (0x03400, 0x0A000, "Han"),
    (0x0A640, 0x0A6A0, "Cyrillic"),
    (0x0A720, 0x0A800, "Latin"),
    (0x0A8E0, 0x0A900, "Devanagari"),
    (0x0A960, 0x0A980, "Hangul"),
    (0x0AB30, 0x0AB70, "Latin"),
    (0x0AC00, 0x0D800, "Hangul"),
    (0x0F900, 0x0FB00, "Han"),
    (0x0FB00, 0x0FB07, "Latin"),
    (0x0FB1D, 0x0FB50, "Hebrew"),
    (0x0FB50, 0x0FE00, "Arabic"),
    (0x0FE70, 0x0FF00, "Arabic"),
    (0x0FF21, 0x0FF5B, "Latin"),
    (0x0FF66, 0x0FFA0, "Kana"),
    (0x0FFA0, 0x0FFDD, "Hangul"),
    (0x1AFF0, 0x1B170, "Kana"),
    (0x20000, 0x323B0, "Han"),
)
_STARTS = [start for start, _, _ in _BLOCKS]


def normalise(text: str, lang: str = "und") -> str:
    """The form under which a text is compared: NFKC, case folded, plain dashes, quotes and spaces.

    Idempotent for the same `lang`. Control and format characters (soft hyphens, zero-width spaces,
    direction marks) and unpaired surrogates are dropped. So are ZWJ and ZWNJ, as in Unicode
    collation: in Indic scripts they choose a drawing, seldom a word (a Malayalam chillu spelled
    with ZWJ therefore differs from its own code point). But between Arabic letters ZWNJ becomes a
    space, for Persian writes the same word either way (Lucene's PersianCharFilter does the same).

    Turkish and Azeri (`lang` tr, az) fold I to dotless i and İ to i; elsewhere İ is i.
    Accents stay.
    """
    turkic = lang.partition("-")[0].lower() in _TURKIC
    if text.isascii() and text.isprintable():
        folded = (text.translate(_TURKIC_I) if turkic else text).lower()
        return " ".join(folded.replace("`", "'").split())
    text = text.translate(_PUNCTUATION)
    if not text.isprintable():
        text = _without_invisible(text)
    text = unicodedata.normalize("NFKC", text)
    if turkic:
        text = text.translate(_TURKIC_I)
    folded = _DRAWN_ONLY.sub("", text.casefold())
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _without_invisible(text: str) -> str:
    text = _ARABIC_ZWNJ.sub(" ", text)
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _INVISIBLE)


def script(text: str) -> Script:
    """The script of most of a text's letters; of equally frequent ones the first to appear.

    Marks, digits and punctuation do not count. A text without letters is "Other".
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else "Other"
    counts = Counter(_script_of(ord(char)) for char in text if char.isalpha())
    return max(counts, key=counts.__getitem__, default="Other")


def _script_of(code_point: int) -> Script:
    _, end, name = _BLOCKS[bisect_right(_STARTS, code_point) - 1]
    return name if code_point < end else "Other"


@cache
def language_tag(code: str) -> str:
    """A language's one BCP 47 tag: ``zh-TW``, ``pt-BR``, ``sr-Latn``; ``en`` for ``eng``.

    The form is checked, not whether the language is registered. Of several codes of a language the
    one that RFC 5646 prefers is taken (``iw`` gives ``he``, ``mo`` ``ro``), and for Norwegian
    without further word Bokmål, as Wikipedia has it. An underscore counts as a hyphen.

    Raises:
        InputError: no such tag (extensions and private use are not taken).
    """
    match = _TAG.fullmatch(code.replace("_", "-"))
    if match is None:
        raise InputError(
            f"language {code!r} is no BCP 47 tag: expected a code of two or three letters, then "
            "perhaps a script and a region, joined by hyphens, such as de, nna, pt-BR, zh-Hant-TW; "
            "or und for an unknown language"
        )
    language, script_code, region, variants = match.groups(default="")
    parts = [language.lower(), script_code.title(), region.upper(), variants.lower().lstrip("-")]
    tag = standardize_tag("-".join(filter(None, parts)))
    return "nb" + tag[2:] if tag.partition("-")[0] == "no" else tag


def unusable(text: str) -> str | None:
    """Why a text cannot be an alias, or None.

    The reasons are few and fixed phrases, so that they can be counted. White space around
    the text is the caller's to remove.
    """
    if not text:
        return "text is empty"
    if len(text) > MAX_TEXT:
        return f"text is longer than {MAX_TEXT} code points"
    if text.casefold() in _PLACEHOLDERS:
        return "text is a placeholder (nan, null or none)"
    if not any(map(str.isalnum, text)):
        return "text has no letter or digit"
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
        return "text holds a control character"
    return None
