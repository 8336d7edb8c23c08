"""Identifiers in Bioregistry form (https://bioregistry.io): ``umls:C0027051``, ``icd10:I21``."""

from __future__ import annotations

import re

# A local part that begins with a slash belongs to a URL.
_CURIE = re.compile(r"([A-Za-z][\w.\-]*):([^\s/]\S*)", re.ASCII)

# DO writes the release into the prefix: SNOMEDCT_US_2025_09_01.
_SNOMED = re.compile(r"snomed(_?ct)?(_us)?(_[\d_]+)?|sctid|sct")
_SERIES = re.compile(r"PS(\d+)")

_PREFIXES = {
    "umls_cui": "umls",
    "msh": "mesh",
    "icd-10": "icd10",
    "icd10who": "icd10",
    "icd-10-cm": "icd10cm",
    "icd-9": "icd9",
    "icd-9-cm": "icd9cm",
    "icd-11": "icd11",
    "icd11.foundation": "icd11",
    "icd-o": "icdo",
    "orpha": "orphanet",
    "ordo": "orphanet",
    "nci": "ncit",
    "ncithesaurus": "ncit",
    "mim": "omim",
    "omimps": "omim.ps",
    "pmid": "pubmed",
}


def curie(text: str) -> str | None:
    """An identifier with its prefix as Bioregistry writes it, or None where it is no CURIE.

    Prefixes that are not in the table are lower-cased: ``HP:0000001`` gives ``hp:0000001``.
    Phenotypic series of OMIM, which some write among its entries (``MIM:PS203655``), get their
    own prefix; GARD's numbers, which some pad with zeros, lose the padding.
    """
    match = _CURIE.fullmatch(text)
    if match is None:
        return None
    prefix, local = match[1].lower(), match[2]
    if _SNOMED.fullmatch(prefix):
        return f"snomedct:{local}"
    prefix = _PREFIXES.get(prefix, prefix)
    if prefix.startswith("omim") and (series := _SERIES.fullmatch(local)):
        return f"omim.ps:{series[1]}"
    if prefix == "gard":
        local = local.lstrip("0") or local
    return f"{prefix}:{local}"
