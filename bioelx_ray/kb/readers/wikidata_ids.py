"""Ids of other vocabularies as Wikidata's users write them, as CURIEs."""

from __future__ import annotations

import re

from bioelx_ray.kb.curie import curie

# What a local part must look like. Vocabularies that are not listed take any.
_LOCAL = {
    "umls": r"C\d{7}",
    # descriptors, supplementary concepts, qualifiers; P6694 has concepts (M), P6680 terms (T)
    "mesh": r"[CDMQT]\d{6,9}",
    "doid": r"\d+",
    "hp": r"\d{7}",
    "mondo": r"\d{7}",
    "uberon": r"\d{7}",
    "snomedct": r"\d{6,18}",
    "orphanet": r"\d+",
    "ncit": r"C\d+",
    "omim": r"\d{6}",
    "icd10": r"[A-Z]\d\d(\.\d{1,2})?",
    "icd10cm": r"[A-Z]\d[\dA-Z](\.[\dA-Z]{1,4})?",
}
_PATTERNS = {prefix: re.compile(local, re.ASCII) for prefix, local in _LOCAL.items()}
# Prefixes that users leave in the value: DOID:1612, HP_0001250, Orphanet:558.
_WITH_PREFIX = re.compile(r"([A-Za-z][A-Za-z_]*)[:_](\S+)", re.ASCII)


def curie_of(value: str, prefix: str) -> str | None:
    """The CURIE of a value of a vocabulary, or None where it cannot be one of its ids.

    Ranges of codes (``A00-B99``) are none. White space around the value, and the vocabulary's
    prefix in front of it, are removed.
    """
    local = value.strip()
    if match := _WITH_PREFIX.fullmatch(local):
        named = curie(f"{match[1]}:{match[2]}")
        if named and named.partition(":")[0] == prefix:
            local = match[2]
    pattern = _PATTERNS.get(prefix)
    if pattern and not pattern.fullmatch(local):
        return None
    return curie(f"{prefix}:{local}")
