"""The codes of UMLS: languages, concept numbers, semantic types and their groups."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_ray.config import UmlsConfig
from bioelx_ray.errors import ConfigError, InputError
from bioelx_ray.kb.text import language_tag

LANGUAGES = {
    "ARA": "ar",
    "BAQ": "eu",
    "BUL": "bg",
    "CHI": "zh",
    "CZE": "cs",
    "DAN": "da",
    "DUT": "nl",
    "ENG": "en",
    "EST": "et",
    "FIN": "fi",
    "FRE": "fr",
    "GER": "de",
    "GRE": "el",
    "HEB": "he",
    "HRV": "hr",
    "HUN": "hu",
    "ICE": "is",
    "ISL": "is",
    "ITA": "it",
    "JPN": "ja",
    "KOR": "ko",
    "LAV": "lv",
    "LIT": "lt",
    "NOR": "no",
    "POL": "pl",
    "POR": "pt",
    "RUM": "ro",
    "RUS": "ru",
    "SCR": "hr",
    "SLO": "sk",
    "SLV": "sl",
    "SPA": "es",
    "SWE": "sv",
    "TUR": "tr",
    "UKR": "uk",
}
"""LAT to BCP 47. LAT is ISO 639-2/B in capitals; SCR is its former code of Croatian."""

SUPPRESSED = ("O", "E", "Y")
"""SUPPRESS: obsolete, suppressed by an editor, of a suppressible term type. N is none of these."""

_TRANSLATION = re.compile(rf"..+(?:{'|'.join(sorted(LANGUAGES.keys() - {'ENG'}))})")
_TUI = re.compile(r"T\d{3}", re.ASCII)
_LETTERS, _DIGITS = 1, 7
_HEAD = np.frombuffer(b"umls:C", dtype=np.uint8)
_POWERS = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int32)


def cui_numbers(column: pa.BinaryArray) -> NDArray[np.int32]:
    """The numbers of CUIs (C and seven digits), int32 [n]; -1 where a value is none."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column) + 1]
    lengths = np.diff(offsets)
    width = _LETTERS + _DIGITS
    fits = lengths == width
    if not fits.all():
        numbers = np.full(len(column), -1, dtype=np.int32)
        if fits.any():
            numbers[fits] = cui_numbers(column.filter(pa.array(fits)))
        return numbers
    if not len(column):
        return np.empty(0, dtype=np.int32)
    letters = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    letters = letters.reshape(-1, width)
    digits = letters[:, _LETTERS:] - np.uint8(ord("0"))  # wraps: what is no digit is above 9
    sound = (letters[:, 0] == ord("C")) & (digits <= 9).all(axis=1)
    numbers = digits.astype(np.int32) @ _POWERS
    numbers[~sound] = -1
    return numbers


def concept_ids(numbers: NDArray[np.int32]) -> pa.StringArray:
    """The concept ids of CUI numbers: 27051 gives ``umls:C0027051``."""
    width = len(_HEAD) + _DIGITS
    letters = np.empty((len(numbers), width), dtype=np.uint8)
    letters[:, : len(_HEAD)] = _HEAD
    for place, power in enumerate(_POWERS, start=len(_HEAD)):
        letters[:, place] = numbers // power % 10 + ord("0")
    offsets = np.arange(0, (len(numbers) + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(letters))


def among(numbers: NDArray[np.int32], chosen: NDArray[np.int32] | None) -> NDArray[np.bool_]:
    """Which numbers occur in a sorted array; all of them where that is None."""
    if chosen is None:
        return np.ones(len(numbers), dtype=bool)
    if not len(chosen):
        return np.zeros(len(numbers), dtype=bool)
    places = np.minimum(np.searchsorted(chosen, numbers), len(chosen) - 1)
    return np.asarray(chosen[places] == numbers, dtype=bool)


def is_translation(vocabulary: str) -> bool:
    """Whether an abbreviation ends in another language than English: MSHCZE, SCTSPA."""
    return _TRANSLATION.fullmatch(vocabulary) is not None


def chosen_languages(config: UmlsConfig) -> frozenset[str]:
    """The tags that are chosen; all that UMLS has where none is.

    Raises:
        ConfigError: UMLS has no such language. It tells languages apart, not regions or scripts.
    """
    known = frozenset(LANGUAGES.values())
    try:
        chosen = frozenset(map(language_tag, config.langs))
    except InputError as error:
        raise ConfigError(f"umls.langs: {error}") from error
    if missing := chosen - known:
        raise ConfigError(
            f"umls.langs: UMLS has no texts in {', '.join(sorted(missing))}; it has "
            f"{', '.join(sorted(known))}"
        )
    return chosen or known


def chosen_types(config: UmlsConfig) -> frozenset[str]:
    """The TUIs of the types and of the groups that are chosen together; none where none is.

    Raises:
        ConfigError: no such group, or a type that is no TUI.
    """
    groups = semantic_groups()
    known = frozenset(groups.values())
    if missing := set(config.semantic_groups) - known:
        raise ConfigError(
            f"umls.semantic_groups: unknown {', '.join(sorted(missing))}; expected some of "
            f"{', '.join(sorted(known))}"
        )
    if wrong := [tui for tui in config.semantic_types if not _TUI.fullmatch(tui)]:
        raise ConfigError(
            f"umls.semantic_types: {', '.join(wrong)} is no TUI; expected T and three digits, such "
            "as T047"
        )
    grouped = {tui for tui, group in groups.items() if group in config.semantic_groups}
    return frozenset(config.semantic_types) | grouped


def is_tui(text: str) -> bool:
    """Whether a text has the form of a TUI: T and three digits."""
    return _TUI.fullmatch(text) is not None


@cache
def semantic_groups() -> dict[str, str]:
    """The semantic group of each semantic type of UMLS: ``{"T047": "DISO", ...}``.

    McCray, Burgun, Bodenreider: Aggregating UMLS semantic types for reducing conceptual
    complexity. MEDINFO 2001.
    """
    data = resources.files("bioelx_ray.kb") / "data" / "semantic_groups.tsv"
    rows = (line.split("\t") for line in data.read_text(encoding="utf-8").splitlines()[1:])
    return {tui: group for tui, group, _ in rows}
