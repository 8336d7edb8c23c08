"""Identifiers in Bioregistry form (https://bioregistry.io): ``umls:C0027051``, ``icd10:I21``."""

from __future__ import annotations

import re

# A local part that begins with a slash belongs to a URL.
_CURIE = re.compile(r"([A-Za-z][\w.\-]*):([^\s/]\S*)", re.ASCII)

# DO writes the release into the prefix: SNOMEDCT_US_2025_09_01.
_SNOMED = re.compile(r"snomed_?ct(_us)?(_[\d_]+)?|sctid")

_PREFIXES = {
    "umls_cui": "umls",
    "msh": "mesh",
    "icd-10": "icd10",
    "icd-9": "icd9",
    "icd-11": "icd11",
    "icd-o": "icdo",
    "orpha": "orphanet",
    "ordo": "orphanet",
    "nci": "ncit",
    "mim": "omim",
    "pmid": "pubmed",
}


def curie(text: str) -> str | None:
    """An identifier with its prefix as Bioregistry writes it, or None where it is no CURIE.

    Prefixes that are not in the table are lower-cased: ``HP:0000001`` gives ``hp:0000001``.
    """
    match = _CURIE.fullmatch(text)
    if match is None:
        return None
    prefix, local = match[1].lower(), match[2]
    if _SNOMED.fullmatch(prefix):
        return f"snomedct:{local}"
    return f"{_PREFIXES.get(prefix, prefix)}:{local}"
