import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest

from bioelx_ray.artifacts import Source, open_artifact
from bioelx_ray.config import HarvestConfig
from bioelx_ray.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactNotFound,
    InputError,
    TooManyRejects,
)
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import SourceSpec, from_file
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.records import Alias, Concept
from bioelx_ray.tables import SCHEMAS, from_table

OPEN_KB = Path(__file__).parents[3] / "shared" / "data" / "open_kb.tsv"
SAMPLE = Path(__file__).parents[1] / "data" / "starter_sample.tsv"

SMALL_OBO = """[Term]
id: HP:0000001
name: All

[Term]
id: HP:0001658
name: Myocardial infarction
def: "Necrosis." []
xref: UMLS:C0027051
xref: MSH:D009203
is_a: HP:0000001
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sources(tmp_path):
    obo = tmp_path / "small.obo"
    obo.write_text(SMALL_OBO)
    return [
        SourceSpec(
            path=obo,
            kind="obo",
            source=Source(name="small", licence="CC-BY-4.0", version="1"),
        ),
        SourceSpec(path=SAMPLE, kind="table", source=Source(name="sample", licence="CC0-1.0")),
    ]


@pytest.fixture
def kb(tmp_path, sources):
    build_kb(tmp_path / "kb", sources)
    return KnowledgeBase.open(tmp_path / "kb")


def test_lookup(kb):
    assert len(kb) == 4
    assert kb.concept("hp:0001658") == Concept(
        id="hp:0001658",
        name="Myocardial infarction",
        semantic_types=("Disease or Syndrome", "Myocardial infarction"),
        definition="Necrosis.",
        xrefs=("mesh:D009203", "umls:C0027051"),
    )
    assert "umls:C0011849" in kb
    assert "umls:C0027051" not in kb
    assert 5 not in kb
    assert [(a.lang, a.text) for a in kb.aliases_of("hp:0001658")] == [
        ("de", "Herzinfarkt"),
        ("en", "Heart attack"),
        ("en", "Myocardial infarction"),
        ("ja", "心筋梗塞"),
    ]
    assert kb.aliases_of("no:1") == []
    assert kb.langs == ("de", "en", "ja", "ru", "tr")
    assert kb.by_xref("umls:C0027051") == ("hp:0001658",)
    assert kb.by_xref("umls:C9") == ()


@pytest.mark.parametrize(
    ("id_", "hint"),
    [("a:0", "expected one such as"), ("z:9", "expected one"), ("umls:C0027051", "hp:0001658")],
)
def test_an_unknown_concept(kb, id_, hint):
    with pytest.raises(InputError, match=f"no concept '{id_}'.*{hint}"):
        kb.concept(id_)


def test_all_rows_are_found(kb):
    for concept in from_table(kb.concepts, Concept):
        assert kb.concept(concept.id) == concept
        for xref in concept.xrefs:
            assert concept.id in kb.by_xref(xref)
    found = [alias for id_ in kb.concepts["id"].to_pylist() for alias in kb.aliases_of(id_)]
    assert found == from_table(kb.aliases, Alias)


def test_the_tables_are_mapped_and_sorted(kb, tmp_path):
    before = pa.total_allocated_bytes()
    again = KnowledgeBase.open(tmp_path / "kb")
    assert pa.total_allocated_bytes() == before
    assert again.concepts.schema == SCHEMAS[Concept]
    assert again.aliases.schema == SCHEMAS[Alias]
    ids = again.concepts["id"].to_pylist()
    assert ids == sorted(ids)


def test_the_manifest(kb, tmp_path, sources):
    manifest = open_artifact(tmp_path / "kb", "kb").manifest
    assert manifest.counts == {
        "concepts": 4,
        "aliases": 9,
        "languages": {"de": 1, "en": 5, "ja": 1, "ru": 1, "tr": 1},
        "by_source": {
            "obo:hp": {"en": 2},
            "starter": {"de": 1, "en": 3, "ja": 1, "ru": 1, "tr": 1},
        },
        "ambiguous_forms": 0,
        "unified": 1,
        "mappings": {"merged": {"fits alone": 2}},
        "xrefs": 2,
        "retired": 0,
        "aliases_of_retired": 0,
        "dropped": {},
        "left_out": {},
        "rejected": {},
    }
    assert manifest.sources == [spec.source for spec in sources]
    assert set(manifest.inputs) == {"sample", "small"}
    assert all(value.startswith("sha256:") for value in manifest.inputs.values())
    assert set(manifest.files) == {
        "concepts.arrow",
        "aliases.arrow",
        "xrefs.arrow",
        "retired.arrow",
    }


def test_the_same_sources_give_the_same_artifact(tmp_path, sources):
    one, two = (build_kb(tmp_path / name, sources).manifest for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    other = build_kb(tmp_path / "three", sources, config=HarvestConfig(unify=False)).manifest
    assert other.fingerprint != one.fingerprint
    assert other.counts["concepts"] == 5


def bad_table(tmp_path, good=20):
    path = tmp_path / "bad.tsv"
    rows = [f"x:{n}\ten\tname {n}" for n in range(good)]
    path.write_text("\n".join(["concept_id\tlang\ttext", *rows, "x:1\ten\tnan", "x:1\t?\ta"]))
    return from_file(path)


def test_rejects_within_the_share_stay_with_the_artifact(tmp_path):
    stale = tmp_path / "kb.rejects.jsonl"
    stale.write_text("old")
    artifact = build_kb(
        tmp_path / "kb", [bad_table(tmp_path)], config=HarvestConfig(max_reject_share=0.1)
    )
    assert artifact.manifest.counts["rejected"] == {
        "lang is no BCP 47 tag": 1,
        "text is a placeholder (nan, null or none)": 1,
    }
    lines = [json.loads(line) for line in artifact.file("rejects.jsonl").read_text().splitlines()]
    assert [(line["line"], line["row"]) for line in lines] == [
        (22, "x:1\ten\tnan"),
        (23, "x:1\t?\ta"),
    ]
    assert not stale.exists()


def test_too_many_rejects_are_left_aside(tmp_path, sources):
    target = tmp_path / "out" / "kb"
    with pytest.raises(TooManyRejects, match=r"bad\.tsv: 2 of 22 rows") as caught:
        build_kb(target, [*sources, bad_table(tmp_path)])
    aside = tmp_path / "out" / "kb.rejects.jsonl"
    assert str(aside) in str(caught.value)
    assert aside.read_text().count("\n") == 2
    assert not target.exists()


@pytest.mark.parametrize("name", ["empty.obo", "empty.tsv"])
def test_a_source_that_holds_nothing(tmp_path, name):
    path = tmp_path / name
    path.write_text("concept_id\tlang\ttext\n" if name.endswith("tsv") else "ontology: x\n")
    with pytest.raises(InputError, match=f"{name}: holds nothing"):
        build_kb(tmp_path / "kb", [from_file(path)])
    assert not (tmp_path / "kb").exists()


def test_no_source_and_one_twice(tmp_path, sources):
    with pytest.raises(InputError, match="no source"):
        build_kb(tmp_path / "kb", [])
    with pytest.raises(InputError, match="source given twice: small"):
        build_kb(tmp_path / "kb", [sources[0], sources[0]])


def test_a_build_that_fails_keeps_what_stood_there(tmp_path, sources, monkeypatch):
    target = tmp_path / "kb"
    before = build_kb(target, sources).manifest.fingerprint
    opened = []
    new_file = pa.ipc.new_file

    def full_disk(path, schema):
        opened.append(path)
        if len(opened) > 1:
            raise OSError(28, "No space left on device")
        return new_file(path, schema)

    monkeypatch.setattr(pa.ipc, "new_file", full_disk)
    with pytest.raises(ArtifactError, match="No space left"):
        build_kb(target, sources, config=HarvestConfig(unify=False))
    assert open_artifact(target, "kb").manifest.fingerprint == before
    assert len(KnowledgeBase.open(target)) == 4
    with pytest.raises(ArtifactError, match="No space left"):
        build_kb(tmp_path / "fresh", sources)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [
        ".fresh.lock",
        ".fresh.parts",  # kept to go on with
        ".kb.lock",
        ".kb.parts",
        "cache",
        "kb",
        "small.obo",
    ]


KILLED_MIDWAY = """
    import os, signal, sys
    from pathlib import Path
    import pyarrow as pa
    from bioelx_ray.kb.harvest import build_kb
    from bioelx_ray.kb.sources import from_file

    new_file = pa.ipc.new_file

    def die_at_the_second(path, schema):
        if path.name == "aliases.arrow":
            print(path.parent, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return new_file(path, schema)

    pa.ipc.new_file = die_at_the_second
    build_kb(Path(sys.argv[1]), [from_file(Path(sys.argv[2]))])
"""


def test_a_build_that_is_killed_leaves_nothing_under_the_name(tmp_path, sources):
    target = tmp_path / "kb"
    script = textwrap.dedent(KILLED_MIDWAY)
    done = subprocess.run(
        [sys.executable, "-c", script, str(target), str(SAMPLE)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    draft = Path(done.stdout.strip())
    assert (draft / "concepts.arrow").exists()
    assert not target.exists()
    with pytest.raises(ArtifactNotFound):
        KnowledgeBase.open(target)
    build_kb(target, sources)
    assert len(KnowledgeBase.open(target)) == 4
    assert not draft.exists()


def test_a_damaged_file_is_noticed(tmp_path, sources):
    path = build_kb(tmp_path / "kb", sources).file("concepts.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=r"concepts\.arrow"):
        KnowledgeBase.open(tmp_path / "kb")


@pytest.mark.skipif(not OPEN_KB.exists(), reason=f"{OPEN_KB} is not there")
def test_open_kb_alone_merges_nothing(tmp_path):
    begin = time.process_time()
    artifact = build_kb(tmp_path / "kb", [from_file(OPEN_KB)])
    counts = artifact.manifest.counts
    assert time.process_time() - begin < 90  # 7 s; nothing may become quadratic
    assert counts["rejected"] == {"text is a placeholder (nan, null or none)": 95}
    assert {"zh-TW", "nna", "dtp"} <= set(counts["languages"])
    lines = OPEN_KB.read_bytes().split(b"\n")
    for line in artifact.file("rejects.jsonl").read_bytes().splitlines():
        reject = json.loads(line)
        assert lines[reject["line"] - 1].decode() == reject["row"]
    assert (counts["concepts"], counts["unified"], counts["mappings"]) == (81_009, 0, {})
    assert sum(counts["languages"].values()) == counts["aliases"] > 330_000
    assert counts["ambiguous_forms"] > 1_000
    before = pa.total_allocated_bytes()
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert kb.concept("umls:C0444868").name == "All"
    assert len(kb.aliases_of("umls:C0003873")) > 3
