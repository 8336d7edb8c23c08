"""Pairs a second of two workers on two cores against one worker on one core.

    python -m tests.benchmarks.training_workers [--model DIR] [--steps 30]

Both run under Ray Train, a worker a core, on the same batches of real-looking names; `--model` is a
Hugging Face directory, by default the embedded encoder. The rate is that of the middle steps by
their own times: start-up, the first five steps and checkpoints are not in it. Measure on an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.training import made_pairs, pair

ROOT = Path(__file__).parents[2]
SETTINGS = """
encoder: {{adapter: none}}
train:
  adapter: {adapter}
  batch_pairs: {batch}
  micro_tokens: 1024
  max_steps: {steps}
  save_every: 100000
"""
WORDS = "acute chronic heart liver failure syndrome type deficiency of the infection benign".split()  # noqa: SIM905
PLACES = "Herz Leber Lunge Entzündung akute chronische Schwäche Mangel der Infektion".split()  # noqa: SIM905


def names(home: Path) -> None:
    draw = random.Random(0)
    made = [
        pair(
            number,
            f"{' '.join(draw.sample(WORDS, draw.randint(1, 6)))} {number}",
            f"{' '.join(draw.sample(PLACES, draw.randint(1, 4)))} {number}",
        )
        for number in range(20_000)
    ]
    made_pairs(home / "pairs", made)


def rate(home: Path, workers: int, *, model: str, batch: int) -> float:
    out = home / f"out{workers}"
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(home / "pairs")]
    command += ["--config", str(home / "settings.yaml"), "--encoder", model, "--out", str(out)]
    # a worker a core, whatever the number of workers
    code = (
        "import sys, runpy, ray; init = ray.init; "
        f"ray.init = lambda **given: init(num_cpus={workers}, **given); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [command[0], "-c", code, *command[1:], "--workers", str(workers)]
    subprocess.run(command, check=True, env={**os.environ, "RAY_ADDRESS": "local"})
    (log,) = (home / f".out{workers}.train").glob("run-*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()][5:]
    return batch / statistics.median(line["seconds"] for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--adapter", default="{kind: lora, rank: 16, layers: 6}")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = SETTINGS.format(adapter=given.adapter, batch=given.batch, steps=given.steps)
        (home / "settings.yaml").write_text(settings)
        names(home)
        one, two = (rate(home, n, model=given.model, batch=given.batch) for n in (1, 2))
    print(  # noqa: T201
        f"one worker {one:.1f} pairs/s, two workers {two:.1f} pairs/s: {two / one:.2f} times"
    )


if __name__ == "__main__":
    main()
