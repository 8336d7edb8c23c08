import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bioelx_ray.artifacts import MANIFEST, Manifest, Source, open_artifact, publish
from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactNotFound


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def make(target: Path, content: str = "hello") -> Manifest:
    manifest = Manifest(
        kind="kb", code_version="1", sources=[Source(name="s", licence="CC0")], counts={"n": 1}
    )
    with publish(target, manifest) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "a.txt").write_text(content)
    return manifest


def fail_halfway(target: Path):
    with publish(target, Manifest(kind="kb", code_version="1")) as draft:
        (draft / "half").write_text("x")
        raise RuntimeError


def test_published_directory_opens_with_what_was_said_of_it(tmp_path):
    made = make(tmp_path / "kb")
    opened = open_artifact(tmp_path / "kb", "kb")
    assert opened.manifest == made
    assert opened.file("sub/a.txt").read_text() == "hello"
    assert opened.manifest.files["sub/a.txt"].size == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "kb"]


def test_fingerprint_is_of_the_content(tmp_path):
    one, same, other = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", "x")
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_error_while_building_leaves_the_old_one(tmp_path):
    make(tmp_path / "kb", "old")
    with pytest.raises(RuntimeError):
        fail_halfway(tmp_path / "kb")
    assert open_artifact(tmp_path / "kb", "kb").file("sub/a.txt").read_text() == "old"
    assert not list(tmp_path.glob(".kb*"))


def test_kill_while_building_leaves_nothing_under_the_name_and_the_next_build_cleans_up(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from bioelx_ray.artifacts import Manifest, publish\n"
        "with publish(Path(sys.argv[1]), Manifest(kind='kb', code_version='1')) as draft:\n"
        "    (draft / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "kb")], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "kb").exists()
    assert len(list(tmp_path.glob(".kb.*.draft"))) == 1
    make(tmp_path / "kb")
    assert not list(tmp_path.glob(".kb*"))


def test_every_changed_byte_is_seen(tmp_path):
    make(tmp_path / "kb")
    open_artifact(tmp_path / "kb", "kb")
    file = tmp_path / "kb" / "sub" / "a.txt"
    file.write_text("hellO")
    with pytest.raises(ArtifactCorrupt, match=r"a\.txt has checksum"):
        open_artifact(tmp_path / "kb", "kb")
    file.write_text("longer")
    with pytest.raises(ArtifactCorrupt, match="has 6 bytes, its manifest says 5"):
        open_artifact(tmp_path / "kb", "kb")
    file.unlink()
    with pytest.raises(ArtifactCorrupt, match="missing"):
        open_artifact(tmp_path / "kb", "kb")


def test_checksums_are_remembered_while_the_files_stay_the_same(tmp_path, monkeypatch):
    make(tmp_path / "kb")
    open_artifact(tmp_path / "kb", "kb")

    def fail(_path):
        raise AssertionError("read again")

    monkeypatch.setattr("bioelx_ray.artifacts.sha256_file", fail)
    open_artifact(tmp_path / "kb", "kb")
    os.utime(tmp_path / "kb" / "sub" / "a.txt", ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        open_artifact(tmp_path / "kb", "kb")


def test_wrong_kind_format_and_garbage_are_told_apart(tmp_path):
    make(tmp_path / "kb")
    with pytest.raises(ArtifactMismatch, match="a 'index' one is needed"):
        open_artifact(tmp_path / "kb", "index")
    with pytest.raises(ArtifactNotFound, match="build it first"):
        open_artifact(tmp_path / "none", "kb")
    manifest = tmp_path / "kb" / MANIFEST
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(raw | {"format": 99}))
    with pytest.raises(ArtifactMismatch, match="update bioelx-ray"):
        open_artifact(tmp_path / "kb", "kb")
    manifest.write_text("{")
    with pytest.raises(ArtifactCorrupt, match="no manifest of ours"):
        open_artifact(tmp_path / "kb", "kb")


def test_a_directory_that_is_no_artifact_is_never_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactMismatch, match="is no artifact"):
        make(tmp_path / "data")
    assert (tmp_path / "data" / "thesis.txt").exists()
