import signal
import subprocess
import sys

import numpy as np
import pytest

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import EncoderConfig, IndexConfig
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.retrieval import embed as embedding
from bioelx_ray.retrieval.build import build_index
from bioelx_ray.retrieval.embed import embed
from bioelx_ray.retrieval.fitting import choose_projection
from bioelx_ray.retrieval.forms import make_forms
from bioelx_ray.retrieval.heldout import Question, questions, reciprocal_ranks
from bioelx_ray.testing import HashEncoder, small_index, small_kb


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    return small_kb(tmp_path_factory.mktemp("kb"))


def test_forms_are_distinct_and_lead_to_all_aliases(kb):
    table = make_forms(kb.aliases, kb.concepts)
    assert table.forms == sorted(set(table.forms))
    assert len(table.aliases) == kb.aliases.num_rows
    row = table.forms.index("cold")
    own = table.aliases.slice(table.starts[row], table.starts[row + 1] - table.starts[row])
    ids = table.concepts.column("id").take(own.column("concept")).to_pylist()
    assert sorted(ids) == ["umls:C0009264", "umls:C0009443"]
    forms, concepts = table.pairs()
    assert len(forms) == len(concepts) == 19


def test_build_states_what_it_is_made_of(tmp_path):
    made = small_index(tmp_path).manifest
    opened = open_artifact(tmp_path / "index", "index").manifest
    assert opened == made
    assert opened.inputs["encoder"] == HashEncoder().fingerprint
    assert opened.inputs["kb"] == open_artifact(tmp_path / "kb", "kb").manifest.fingerprint
    assert opened.counts["forms"] == 18
    assert opened.sources[0].name.endswith("small.tsv")
    assert [path.name for path in tmp_path.glob(".*")] == [".kb.lock"]


class CountingEncoder(HashEncoder):
    def __init__(self):
        super().__init__()
        self.encoded = []

    def encode(self, texts):
        self.encoded.extend(texts)
        if len(self.encoded) > 10 and getattr(self, "dies", False):
            raise KeyboardInterrupt
        return super().encode(texts)


def test_interrupted_embedding_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD", 5)
    texts = [f"name {n}" for n in range(23)]
    told = []
    encoder = CountingEncoder()
    encoder.dies = True
    with pytest.raises(KeyboardInterrupt):
        embed(texts, encoder, work=tmp_path / "work", progress=lambda n, of: told.append(n))
    encoder.dies, encoder.encoded = False, []
    vectors = embed(texts, encoder, work=tmp_path / "work", progress=lambda *_: None)
    assert told == [5, 10]
    assert len(encoder.encoded) == 13
    np.testing.assert_allclose(vectors, HashEncoder().encode(texts), atol=1e-3)


def test_shards_of_other_texts_are_not_taken_over(tmp_path):
    encoder = CountingEncoder()
    embed(["a", "b"], encoder, work=tmp_path, progress=lambda *_: None)
    embed(["a", "c"], encoder, work=tmp_path, progress=lambda *_: None)
    assert encoder.encoded == ["a", "b", "a", "c"]
    assert len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from bioelx_ray.retrieval import build
from bioelx_ray.testing import small_index
real = build.{step}
def die(*args, **kwargs):
    real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
build.{step} = die
small_index(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("step", ["embed", "write_forms", "build_faiss", "write_lexical"])
def test_kill_at_any_step_leaves_no_index_and_the_next_build_succeeds(tmp_path, step):
    code = [sys.executable, "-c", KILLED.format(step=step), str(tmp_path)]
    assert subprocess.run(code, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "index").exists()
    small_index(tmp_path)
    assert open_artifact(tmp_path / "index", "index")
    assert not list(tmp_path.glob(".index*"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """1,000 made-up concepts with an English and a mirrored German form each."""
    directory = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    lines = ["concept_id\tlang\ttext"]
    for n in range(1000):
        word = "".join(rng.choice(list("abdefgiklmnoprstu"), size=9))
        lines += [f"x:{n}\ten\t{word} en", f"x:{n}\ten\t{word}s en", f"x:{n}\tde\tge{word} de"]
    (directory / "many.tsv").write_text("\n".join(lines) + "\n")
    from bioelx_ray.kb.harvest import build_kb
    from bioelx_ray.kb.sources import from_file

    return KnowledgeBase(build_kb(directory / "kb", [from_file(directory / "many.tsv")]))


def test_questions_hide_what_would_give_the_answer_away(many):
    table = make_forms(many.aliases, many.concepts)
    langs = np.array(table.languages())
    among = np.arange(len(table.concepts)) % 2 == 0
    asked = questions(table, per_script=100, seed=0, crossing=True, among=among)
    assert len(asked) == 100
    forms, concepts = table.pairs()
    assert all(among[concepts[forms == question.query]].all() for question in asked)
    for question in asked:
        assert question.query in question.hidden
        assert not set(question.hidden) & set(question.answers)
        assert len(question.hidden) + len(question.answers) == 3
    crossing = [q for q in asked if (langs[q.answers] != langs[q.query]).all()]
    assert len(crossing) >= 50


def test_reciprocal_rank_ignores_what_is_hidden():
    question = Question(query=7, script="Latin", answers=np.array([3]), hidden=np.array([7, 8]))
    rows = np.array([[7, 8, 5, 3, -1]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.99]], dtype=np.float32)
    assert reciprocal_ranks([question], rows, scores).tolist() == [0.5]
    assert reciprocal_ranks([question], rows[:, :3], scores[:, :3]).tolist() == [0.0]


def test_projection_and_fusion_are_fitted_kept_only_if_they_help_and_stated(many, tmp_path):
    encoder = HashEncoder(dim=16)
    built = build_index(
        tmp_path / "index",
        many,
        encoder,
        config=IndexConfig(),
        encoder_config=EncoderConfig(model="hash"),
        progress=lambda *_: None,
    )
    projection = built.manifest.config["projection"]
    assert projection["fitted"] == (projection["mrr_with"] > projection["mrr_without"])
    fit = built.manifest.config["fusion_fit"]["Latin"]
    assert fit["mrr"] >= fit["mrr_dense"]
    weights = built.manifest.config["fusion"]
    assert set(weights) == {"Latin", "other"}
    # 16 hashed dimensions say little, the n-grams nearly all
    assert weights["Latin"] >= 0.5


def test_projection_that_does_not_help_is_not_kept(many):
    table = make_forms(many.aliases, many.concepts)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(table.forms), 16))
    noise = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16)
    chosen, figures = choose_projection(noise, table, seed=0)
    if not figures["fitted"]:
        np.testing.assert_array_equal(chosen.matrix, np.eye(16, dtype=np.float32))
    assert figures["fitted"] == (figures["mrr_with"] > figures["mrr_without"])
