import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bioelx_ray.config import AdapterConfig, TrainConfig
from bioelx_ray.errors import TrainingError
from bioelx_ray.retrieval import checkpoints
from bioelx_ray.retrieval.adapter import prepare
from bioelx_ray.retrieval.batches import described
from bioelx_ray.retrieval.curve import draw
from bioelx_ray.retrieval.keeping import CURVE
from bioelx_ray.retrieval.metrics_log import METRICS, MetricsLog, read_metrics
from bioelx_ray.retrieval.schedule import evaluates_after, rate, saves_after
from bioelx_ray.retrieval.token_store import open_store
from bioelx_ray.retrieval.training import NAN_BATCH, Watch, train
from tests.training import (
    byte_tokens,
    made_pairs,
    made_store,
    plain_pairs,
    silent,
    tiny_module,
)

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(
    batch_pairs=8,
    epochs=2,
    lr=3e-3,
    save_every=3,
    evaluate_every=4,
    micro_tokens=128,
    precision="fp32",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("store")
        patch.setenv("BIOELX_CACHE", str(home / "cache"))
        yield made_store(home, plain_pairs(39, each=1))  # batches of 8, 8, 8, 8, 7


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(store, workdir, *, config=CONFIG, watch=None, seed=0):
    module = tiny_module(seed=seed)
    return module, train(module, store, config=config, workdir=workdir, watch=watch)


class Interrupt(Exception):
    pass


def stopping_at(step):
    def report(told):
        if told.step == step:
            raise Interrupt

    return report


def fake_dev(values):
    """Means by the number of the evaluation: what is decided by them is tested, not they."""
    left = iter(values)
    return lambda module: {"de": (value := next(left)), "en": value}


def test_it_learns_and_tells_what_it_does(store, tmp_path):
    told = []
    module, result = trained(store, tmp_path, watch=Watch(report=told.append))
    assert (result.step, result.steps, result.stopped) == (10, 10, False)
    assert [each.step for each in told] == list(range(1, 11))
    assert [each.step for each in told if each.saved] == [3, 6, 9, 10]
    assert told[-1].loss < 0.8 * told[0].loss
    assert told[-1].seconds_left == 0
    assert all(each.pairs_per_second > 0 and each.seconds_left >= 0 for each in told)
    lines = list(read_metrics(tmp_path / METRICS))
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[4]["tokens"] < lines[3]["tokens"] <= lines[3]["padded_tokens"]
    assert lines[0].keys() == {
        *("step", "loss", "lr", "gradient_norm", "tokens", "padded_tokens", "pairs_per_second"),
        "seconds",
    }
    assert not module.training
    curve = (tmp_path / CURVE).read_text()
    assert curve.startswith("<svg")
    assert curve.count("<circle") == 10


def test_a_run_that_is_over_returns_at_once(store, tmp_path):
    module, first = trained(store, tmp_path)
    told = []
    again, second = trained(store, tmp_path, watch=Watch(report=told.append))
    assert told == []
    assert second == first
    assert same(weights(module), weights(again))


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 10])
def test_after_an_interruption_it_ends_with_the_same_bits(store, tmp_path, step):
    plain, _ = trained(store, tmp_path / "plain", watch=Watch(dev=fake_dev([1, 2, 3, 4])))
    watch = Watch(dev=fake_dev([1, 2, 3, 4]), report=stopping_at(step))
    with pytest.raises(Interrupt):
        trained(store, tmp_path / "cut", watch=watch)
    left = [2, 3, 4] if step < 4 else [3, 4] if step < 8 else [4]
    told = []
    watch = Watch(dev=fake_dev(left), report=told.append)
    resumed, _ = trained(store, tmp_path / "cut", watch=watch)
    assert same(weights(plain), weights(resumed))
    logs = [
        [(line["step"], line.get("loss"), line.get("mean")) for line in read_metrics(path)]
        for path in (tmp_path / "plain" / METRICS, tmp_path / "cut" / METRICS)
    ]
    assert logs[0] == logs[1]


def test_dropout_is_seeded_by_seed_step_and_nothing_else(store, tmp_path):
    first, _ = trained(store, tmp_path / "1")
    torch.manual_seed(99)
    torch.rand(1000)
    second, _ = trained(store, tmp_path / "2")
    third, _ = trained(store, tmp_path / "3", config=CONFIG.model_copy(update={"seed": 34}))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))


@pytest.mark.parametrize(
    "changed",
    [{"micro_tokens": 4096}, {"cache_gradients": True}],
)
def test_how_a_step_is_computed_does_not_change_what_is_learned(store, tmp_path, changed):
    config = CONFIG.model_copy(update={"max_steps": 4})
    one, other = tiny_module(dropout=0), tiny_module(dropout=0)
    train(one, store, config=config, workdir=tmp_path / "1")
    train(other, store, config=config.model_copy(update=changed), workdir=tmp_path / "2")
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=2e-4)


def test_another_run_in_the_work_directory_is_refused(store, tmp_path):
    trained(store, tmp_path)
    with pytest.raises(TrainingError, match="holds step 10 of another run"):
        trained(store, tmp_path, seed=1)
    with pytest.raises(TrainingError, match="another run"):
        trained(store, tmp_path, config=CONFIG.model_copy(update={"lr": 1e-3}))
    free = {"save_every": 7, "micro_tokens": 64, "cache_gradients": True}
    trained(store, tmp_path, config=CONFIG.model_copy(update=free))


def test_nothing_to_train_is_refused(store, tmp_path):
    module = tiny_module().requires_grad_(False)
    with pytest.raises(TrainingError, match=r"no weight .* is to be trained"):
        train(module, store, config=CONFIG, workdir=tmp_path)


@pytest.mark.parametrize("kind", ["lora", "head"])
def test_adapters_are_trained_alone_and_resumed(store, tmp_path, kind):
    def made():
        module = tiny_module()
        prepare(module, AdapterConfig(kind=kind, rank=4), on_gpu=False, seed=1)
        return module

    first, cut, start = made(), made(), weights(made())
    train(first, store, config=CONFIG, workdir=tmp_path / "1")
    watch = Watch(report=stopping_at(5))
    with pytest.raises(Interrupt):
        train(cut, store, config=CONFIG, workdir=tmp_path / "2", watch=watch)
    resumed = made()
    train(resumed, store, config=CONFIG, workdir=tmp_path / "2")
    assert same(weights(first), weights(resumed))
    changed = {
        name for name, value in weights(first).items() if not torch.equal(value, start[name])
    }
    assert changed == {name for name, p in first.named_parameters() if p.requires_grad}
    assert checkpoints.newest(tmp_path / "1").state["weights"].keys() == changed


def test_the_best_weights_are_given_back(store, tmp_path):
    seen = []

    def dev(module):
        assert not module.training
        assert not torch.is_grad_enabled()
        seen.append(weights(module))
        return {"de": [0.1, 0.5, 0.4, 0.5][len(seen) - 1]}

    told = []
    watch = Watch(dev=dev, report=told.append)
    module, result = trained(store, tmp_path, watch=watch)
    assert (result.step, result.steps, result.dev) == (4, 10, {"de": 0.5})
    assert [each.dev for each in told if each.dev] == [{"de": 0.5}, {"de": 0.4}, {"de": 0.5}]
    assert same(weights(module), seen[1])
    assert checkpoints.load(tmp_path, 4) is not None
    again, second = trained(store, tmp_path)
    assert second == result
    assert same(weights(again), seen[1])
    means = [line["mean"] for line in read_metrics(tmp_path / METRICS) if "mean" in line]
    assert means == [0.1, 0.5, 0.4, 0.5]


def test_if_nothing_is_gained_the_first_weights_are_given_back(store, tmp_path):
    watch = Watch(dev=fake_dev([0.5, 0.2, 0.2, 0.2]))
    module, result = trained(store, tmp_path, watch=watch)
    assert result.step == 0
    assert same(weights(module), weights(tiny_module()))


def test_it_stops_early(store, tmp_path):
    config = CONFIG.model_copy(update={"patience": 2, "evaluate_every": 2})
    watch = Watch(dev=fake_dev([0.1, 0.3, 0.2, 0.3, 0.9]))
    _, result = trained(store, tmp_path, config=config, watch=watch)
    assert (result.step, result.steps, result.stopped) == (2, 6, True)
    again = trained(store, tmp_path, config=config, watch=Watch(dev=fake_dev([])))[1]
    assert again == result


def test_lost_best_weights_are_told(store, tmp_path, caplog):
    watch = Watch(dev=fake_dev([0.1, 0.5, 0.2, 0.2]))
    trained(store, tmp_path, watch=watch)
    os.truncate(tmp_path / "step-00000004.pt", 100)
    with caplog.at_level(logging.WARNING):
        _, result = trained(store, tmp_path)
    assert "the best weights, of step 4, are lost: these are of step 10" in caplog.text
    assert (result.step, result.dev) == (10, {})


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(store, tmp_path, caplog):
    plain, _ = trained(store, tmp_path / "1")
    with pytest.raises(Interrupt):
        trained(store, tmp_path / "2", watch=Watch(report=stopping_at(8)))
    (tmp_path / "2" / "step-00000006.pt").write_bytes(b"half")
    told = []
    resumed, _ = trained(store, tmp_path / "2", watch=Watch(report=told.append))
    assert told[0].step == 4
    assert "step-00000006.pt is passed over" in caplog.text
    assert same(weights(plain), weights(resumed))


@pytest.fixture
def room():
    """Call it with the bytes that a file may have, or with None for no bound."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def bound(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))

    yield bound
    bound(None)


def test_a_full_disk_does_not_end_the_training_but_its_last_checkpoint_must_be(
    store, tmp_path, caplog, room
):
    plain, _ = trained(store, tmp_path / "1")
    full = {2: 1 << 14, 7: None}

    def report(told):
        if told.step in full:
            room(full[told.step])

    watch = Watch(report=report)
    module, _ = trained(store, tmp_path / "2", watch=watch)
    assert "no checkpoint at step 3" in caplog.text
    assert "no checkpoint at step 6" in caplog.text
    assert same(weights(plain), weights(module))
    full.update({7: None, 8: 1 << 14})
    full.pop(2)
    with pytest.raises(TrainingError, match="the last checkpoint cannot be written: make room"):
        trained(store, tmp_path / "3", watch=watch)
    room(None)
    assert checkpoints.newest(tmp_path / "3").step == 6
    resumed, _ = trained(store, tmp_path / "3")
    assert same(weights(plain), weights(resumed))


def test_best_weights_that_cannot_be_kept_are_not_the_best(store, tmp_path, room):
    bounds = {3: 1 << 14, 5: None}

    def report(told):
        if told.step in bounds:
            room(bounds[told.step])

    watch = Watch(dev=fake_dev([0.1, 0.9, 0.3, 0.2]), report=report)
    _, result = trained(store, tmp_path, watch=watch)
    assert (result.step, result.dev["de"]) == (8, 0.3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stop_it(store, tmp_path, value):
    pairs = plain_pairs(39, each=1)
    artifact = made_pairs(tmp_path / "pairs", pairs)
    module = tiny_module()

    def break_it(told):
        if told.step == 4:
            with torch.no_grad():
                module.model.encoder.layer[1].output.dense.weight[0, 0] = value

    watch = Watch(report=break_it, describe=lambda rows: described(artifact, rows))
    with pytest.raises(TrainingError, match=r"step 5 has loss nan"):
        train(module, store, config=CONFIG, workdir=tmp_path / "w", watch=watch)
    written = json.loads((tmp_path / "w" / NAN_BATCH).read_text())
    assert (written["step"], written["loss"]) == (5, "nan")
    assert len(written["pairs"]) == 7
    for row in written["pairs"]:
        assert pairs[row["row"]].left == row["left"]
        assert byte_tokens().ids(["q " + row["left"].lower()])[0] == row["ids"][0]
    assert checkpoints.newest(tmp_path / "w").step == 3
    assert json.loads((tmp_path / "w" / METRICS).read_text().splitlines()[-1])["step"] == 4


def test_a_gradient_that_is_not_finite_stops_it_before_the_weights(store, tmp_path, monkeypatch):
    module = tiny_module()
    before = weights(module)
    module.model.embeddings.LayerNorm.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(TrainingError, match=r"step 1 has loss \d.* a gradient of norm (inf|nan)"):
        train(module, store, config=CONFIG, workdir=tmp_path)
    assert same(before, weights(module))


def test_fp16_leaves_out_steps_whose_gradient_overflows(store, tmp_path):
    config = CONFIG.model_copy(update={"precision": "fp16", "max_steps": 30, "epochs": 100.0})
    told = []
    module = tiny_module(dropout=0)
    train(module, store, config=config, workdir=tmp_path, watch=Watch(report=told.append))
    assert told[-1].loss < told[0].loss
    assert told[0].loss < 10, "the loss is told without its scale"
    scale = checkpoints.newest(tmp_path).state["scaler"]["scale"]
    assert 0 < scale <= 65536
    plain = tiny_module(dropout=0)
    exact = config.model_copy(update={"precision": "fp32", "max_steps": 1})
    first = []
    train(plain, store, config=exact, workdir=tmp_path / "2", watch=Watch(report=first.append))
    assert first[0].loss == pytest.approx(told[0].loss, rel=0.02)


# ---- processes ----

SCRIPT = """
import sys
from pathlib import Path
import torch
from bioelx_ray.artifacts import open_artifact
from bioelx_ray.retrieval.token_store import open_store
from bioelx_ray.retrieval.training import Watch, train
from tests.training import byte_tokens, silent, tiny_module
from tests.unit.test_training import CONFIG

torch.set_num_threads(1)
pairs, work, out = map(Path, sys.argv[1:])
store = open_store(
    open_artifact(pairs, "pairs"), byte_tokens(), prefix="", home=work, progress=silent
)
module = tiny_module()
config = CONFIG.model_copy(update={"epochs": 12.0, "evaluate_every": 7})
dev = lambda module: {"de": float(module.model.embeddings.word_embeddings.weight.sum())}
print("ready", flush=True)
result = train(module, store, config=config, workdir=work / "run", watch=Watch(dev=dev))
torch.save(module.state_dict(), out)
print(result, flush=True)
"""


def start(tmp_path, *arguments):
    environment = {**os.environ, "BIOELX_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path):
    pairs = made_pairs(tmp_path / "pairs", plain_pairs(39, each=1)).path
    plain = start(tmp_path, pairs, tmp_path / "a", tmp_path / "plain.pt")
    assert plain.wait(timeout=120) == 0
    told = plain.stdout.read()
    seen, draws = set(), np.random.default_rng(7)
    for _ in range(7):
        process = start(tmp_path, pairs, tmp_path / "b", tmp_path / "cut.pt")
        assert process.stdout.readline() == "ready\n"
        time.sleep(draws.uniform(0.02, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        found = checkpoints.newest(tmp_path / "b" / "run")
        seen.add(found.step if found else None)
    last = start(tmp_path, pairs, tmp_path / "b", tmp_path / "cut.pt")
    assert last.wait(timeout=120) == 0
    assert last.stdout.read() == told
    assert len(seen) > 2, "it was killed before it began or after it ended"
    one, other = (torch.load(tmp_path / f"{name}.pt") for name in ("plain", "cut"))
    assert same(one, other)


def _work(rank, world, home, config, adapter):
    torch.set_num_threads(1)
    os.environ["BIOELX_CACHE"] = str(home / "cache")
    dist.init_process_group(
        "gloo", init_method=f"file://{home}/rendezvous-{world}", rank=rank, world_size=world
    )
    from bioelx_ray.artifacts import open_artifact

    pairs = open_artifact(home / "pairs", "pairs")
    store = open_store(pairs, byte_tokens(), prefix="", home=home / "store", progress=silent)
    module = tiny_module(dropout=0)
    prepare(module, adapter, on_gpu=True)
    told = []
    values = iter([0.1, 0.3, 0.2, 0.4] if rank == 0 else [0.9, 0.8, 0.7, 0.6])
    watch = Watch(dev=lambda module: {"de": next(values)}, report=told.append)
    result = train(module, store, config=config, workdir=home / f"run-{world}", watch=watch)
    torch.save(
        {"weights": module.state_dict(), "losses": [each.loss for each in told]},
        home / f"out-{world}-{rank}.pt",
    )
    assert (result.step, result.dev) == (10, {"de": 0.4})
    assert [each.step for each in told if each.dev] == [4, 8, 10]
    dist.destroy_process_group()


def test_two_workers_learn_what_one_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    made_pairs(tmp_path / "pairs", plain_pairs(39, each=1))
    # at this rate Adam has no steps whose direction rounding decides
    config = CONFIG.model_copy(update={"lr": 1e-4})
    for world in (1, 2):
        mp.start_processes(
            _work,
            args=(world, tmp_path, config, AdapterConfig()),
            nprocs=world,
            start_method="fork",
        )
    one, first, second = (torch.load(tmp_path / f"out-{at}.pt") for at in ("1-0", "2-0", "2-1"))
    assert same(first["weights"], second["weights"])
    assert first["losses"] == second["losses"]
    np.testing.assert_allclose(one["losses"], first["losses"], rtol=2e-3)
    for name, value in one["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=2e-4)


def test_a_run_goes_on_with_another_number_of_workers(tmp_path, monkeypatch, store):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    made_pairs(tmp_path / "pairs", plain_pairs(39, each=1))
    pairs_store = open_store(
        made_pairs(tmp_path / "pairs", plain_pairs(39, each=1)),
        byte_tokens(),
        prefix="",
        home=tmp_path / "store",
        progress=silent,
    )
    config = CONFIG.model_copy(update={"lr": 1e-4})
    cut = tiny_module(dropout=0)
    watch = Watch(dev=fake_dev([0.1, 0.3]), report=stopping_at(5))
    with pytest.raises(Interrupt):
        train(cut, pairs_store, config=config, workdir=tmp_path / "run-2", watch=watch)
    whole = tiny_module(dropout=0)
    train(whole, pairs_store, config=config, workdir=tmp_path / "whole")
    context = mp.start_processes(_resume, args=(2, tmp_path, config), nprocs=2, start_method="fork")
    assert context is None
    resumed = torch.load(tmp_path / "resumed-0.pt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=2e-4)


def _resume(rank, world, home, config):
    torch.set_num_threads(1)
    os.environ["BIOELX_CACHE"] = str(home / "cache")
    dist.init_process_group(
        "gloo", init_method=f"file://{home}/rendezvous", rank=rank, world_size=world
    )
    from bioelx_ray.artifacts import open_artifact

    pairs = open_artifact(home / "pairs", "pairs")
    store = open_store(pairs, byte_tokens(), prefix="", home=home / "store", progress=silent)
    module = tiny_module(dropout=0)
    told = []
    dev = fake_dev([0.35, 0.4] if rank == 0 else [0.9, 0.8])
    watch = Watch(dev=dev, report=told.append)
    train(module, store, config=config, workdir=home / "run-2", watch=watch)
    # best of step 4 was saved; the run was cut at 5
    assert [each.step for each in told] == [5, 6, 7, 8, 9, 10]
    torch.save(module.state_dict(), home / f"resumed-{rank}.pt")
    dist.destroy_process_group()


def _differ(rank, world, home, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{home}/r", rank=rank, world_size=world)
    with pytest.raises(TrainingError, match="the workers start from other weights"):
        train(tiny_module(seed=rank), store, config=CONFIG, workdir=home / "run")
    dist.destroy_process_group()


def test_workers_that_start_from_other_weights_are_refused(store, tmp_path):
    mp.start_processes(_differ, args=(2, tmp_path, store), nprocs=2, start_method="fork")


# ---- schedule and logs ----


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (4, 0, [1, 0.75, 0.5, 0.25]),
        (4, 0.5, [0.5, 1, 1, 0.5]),
        (4, 1, [0.25, 0.5, 0.75, 1]),
        (1, 0.05, [1]),
        (1, 0, [1]),
        (5, 0.05, [1, 1, 0.75, 0.5, 0.25]),
    ],
)
def test_the_rate_rises_and_falls(steps, warmup, expected):
    assert [rate(step, steps, warmup=warmup) for step in range(steps)] == pytest.approx(expected)


def test_the_last_step_is_evaluated_and_saved_once():
    config = TrainConfig(evaluate_every=3, save_every=2)
    assert [step for step in range(7) if evaluates_after(step, 7, config)] == [2, 5, 6]
    assert [step for step in range(7) if saves_after(step, 7, config)] == [1, 3, 5, 6]
    assert [step for step in range(6) if saves_after(step, 6, config)] == [1, 3, 5]


def test_a_log_goes_on_behind_what_is_kept(tmp_path):
    with MetricsLog(tmp_path, after=0) as log:
        for step in range(1, 6):
            log.write(step, {"loss": 1 / step, "dev": {"de": math.nan, "x": np.float64(0.5)}})
    with (tmp_path / METRICS).open("ab") as handle:
        handle.write(b'{"step": 6, "loss"')
    with MetricsLog(tmp_path, after=3) as log:
        log.write(4, {"loss": math.inf})
    lines = list(read_metrics(tmp_path / METRICS))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["dev"] == {"de": None, "x": 0.5}
    assert lines[3]["loss"] is None


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    board = pytest.importorskip("tensorboardX", reason="no package writes event files here")
    with MetricsLog(tmp_path, after=0) as log:
        log.write(1, {"loss": 0.5, "dev": {"de": 0.25}, "mean": 0.25})
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    content = events.read_bytes()
    assert board
    assert all(tag in content for tag in (b"loss", b"dev/de", b"mean"))


def test_a_curve_is_drawn_of_anything(tmp_path):
    from xml.etree import ElementTree

    for lines in (
        [],
        [{"step": 1, "loss": None}],
        [{"step": 1, "loss": 2.0}, {"step": 1, "mean": 0.5}],
        [{"step": step, "loss": 1 / step} for step in range(1, 20_001)],
    ):
        draw(tmp_path / "c.svg", lines)
        root = ElementTree.fromstring((tmp_path / "c.svg").read_text())
        assert root.tag.endswith("svg")
        assert (tmp_path / "c.svg").stat().st_size < 100_000


def test_the_configuration_is_not_changed_by_a_run(store, tmp_path):
    before = CONFIG.model_dump()
    trained(store, tmp_path)
    assert CONFIG.model_dump() == before
    assert replace(Watch(), dev=None) == Watch()
