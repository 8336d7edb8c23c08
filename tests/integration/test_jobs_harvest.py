"""The job gives the bytes that one process gives, on a Ray of its own on the loopback address."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import from_directory
from jobs.session import shared

ROOT = Path(__file__).parents[2]
OBO = "[Term]\nid: X:{n}\nname: name {n}\nxref: UMLS:C{n:07}\n"
TABLE = "concept_id\tlang\ttext\n" + "".join(f"umls:C{n:07}\tde\tName {n}\n" for n in range(50))


@pytest.fixture
def sources(tmp_path):
    home = tmp_path / "in"
    home.mkdir()
    for part in range(3):
        terms = "\n".join(OBO.format(n=n) for n in range(part, 50, 3))
        (home / f"{part}.obo").write_text(terms)
    (home / "t.tsv").write_text(TABLE)
    return home


def run(tmp_path, *arguments):
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "BIOELX_CACHE": str(tmp_path / "cache"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "local",  # not the cluster that somebody's machine last ran
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "harvest.py"), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env=env,
        cwd=ROOT,
    )


def test_a_job_gives_the_bytes_of_one_process(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    done = run(tmp_path, sources, "--out", tmp_path / "ray", "--work", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert "50 concepts, 100 aliases in 2 languages" in done.stdout
    build_kb(tmp_path / "one", from_directory(sources))
    one, ray = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "ray")
    )
    assert one == ray
    assert len(list((tmp_path / "work").glob("*/*/part.json"))) == 4


def test_relative_paths_are_refused_in_a_submitted_job(monkeypatch, tmp_path):
    from bioelx_ray.errors import ConfigError

    assert shared(Path("kb")) == Path.cwd() / "kb"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert shared(tmp_path) == tmp_path
    with pytest.raises(ConfigError, match="kb is relative: a submitted job runs in a copy"):
        shared(Path("kb"))
