"""Wikidata's language codes and Wikipedia's site codes as BCP 47 tags.

Most of the codes are tags already. The others are older than the tags, or MediaWiki's own
(https://www.mediawiki.org/wiki/Manual:Language#Language_code).
"""

from __future__ import annotations

from collections.abc import Collection

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import language_tag
from bioelx_ray.records import UNDETERMINED

ANY_LANGUAGE = "mul"
"""Wikidata's code for names that are the same in many languages."""

_TAGS = {
    # Alemannic; the tag als is Tosk Albanian.
    "als": "gsw",
    "bat-smg": "sgs",
    "be-x-old": "be-tarask",
    "bh": "bho",
    "cbk-zam": "cbk",
    "de-formal": "de",
    "dk": "da",
    "eml": "egl",
    "es-formal": "es",
    "fiu-vro": "vro",
    "hu-formal": "hu",
    "map-bms": "jv",
    "mo": "ro-Cyrl",
    "nl-informal": "nl",
    # Wikipedia's no and Wikidata's nb are both Bokmål.
    "no": "nb",
    "nrm": "nrf",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "en-simple",
    "sr-ec": "sr-Cyrl",
    "sr-el": "sr-Latn",
    "tokipona": "tok",
    "zh-classical": "lzh",
    "zh-min-nan": "nan",
    "zh-yue": "yue",
}

_NO_LANGUAGE = frozenset(
    {
        "beta",
        "commons",
        "foundation",
        "incubator",
        "mediawiki",
        "meta",
        "nostalgia",
        "outreach",
        "sources",
        "species",
        "strategy",
        "ten",
        "test",
        "test2",
        "testwikidata",
        "usability",
        "wikidata",
        "wikifunctions",
        "wikimania",
    }
)


def wikidata_tag(code: str) -> str:
    """The tag of a language code; ``und`` for one that cannot be written as a tag."""
    code = code.lower().replace("_", "-")
    try:
        return _TAGS.get(code) or language_tag(code)
    except InputError:
        return UNDETERMINED


def wikipedia_tag(site: str) -> str | None:
    """The tag of a Wikipedia such as ``zh_yuewiki``, or None where a site is no Wikipedia."""
    code = site.removesuffix("wiki")
    if code == site or code in _NO_LANGUAGE:
        return None
    return wikidata_tag(code)


class Languages:
    """The languages that are wanted: none at all means every one.

    A wanted tag takes itself and what is more special (RFC 4647, basic filtering): ``zh`` takes
    ``zh-Hans``. Names for many languages (``mul``) are always taken.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = tuple(f"{wikidata_tag(code)}-".lower() for code in wanted)
        self._tags: dict[str, str | None] = {}

    def tag(self, code: str) -> str | None:
        """The tag of Wikidata's code, or None if it is not wanted."""
        if code not in self._tags:
            self._tags[code] = self._chosen(wikidata_tag(code))
        return self._tags[code]

    def tag_of_site(self, site: str) -> str | None:
        """The tag of a Wikipedia, or None if it is not wanted or the site is no Wikipedia."""
        key = f"site:{site}"
        if key not in self._tags:
            tag = wikipedia_tag(site)
            self._tags[key] = self._chosen(tag) if tag else None
        return self._tags[key]

    def _chosen(self, tag: str) -> str | None:
        if not self._wanted or tag == ANY_LANGUAGE:
            return tag
        return tag if f"{tag}-".lower().startswith(self._wanted) else None
