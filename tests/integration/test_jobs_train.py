"""The job on a Ray of its own on the loopback address, also when a worker is lost."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import EncoderConfig
from bioelx_ray.errors import ConfigError
from bioelx_ray.retrieval.encoder import open_encoder
from jobs.train import _workers
from tests.encoders import tiny_bert
from tests.training import made_pairs, plain_pairs

ROOT = Path(__file__).parents[2]
SETTINGS = """
train:
  adapter: {{kind: lora, rank: 4}}
  batch_pairs: 16
  epochs: {epochs}
  lr: {lr}
  save_every: 10
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    tiny_bert(tmp_path / "model")
    made_pairs(tmp_path / "pairs", plain_pairs(200, each=1))
    return tmp_path


def start(home, out, *arguments, epochs=4, lr="1.0e-3"):
    (home / "settings.yaml").write_text(SETTINGS.format(epochs=epochs, lr=lr))
    environment = {
        **os.environ,
        "HOME": str(home),
        "BIOELX_CACHE": str(home / "cache"),
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    given = ["pairs", "--config", "settings.yaml", "--encoder", home / "model", "--out", out]
    with (home / f"{out}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *map(str, [*given, *arguments])],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=home,
        )


def ended(process, home, out):
    try:
        code = process.wait(timeout=400)
    finally:
        process.kill()
    return code, (home / f"{out}.log").read_text()


def test_it_runs_as_a_bare_entrypoint():
    job = ROOT / "jobs" / "train.py"
    assert job.read_text().startswith("#!/usr/bin/env python\n")
    assert stat.S_IMODE(job.stat().st_mode) & 0o111 == 0o111


def test_it_publishes_what_it_trained(home):
    code, log = ended(start(home, "out", "--workers", "0"), home, "out")
    assert code == 0, log
    assert "an adapter of step 52 of 52" in log
    artifact = open_artifact(home / "out", "adapter")
    training = artifact.manifest.config["training"]
    assert (training["batch_pairs"], training["pairs"][:7]) == (16, "sha256:")
    assert [source.licence for source in artifact.manifest.sources] == ["CC0-1.0"]
    assert artifact.manifest.counts["steps"] == 52
    adapted = EncoderConfig(
        model=str(home / "model"), adapter=str(home / "out"), engine="torch", pooling="cls"
    )
    assert open_encoder(adapted).encode(["heart 001"]).shape == (1, 32)
    lines = next((home / ".out.train").glob("run-*/metrics.jsonl")).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 53))


def lines(home, out):
    for path in (home / f".{out}.train").glob("run-*/metrics.jsonl"):
        return path.read_bytes().count(b"\n")
    return 0


@pytest.mark.slow
def test_a_run_that_lost_a_worker_ends_with_the_same_bits(home):
    code, log = ended(start(home, "plain", "--workers", "2", epochs=16), home, "plain")
    assert code == 0, log
    process = start(home, "lost", "--workers", "2", epochs=16)
    begun = time.monotonic()
    while lines(home, "lost") < 60 and time.monotonic() - begun < 300:
        time.sleep(0.05)
    assert 60 <= lines(home, "lost") < 200
    worker = int(re.search(r"RayTrainWorker pid=(\d+)", (home / "lost.log").read_text())[1])
    os.kill(worker, signal.SIGKILL)
    code, log = ended(process, home, "lost")
    assert code == 0, log
    assert "going on at step" in log
    assert lines(home, "lost") == lines(home, "plain") == 208
    one, other = (home / name / "adapter.safetensors" for name in ("plain", "lost"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_run_that_diverges_is_not_tried_again(home):
    process = start(home, "out", "--workers", "2", lr="1.0e+38")
    code, log = ended(process, home, "out")
    assert code == 2, log
    assert re.search(r"error: step \d+ has loss nan and a gradient of norm nan", log)
    assert "going on at step" not in log
    assert not (home / "out").exists()
    (written,) = (home / ".out.train").glob("run-*/nan_batch.json")
    said = json.loads(written.read_text())["pairs"]
    assert len(said) == 16
    assert said[0].keys() == {
        *("row", "ids", "concept_id", "left", "right", "left_lang", "right_lang")
    }


@pytest.mark.slow
def test_workers_in_a_range_and_a_run_that_is_over(home):
    for attempt in range(2):
        code, log = ended(start(home, "out", "--workers", "1-2"), home, "out")
        assert code == 0, log
        assert "an adapter of step 52 of 52" in log
        assert ("train 52/52" in log) == (attempt == 0)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("2", 2), ("1-4", (1, 4)), ("3-3", (3, 3))]
)
def test_workers(text, expected):
    assert _workers(text, on_gpu=False) == expected


@pytest.mark.parametrize("text", ["", "-1", "4-1", "0-2", "two", "1-2-3", "1 - 2", "٢x"])
def test_what_are_no_workers(text):
    with pytest.raises(ConfigError, match="--workers"):
        _workers(text, on_gpu=False)
