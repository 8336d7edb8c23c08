"""The development metric of training: Recall@1 on aliases that a knowledge base hides from itself.

::

    bioelx holdout kb --out dev
    bioelx pairs kb --exclude dev/exclude.tsv --out pairs      # what is asked is not trained on
    recall = evaluate(encoder.encode, open_development(Path("dev")))

No benchmark is in it. A query is an alias whose form no other language of its concept has; it is to
be found by the concept's other forms. Every second query of a language is *crossing*: hidden are
all forms of the concept in that language, as for a mention whose language the knowledge base lacks
(see also `heldout`, whose questions are for an index that is there already). The dictionary is a
slice: some forms of the queries' concepts and of others, so that it can be embedded anew at every
evaluation: 1,600 queries and 8,000 forms cost 100 CPU seconds with multilingual-e5-small. Figures
over a slice are higher than over the whole, and good for comparing alone; with 1,600 queries the
standard error of the mean is a little over one point.

An artifact of the kind ``development`` holds ``queries.arrow``, ``forms.arrow`` and
``exclude.tsv``, so that all workers and a resumed run are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact, Manifest, code_version, open_artifact, publish
from bioelx_ray.errors import EncoderError
from bioelx_ray.kb.exclusion import FORM, GOLD, TEXT
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval.held_aliases import Development, Hidden, Query, hold_out

__all__ = [
    "Development",
    "build_development",
    "evaluate",
    "hold_out",
    "open_development",
    "write_exclusion",
]

QUERIES, FORMS, EXCLUDE = "queries.arrow", "forms.arrow", "exclude.tsv"
OTHER = "other"
"""The group of the languages that have fewer queries than `FEWEST`."""
FEWEST = 20

_BLOCK = 256
_QUERY_SCHEMA = pa.schema(
    [
        pa.field("concept_id", pa.string(), nullable=False),
        pa.field("form", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("crossing", pa.bool_(), nullable=False),
        pa.field("answers", pa.list_(pa.int64()), nullable=False),
    ]
)

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Normalised texts to unit vectors [n, dim], as `encoder.Encoder.encode`."""


def evaluate(encode: Encode, development: Development) -> dict[str, float]:
    """Recall@1 by language, from 0 to 1; their unweighted mean is the figure to compare runs by.

    A query counts if its nearest form is an answer; of equally near ones the first in order is the
    nearest. Languages of fewer than `FEWEST` queries count together, as `OTHER`. `encode` gets the
    queries, then the dictionary. Memory holds the vectors, and the scores of 256 queries at a time.

    Raises:
        EncoderError: the vectors are not finite, or not one a text.
    """
    queries = _encoded(encode, [query.form for query in development.queries])
    dictionary = _encoded(encode, development.forms)
    hits = np.zeros(len(queries), dtype=np.bool_)
    for start in range(0, len(queries), _BLOCK):
        nearest = np.argmax(queries[start : start + _BLOCK] @ dictionary.T, axis=1)
        for at, row in enumerate(nearest.tolist(), start=start):
            hits[at] = row in development.queries[at].answers
    groups = np.array(_groups([query.lang for query in development.queries]))
    return {str(name): float(hits[groups == name].mean()) for name in np.unique(groups)}


def _encoded(encode: Encode, texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise EncoderError(
            f"{len(texts)} texts gave an array {list(vectors.shape)}, or numbers that are not "
            "finite; expected a finite vector a text: has the training diverged?"
        )
    return vectors


def _groups(langs: Sequence[str]) -> list[str]:
    return [lang if langs.count(lang) >= FEWEST else OTHER for lang in langs]


def build_development(
    target: Path, kb: KnowledgeBase, *, per_language: int, seed: int, forms: int = 8_000
) -> Artifact:
    """Hold out (see `hold_out`) and publish as `target`.

    Raises:
        InputError: nothing can be held out.
    """
    made = hold_out(kb, per_language=per_language, seed=seed, forms=forms)
    manifest = Manifest(
        kind="development",
        code_version=code_version(),
        config={"per_language": per_language, "seed": seed, "forms": forms},
        inputs={"kb": kb.artifact.manifest.fingerprint},
        sources=kb.artifact.manifest.sources,
        counts={
            "queries": len(made.queries),
            "crossing": sum(query.crossing for query in made.queries),
            "forms": len(made.forms),
            "hidden": len(made.hidden),
            "languages": _counted([query.lang for query in made.queries]),
        },
    )
    rows = [{name: getattr(query, name) for name in Query.__slots__} for query in made.queries]
    tables = {
        QUERIES: pa.Table.from_pylist(rows, schema=_QUERY_SCHEMA),
        FORMS: pa.table({"form": pa.array(made.forms, pa.string())}),
    }
    with publish(target, manifest) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / name, table.schema) as writer:
                writer.write_table(table)
        write_exclusion(made, draft / EXCLUDE)
    return Artifact(path=target, manifest=manifest)


def _counted(langs: Sequence[str]) -> dict[str, int]:
    return {lang: langs.count(lang) for lang in sorted(set(langs))}


def write_exclusion(development: Development, path: Path) -> None:
    """Write what is hidden as a TSV that `kb.exclusion.read_exclusion` reads.

    Aliases hold no tabs and no line breaks: a knowledge base takes no control characters.
    """
    lines = ["\t".join((TEXT, FORM, GOLD))]
    lines += ["\t".join((one.text, one.form, one.concept_id)) for one in development.hidden]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_development(path: Path) -> Development:
    """Open and verify an artifact of `build_development`.

    Raises:
        ArtifactError: none is there, it is damaged, or it is of another kind.
    """
    artifact = open_artifact(path, "development")
    tables = {}
    for name in (QUERIES, FORMS):
        with pa.ipc.open_file(artifact.file(name)) as reader:
            tables[name] = reader.read_all()
    lines = artifact.file(EXCLUDE).read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [line.split("\t") for line in lines]
    return Development(
        queries=tuple(
            Query(**row | {"answers": tuple(row["answers"])}) for row in tables[QUERIES].to_pylist()
        ),
        forms=tuple(tables[FORMS].column("form").to_pylist()),
        hidden=tuple(Hidden(concept_id=id_, text=text, form=form) for text, form, id_ in rows),
    )
