"""An index artifact, opened: what the retrievers search in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_ray.artifacts import Artifact, open_artifact
from bioelx_ray.errors import ArtifactMismatch
from bioelx_ray.retrieval.encoder import Encoder
from bioelx_ray.retrieval.forms import Forms
from bioelx_ray.retrieval.index import DenseIndex
from bioelx_ray.retrieval.lexical import LexicalIndex
from bioelx_ray.retrieval.projection import Projection

MEAN, MATRIX = "projection.mean.npy", "projection.matrix.npy"
OTHER_SCRIPTS = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index: forms, vectors, n-grams, and what was fitted to them."""

    artifact: Artifact
    forms: Forms
    dense: DenseIndex
    lexical: LexicalIndex
    project: Projection
    fusion: Mapping[str, float]

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder that the vectors do not come from.

        Raises:
            ArtifactMismatch: another fingerprint.
        """
        built = self.artifact.manifest
        wanted = built.inputs["encoder"]
        if encoder.fingerprint != wanted:
            raise ArtifactMismatch(
                f"{self.artifact.path} was built with the encoder {built.config['encoder']} "
                f"({wanted[:19]}…), not with this one ({encoder.fingerprint[:19]}…): open it with "
                "that encoder, or build an index with this one"
            )

    def lexical_weight(self, script: str) -> float:
        """The weight of the lexical score for mentions in a script."""
        return self.fusion.get(script, self.fusion[OTHER_SCRIPTS])


def open_index(path: Path, *, threads: int = 0) -> Index:
    """Open and verify an index. Of its large parts only an IVF index's codes are read into memory.

    Raises:
        ArtifactError: none is there, it is damaged, or it is of another kind.
    """
    artifact = open_artifact(path, "index")
    config = artifact.manifest.config
    forms = Forms(path)
    return Index(
        artifact=artifact,
        forms=forms,
        dense=DenseIndex(path, nprobe=config["faiss"]["nprobe"], threads=threads),
        lexical=LexicalIndex(path, forms=len(forms)),
        project=Projection(_load(artifact, MEAN), _load(artifact, MATRIX)),
        fusion=config["fusion"],
    )


def _load(artifact: Artifact, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(artifact.file(name))
    return array
