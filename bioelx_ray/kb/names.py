"""What is sound text but names no concept: numbers, boilerplate, whole paragraphs."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MAX_NAME = 256
"""Code points. Longer ones are definitions, or lists that no text mentions as a whole."""

BOILERPLATE = frozenset(
    f"{word}{of}"
    for word in ("abnormality", "condition", "disease", "disorder", "finding", "syndrome", "type")
    for of in (" of", " of the", ", unspecified", " nos", ", nos")
) | {
    *("none", "nan", "null", "n/a", "other", "others", "other specified", "see comment"),
    *("not applicable", "not available", "not otherwise specified", "not specified", "obsolete"),
    *("unknown", "unspecified", "to be determined", "deprecated"),
}
"""Forms that stand in vocabularies but say nothing. A bare "disease" does name a concept,
and so do short words that are acronyms too: ALL is a leukaemia, NOS an enzyme."""

_BOILERPLATE = pa.array(sorted(BOILERPLATE))


def drop_reasons(forms: pa.Array) -> pa.Array:
    """Why each of some normalised forms is no name, as fixed phrases; null where it is one."""
    no_letter = pc.invert(pc.match_substring_regex(forms, r"\p{L}"))
    return pc.case_when(
        pc.make_struct(
            pc.equal(pc.binary_length(forms), 0),
            pc.greater(pc.utf8_length(forms), MAX_NAME),
            no_letter,
            pc.is_in(forms, value_set=_BOILERPLATE),
        ),
        "empty",
        f"longer than {MAX_NAME} code points",
        "no letter",
        "boilerplate",
        pa.scalar(None, pa.string()),
    )
