"""OBO ontologies: HPO, Disease Ontology, Mondo, Uberon and their kin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from bioelx_ray.kb.readers.stanzas import Reject, Stanza, Term, parse_term, stanzas
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias, Concept, IdMapping, Retired

LANG = "en"


def read_obo(
    lines: Iterable[bytes],
    *,
    origin: str,
    rejects: Rejects,
    scopes: Collection[str] = ("EXACT",),
) -> Iterator[Concept | Alias | IdMapping | Retired]:
    """The terms of an ontology: each concept, its aliases and mappings, in the order of the file.

    Synonyms of another scope than `scopes` or of a type that the header declares obsolete are left
    out. The name is the preferred alias; aliases are English, unless a synonym is qualified
    with another language. An xref becomes a mapping if the file says how it matches (a SKOS
    property, or Mondo's qualifiers), else it stays with the concept; a URL is kept as it is.
    Last come obsolete terms and former ids (`alt_id`), so that data annotated with them still
    finds the concept; a term that the file only asks to consider is no replacement.
    `semantic_types` are the names of the ancestors directly below a root, so the whole file is
    read before the first concept is given.

    Args:
        lines: the file's lines, UTF-8.
        origin: how `rejects` call the file.
        rejects: takes what cannot be read: a broken line costs that line, a term without id or
            name (the name of an obsolete one may be missing), or with an id seen before, costs
            the term.
        scopes: which synonyms to take, of EXACT, NARROW, BROAD and RELATED.
    """

    def reject(line: int, row: bytes, reason: str) -> None:
        rejects.add(origin, line, reason=reason, row=row)

    terms: dict[str, Term] = {}
    obsolete: list[Term] = []
    skipped: frozenset[str] = frozenset()
    for stanza in stanzas(lines):
        if not stanza.head:
            skipped = _obsolete_types(stanza)
        elif stanza.head == b"[Term]":
            term = parse_term(stanza, reject)
            if not _is_complete(term, terms, reject):
                continue
            if term.obsolete:
                obsolete.append(term)
            else:
                terms[term.id] = term
    types = _semantic_types(terms)
    for term in terms.values():
        term.synonyms = [s for s in term.synonyms if s.scope in scopes and s.kind not in skipped]
        yield from _records(term, types[term.id])
    yield from _retired(terms, obsolete)


def _obsolete_types(header: Stanza) -> frozenset[str]:
    declared = (
        row.decode("utf-8", "replace").split(maxsplit=2)[1:]
        for _, row in header.lines
        if row.startswith(b"synonymtypedef:")
    )
    return frozenset(words[0] for words in declared if "obsolete" in " ".join(words).lower())


def _is_complete(term: Term, terms: dict[str, Term], reject: Reject) -> bool:
    if not term.id:
        reason = "term has no id"
    elif not term.name and not term.obsolete:
        reason = "term has no name"
    elif term.id in terms:
        reason = "term has an id seen before"
    else:
        return True
    reject(term.line, f"[Term] {term.id} {term.name}".strip().encode(), reason)
    return False


def _semantic_types(terms: dict[str, Term]) -> dict[str, tuple[str, ...]]:
    """For each term the names of the terms directly below a root that it is, or descends from.

    A root has no parent at all: a parent that a slim leaves out still is one.
    """
    children: defaultdict[str, list[str]] = defaultdict(list)
    for term in terms.values():
        for parent in term.parents:
            children[parent].append(term.id)
    types: dict[str, set[str]] = {id_: set() for id_ in terms}
    tops = {top for id_, term in terms.items() if not term.parents for top in children[id_]}
    for top in tops:
        for id_ in _descendants(top, children):
            types[id_].add(terms[top].name)
    return {id_: tuple(sorted(names)) for id_, names in types.items()}


def _descendants(top: str, children: dict[str, list[str]]) -> set[str]:
    """A term and all below it, whether or not the graph has cycles."""
    seen, open_ = {top}, [top]
    while open_:
        new = {child for child in children.get(open_.pop(), ()) if child not in seen}
        seen |= new
        open_ += new
    return seen


def _records(term: Term, semantic_types: tuple[str, ...]) -> Iterator[Concept | Alias | IdMapping]:
    source = _source(term.id)
    matched = {match.id for match in term.matches}
    yield Concept(
        id=term.id,
        name=term.name,
        semantic_types=semantic_types,
        definition=term.definition,
        xrefs=tuple(dict.fromkeys(xref for xref in term.xrefs if xref not in matched)),
    )
    forms = [(term.name, LANG), *((s.text, s.lang or LANG) for s in term.synonyms)]
    for text, lang in dict.fromkeys(forms):
        yield Alias(
            concept_id=term.id,
            text=text,
            lang=lang,
            source=source,
            preferred=(text, lang) == forms[0],
        )
    # Mondo states most matches twice, once with its preference.
    preferred = {(match.id, match.kind) for match in term.matches if match.preferred}
    for id_, kind in dict.fromkeys((match.id, match.kind) for match in term.matches):
        yield IdMapping(
            subject_id=term.id,
            object_id=id_,
            kind=kind,
            source=source,
            preferred=(id_, kind) in preferred,
        )


def _retired(terms: dict[str, Term], obsolete: list[Term]) -> Iterator[Retired]:
    """Obsolete and former ids that no term uses. What an obsolete term says of itself goes first.

    A former id of an obsolete term is replaced by what replaces the term.
    """
    replaced_by: dict[str, str | None] = {}
    for term in obsolete:
        others = (id_ for id_ in term.replacements if id_ != term.id)
        replaced_by[term.id] = replaced_by.get(term.id) or next(others, None)
    for term in terms.values():
        for id_ in term.former_ids:
            replaced_by[id_] = replaced_by.get(id_) or term.id
    for term in obsolete:
        for id_ in term.former_ids:
            replaced_by[id_] = replaced_by.get(id_) or replaced_by[term.id]
    for id_, replacement in replaced_by.items():
        if id_ not in terms:
            yield Retired(id=id_, replaced_by=replacement, source=_source(id_))


def _source(id_: str) -> str:
    return f"obo:{id_.partition(':')[0]}"
