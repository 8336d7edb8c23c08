"""The README of a published model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from bioelx_ray.artifacts import Source
from bioelx_ray.records import UNDETERMINED

_USE = """\
## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("DIRECTORY")
vectors = model.encode(["Herzinfarkt", "心肌梗死"])  # unit length: compare by inner product
```

or `bioelx index KB --encoder DIRECTORY --out INDEX`. Pooling is {pooling}, the prefix of every text
{prefix!r}, and texts are cut at {max_length} tokens.

## Intended use

Finding the concept that a name of a disease, drug, anatomical structure or other biomedical concept
stands for, by comparing the name with the aliases of a knowledge base, within and across languages.

## Limits

- Names, not sentences: it was trained on aliases without context, and does not tell the meanings of
  an ambiguous name apart.
- It proposes candidates. What comes first may be wrong, and something always comes first.
- Languages and vocabularies with few aliases in the training data are served worse than the mean.
- Not a medical device: not for decisions about patients without a qualified person's check.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model's README says of it.

    `training` are the settings, `figures` measured values by name (a value may be a mapping again),
    and `measured_with` the command that gives them. `langs` are BCP 47 tags. `licence` is that of
    the weights in the hub's spelling, ``other`` where the sources' licences decide.
    """

    title: str
    base_model: str
    langs: Sequence[str]
    sources: Sequence[Source]
    training: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    measured_with: str = ""
    licence: str = "other"


def render(card: Card, settings: Mapping[str, Any]) -> str:
    """The README in Markdown, with the metadata that the Hugging Face hub reads.

    `settings` are pooling, prefix and max_length.
    """
    langs = sorted({lang.partition("-")[0].lower() for lang in card.langs} - {UNDETERMINED})
    metadata = {
        "language": langs,
        "license": card.licence,
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "base_model": card.base_model,
        "tags": ["sentence-transformers", "biomedical", "entity-linking", "feature-extraction"],
    }
    sources = [(s.name, s.version, s.licence, s.note) for s in card.sources]
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---",
        f"# {_inline(card.title)}",
        f"Maps biomedical names to unit vectors. Trained from {_inline(card.base_model)}.",
        _USE.format(**settings).rstrip(),
        "## Training data",
        "Licences are those of the sources.",
        _table(("source", "version", "licence", "note"), sources),
        "## Training",
        f"```yaml\n{yaml.safe_dump(_plain(card.training), allow_unicode=True)}```",
    ]
    if card.figures:
        parts += ["## Figures", _table(("figure", "value"), _rows(card.figures))]
        if card.measured_with:
            parts.append(f"Measured with `{_inline(card.measured_with)}`.")
    return "\n\n".join(parts) + "\n"


def _rows(figures: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{above}{name}, ")
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else str(value)
            rows.append((f"{above}{name}", shown))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def _inline(text: str) -> str:
    return " ".join(text.split())


def _plain(value: object) -> object:
    """What YAML can say: mappings, lists, numbers, text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
