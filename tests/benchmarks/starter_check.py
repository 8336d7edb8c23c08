"""How much of the starter table another knowledge base confirms.

    python -m tests.benchmarks.starter_check KB [--write]

KB is a knowledge base built from a table of UMLS concepts (`bioelx harvest open_kb.tsv --out KB`).
An id is confirmed if KB has it; a name, if one of that concept's aliases in the same language has
the same normalised form. Names can be checked only in the languages that KB has for the concept.
`--write` keeps the figures in ``starter.json``, from where every manifest takes them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from bioelx_ray.artifacts import sha256_file
from bioelx_ray.kb.packaged import starter
from bioelx_ray.kb.readers.reading import read_file
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias


def check(kb: KnowledgeBase) -> dict[str, object]:
    """The figures, over all aliases of the starter table."""
    table = starter()
    aliases = [r for r in read_file(table, Rejects()) if isinstance(r, Alias)]
    ids = sorted({alias.concept_id for alias in aliases})
    known = {id_: _forms(kb, id_) for id_ in ids}
    checkable, confirmed = Counter[str](), Counter[str]()
    for alias in aliases:
        forms = known[alias.concept_id].get(alias.lang)
        if forms:
            checkable[alias.lang] += 1
            confirmed[alias.lang] += normalise(alias.text, alias.lang) in forms
    return {
        "sha256": sha256_file(table.path),
        "concepts": len(ids),
        "languages": sorted({alias.lang for alias in aliases}),
        "names": len(aliases),
        "ids_confirmed": sum(id_ in kb for id_ in ids),
        "names_checkable": checkable.total(),
        "names_confirmed": confirmed.total(),
        "confirmed_by_language": {
            lang: f"{confirmed[lang]}/{n}" for lang, n in sorted(checkable.items())
        },
    }


def _forms(kb: KnowledgeBase, concept_id: str) -> dict[str, set[str]]:
    forms: dict[str, set[str]] = {}
    for alias in kb.aliases_of(concept_id):
        forms.setdefault(alias.lang, set()).add(normalise(alias.text, alias.lang))
    return forms


def main() -> None:
    figures = check(KnowledgeBase.open(Path(sys.argv[1])))
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)
    if "--write" in sys.argv[2:]:
        starter().path.with_suffix(".json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
