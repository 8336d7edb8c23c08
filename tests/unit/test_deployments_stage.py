"""Stage 1 opened from its artifacts."""

from __future__ import annotations

import pytest

from bioelx_ray.config import RetrievalConfig
from bioelx_ray.errors import ArtifactMismatch, ArtifactNotFound
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import from_file
from deployments.stage import open_stage
from tests.serving import artifacts, open_small

LEXICAL = RetrievalConfig(retriever="lexical", top_k=16)


def test_a_stage_knows_what_it_holds():
    stage = open_small(artifacts())
    assert stage.vocabularies == ("hp", "umls")
    assert stage.types == ("anatomy", "disorder", "symptom")
    (concept_id,) = stage.canary.concept_ids
    assert concept_id in stage.kb


def test_an_index_and_the_knowledge_base_of_another_are_refused(tmp_path):
    table = tmp_path / "other.tsv"
    table.write_text("concept_id\tlang\ttext\nhp:1\ten\tAsthma\n", encoding="utf-8")
    build_kb(tmp_path / "kb", [from_file(table)])
    with pytest.raises(ArtifactMismatch, match="build the index again"):
        open_stage(artifacts() / "index", tmp_path / "kb", encoder=None, retrieval=LEXICAL)


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(ArtifactNotFound, match="nowhere"):
        open_stage(tmp_path / "nowhere", artifacts() / "kb", encoder=None, retrieval=LEXICAL)


def test_the_depth_of_the_search_is_configured():
    stage = open_stage(artifacts() / "index", artifacts() / "kb", encoder=None, retrieval=LEXICAL)
    assert stage.depth == 16
