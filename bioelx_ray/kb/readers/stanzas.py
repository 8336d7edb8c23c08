"""The syntax of OBO 1.4 (https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from bioelx_ray.errors import InputError
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.text import language_tag, unusable
from bioelx_ray.records import MappingKind

_BOM = b"\xef\xbb\xbf"
_SCOPES = frozenset({"EXACT", "NARROW", "BROAD", "RELATED"})
_LINE = re.compile(r"([A-Za-z_][\w\-]*):\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "W": " "}
# A value may end in {qualifiers} and in a ! comment.
_TRAILER = re.compile(r"\s+(\{[^{}]*\}\s*)?(!\s.*)?$")
_QUALIFIERS = re.compile(r"\{([^{}]*)\}\s*(?:!\s.*)?$")
_QUALIFIER = re.compile(r'([\w:.\-]+)\s*=\s*"((?:[^"\\]|\\.)*)"')
_MATCH = re.compile(
    r'"?(?:skos:|http://www\.w3\.org/2004/02/skos/core#)?(\w+Match)"?\s+(.*)', re.DOTALL
)

_MATCHES: dict[str, MappingKind] = {
    "exactMatch": "exact",
    "closeMatch": "close",
    "broadMatch": "broad",
    "narrowMatch": "narrow",
    "relatedMatch": "related",
}
# Mondo says in an xref's source how its term relates to the other.
_SOURCES: dict[str, MappingKind] = {
    "MONDO:equivalentTo": "exact",
    "MONDO:mondoIsNarrowerThanSource": "broad",
    "MONDO:mondoIsBroaderThanSource": "narrow",
    "MONDO:relatedTo": "related",
}
_PREFERRED = "MONDO:preferredExternal"
_LANGUAGE = ("lang", "xml:lang")
_URL = ("http://", "https://")

Reject = Callable[[int, bytes, str], None]
"""Takes the line number, the line and the reason."""


class _BadValue(ValueError):
    """A value that breaks the format. Its text is the reason."""


@dataclass(slots=True)
class Synonym:
    """A synonym as written. `kind` is its type, such as ``layperson``, or empty, as `lang` is."""

    text: str
    scope: str
    kind: str
    lang: str


@dataclass(slots=True)
class Match:
    """An id of another vocabulary of which the ontology says how it matches the term."""

    id: str
    kind: MappingKind
    preferred: bool = False


@dataclass(slots=True)
class Term:
    """A [Term] stanza that began at `line`. What was missing or broken is empty."""

    line: int
    id: str = ""
    name: str = ""
    definition: str | None = None
    synonyms: list[Synonym] = field(default_factory=list)
    xrefs: list[str] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    former_ids: list[str] = field(default_factory=list)
    replacements: list[str] = field(default_factory=list)
    obsolete: bool = False


@dataclass(slots=True)
class Stanza:
    """A stanza's head, such as ``[Term]``, and its lines with their numbers."""

    line: int
    head: bytes
    lines: list[tuple[int, bytes]] = field(default_factory=list)


def stanzas(lines: Iterable[bytes]) -> Iterator[Stanza]:
    """The header, with an empty head, then the stanzas. Empty lines and comments are left out."""
    stanza = Stanza(line=1, head=b"")
    for number, raw in enumerate(lines, start=1):
        row = raw.removeprefix(_BOM if number == 1 else b"").strip()
        if row.startswith(b"[") and row.endswith(b"]"):
            yield stanza
            stanza = Stanza(line=number, head=row)
        elif row and not row.startswith(b"!"):
            stanza.lines.append((number, row))
    yield stanza


def parse_term(stanza: Stanza, reject: Reject) -> Term:
    """The term of a stanza, without its broken lines, which `reject` is told of."""
    term = Term(line=stanza.line)
    for number, row in stanza.lines:
        try:
            _read_line(term, row.decode())
        except UnicodeDecodeError:
            reject(number, row, "line is not UTF-8")
        except _BadValue as error:
            reject(number, row, str(error))
    return term


def _read_line(term: Term, line: str) -> None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise _BadValue("line is no 'tag: value'")
    tag, value = match.groups()
    if read := _TAGS.get(tag):
        read(term, value)


def _read_id(term: Term, value: str) -> None:
    if term.id:
        raise _BadValue("term has a second id")
    term.id = _identifier(value)


def _read_name(term: Term, value: str) -> None:
    if term.name:
        raise _BadValue("term has a second name")
    term.name = _usable(_unescape(_TRAILER.sub("", value)))


def _read_def(term: Term, value: str) -> None:
    term.definition = _unescape(_quoted(value)[0]).strip() or None


def _read_synonym(term: Term, value: str) -> None:
    text, rest = _quoted(value)
    # OBO 1.2 lets the scope out and means RELATED.
    scope, kind, *_ = [*rest.partition("[")[0].split(), "", ""]
    if scope and scope not in _SCOPES:
        raise _BadValue("synonym has an unknown scope")
    text = _usable(_unescape(text))
    term.synonyms.append(Synonym(text, scope or "RELATED", kind, _language(rest)))


def _language(value: str) -> str:
    """The language that the qualifiers of a value name, or nothing.

    OBO 1.4 has no languages; some write ``{lang="de"}``.
    """
    code = next((code for name, code in _qualifiers(value) if name in _LANGUAGE), "")
    try:
        return language_tag(code) if code else ""
    except InputError:
        raise _BadValue("language is no BCP 47 tag") from None


def _read_xref(term: Term, value: str) -> None:
    first = value.split(maxsplit=1)[0] if value else ""
    if first.startswith(_URL):
        term.xrefs.append(first)
        return
    id_ = _identifier(value)
    sources = [source for name, source in _qualifiers(value) if name == "source"]
    kind = next((_SOURCES[source] for source in sources if source in _SOURCES), None)
    if kind is None:
        term.xrefs.append(id_)
    else:
        term.matches.append(Match(id_, kind, _PREFERRED in sources))


def _read_property(term: Term, value: str) -> None:
    """SKOS matches only. URLs are left out: where Mondo writes them, its xrefs say the same."""
    match = _MATCH.match(value)
    kind = _MATCHES.get(match[1]) if match else None
    if match is None or kind is None:
        return
    text = _quoted(match[2])[0] if match[2].startswith('"') else match[2]
    if not _unescape(text).startswith(_URL):
        term.matches.append(Match(_identifier(text), kind))


def _read_former_id(term: Term, value: str) -> None:
    term.former_ids.append(_identifier(value))


def _read_replacement(term: Term, value: str) -> None:
    term.replacements.append(_identifier(value))


def _read_parent(term: Term, value: str) -> None:
    term.parents.append(_identifier(value))


def _read_obsolete(term: Term, value: str) -> None:
    term.obsolete = value.startswith("true")


_TAGS: dict[str, Callable[[Term, str], None]] = {
    "id": _read_id,
    "name": _read_name,
    "def": _read_def,
    "synonym": _read_synonym,
    "xref": _read_xref,
    "property_value": _read_property,
    "alt_id": _read_former_id,
    "replaced_by": _read_replacement,
    "is_a": _read_parent,
    "is_obsolete": _read_obsolete,
}


def _identifier(value: str) -> str:
    """The CURIE that a value begins with; a description, qualifiers or a comment may follow."""
    words = value.split(maxsplit=1)
    found = curie(_unescape(words[0])) if words else None
    if found is None:
        raise _BadValue("identifier is no CURIE (prefix:local)")
    return found


def _qualifiers(value: str) -> list[tuple[str, str]]:
    """Names and values of the ``{name="value", ...}`` that a value ends in."""
    match = _QUALIFIERS.search(value)
    return [(m[1], _unescape(m[2])) for m in _QUALIFIER.finditer(match[1])] if match else []


def _quoted(value: str) -> tuple[str, str]:
    match = _QUOTED.match(value)
    if match is None:
        raise _BadValue("quoted string is missing or not terminated")
    return match[1], match[2]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text)


def _usable(text: str) -> str:
    text = text.strip()
    if reason := unusable(text):
        raise _BadValue(reason)
    return text
