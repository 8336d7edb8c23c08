"""The knowledge base and index of the demo: the Human Phenotype Ontology and the starter table."""

from __future__ import annotations

from pathlib import Path

from bioelx_ray.artifacts import cache_dir, code_version, open_artifact, sha256_file
from bioelx_ray.config import EncoderConfig, IndexConfig
from bioelx_ray.errors import ArtifactError
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.packaged import hpo, starter
from bioelx_ray.kb.sources import SourceSpec
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval.build import Progress, build_index
from bioelx_ray.retrieval.encoder import open_encoder
from bioelx_ray.retrieval.model_files import locate


def ensure_demo(progress: Progress) -> tuple[Path, Path]:
    """Build the demo's artifacts in the cache where they are missing, damaged or out of date.

    Returns:
        The paths of the index and of the knowledge base.

    Raises:
        BioelxError: the packages of the extra ``embedded`` are not installed.
    """
    home = cache_dir() / "demo"
    kb, index = home / "kb", home / "index"
    sources, settings = [hpo(), starter()], EncoderConfig()
    if not _is_current(kb, sources):
        progress("knowledge base", 0, 1)
        build_kb(kb, sources)
        progress("knowledge base", 1, 1)
    if not _was_built_from(index, kb, settings):
        progress("encoder", 0, 1)
        encoder = open_encoder(settings)
        progress("encoder", 1, 1)
        build_index(
            index,
            KnowledgeBase.open(kb),
            encoder,
            config=IndexConfig(),
            encoder_config=settings,
            progress=progress,
        )
    return index, kb


def _is_current(kb: Path, sources: list[SourceSpec]) -> bool:
    try:
        manifest = open_artifact(kb, "kb").manifest
    except ArtifactError:
        return False
    inputs = {spec.source.name: f"sha256:{sha256_file(spec.path)}" for spec in sources}
    return manifest.inputs == inputs and manifest.code_version == code_version()


def _was_built_from(index: Path, kb: Path, encoder: EncoderConfig) -> bool:
    try:
        manifest = open_artifact(index, "index").manifest
    except ArtifactError:
        return False
    wanted = {
        "kb": open_artifact(kb, "kb").manifest.fingerprint,
        "encoder": locate(encoder).fingerprint,
    }
    return manifest.inputs == wanted and manifest.code_version == code_version()
