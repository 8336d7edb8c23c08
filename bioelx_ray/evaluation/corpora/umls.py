"""The concept ids of benchmarks that are annotated with UMLS."""

from __future__ import annotations

import re

from bioelx_ray.errors import InputError

# XL-BEL, Wikidata's P2892 and MONDO also hold provisional ids: CL of the NCI Metathesaurus, CN of
# MedGen. They stay in the gold, as UMLS ids, so that a knowledge base that has them can be right.
_CUI = re.compile(r"C[0-9]{7}|C[LN][0-9]{6,7}")


def umls_id(cui: str) -> str:
    """The concept id of a CUI: ``C0027051`` -> ``umls:C0027051``.

    Raises:
        InputError: it has not the form of a CUI.
    """
    if not _CUI.fullmatch(cui):
        raise InputError(f"{cui!r} is no CUI: C and seven digits are expected (or CL..., CN...)")
    return f"umls:{cui}"
