import json
import logging
import multiprocessing
import os
import resource
import time
from pathlib import Path

import pytest
import torch

from bioelx_ray.retrieval.checkpoints import load, newest, save


def state(value: float, size: int = 1000):
    return {"weights": {"a": torch.full((size,), value)}, "step": int(value), "names": ["x", None]}


def steps(directory: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in directory.glob("*.pt"))


def test_the_newest_comes_back_as_it_was(tmp_path):
    assert newest(tmp_path / "none") is None
    for step in (5, 10, 100_000_000):
        save(tmp_path, step, state(step % 97))
    found = newest(tmp_path)
    assert found.step == 100_000_000
    assert found.state["names"] == ["x", None]
    assert torch.equal(found.state["weights"]["a"], torch.full((1000,), float(100_000_000 % 97)))
    assert found.state["weights"]["a"].device.type == "cpu"


def test_the_last_two_and_the_best_are_kept(tmp_path):
    best = None
    for step in range(1, 8):
        best = {2: 2, 5: 5}.get(step, best)
        save(tmp_path, step, state(step), best=best)
        if step == 4:
            assert steps(tmp_path) == [2, 3, 4]
        if step == 5:  # the one of step 4 still names 2 as the best
            assert steps(tmp_path) == [2, 4, 5]
    assert steps(tmp_path) == [5, 6, 7]
    assert len(list(tmp_path.iterdir())) == 6


def damage(path: Path, how: str) -> None:
    note = path.with_suffix(".json")
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "no data":
        path.unlink()
    elif how == "no note":
        note.unlink()
    elif how == "half a note":
        note.write_bytes(note.read_bytes()[:20])
    elif how == "a list for a note":
        note.write_text("[1]")
    elif how == "the note of another":
        note.write_bytes(path.with_name("step-00000001.json").read_bytes())
    elif how == "unreadable":
        note.unlink()
        note.mkdir()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "empty",
        "a bit",
        "no data",
        "no note",
        "half a note",
        "a list for a note",
        "the note of another",
        "unreadable",
    ],
)
def test_a_damaged_one_is_passed_over(tmp_path, caplog, how):
    save(tmp_path, 1, state(1))
    save(tmp_path, 2, state(2, size=1001))
    damage(tmp_path / "step-00000002.pt", how)
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path).step == 1
    assert how == "no note" or "step-00000002.pt is passed over" in caplog.text
    if how != "unreadable":
        save(tmp_path, 2, state(22))
        assert newest(tmp_path).state["step"] == 22


def test_all_damaged_is_none(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, state(step))
        damage(tmp_path / f"step-{step:08}.pt", "truncated")
    assert newest(tmp_path) is None
    assert load(tmp_path, 7) is None


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_is_not_run(tmp_path, caplog):
    save(tmp_path, 1, state(1))
    torch.save({"evil": Evil(tmp_path / "never")}, tmp_path / "step-00000002.pt")
    data = tmp_path / "step-00000002.pt"
    import hashlib

    entry = {"sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "size": data.stat().st_size}
    (tmp_path / "step-00000002.json").write_text(json.dumps(entry))
    assert newest(tmp_path).step == 1
    assert not (tmp_path / "never").exists()


@pytest.fixture
def little_room():
    """Files may grow to 64 KiB: the file system's own error in the midst of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_former_ones(tmp_path, little_room):
    save(tmp_path, 1, state(1))
    save(tmp_path, 2, state(2))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OSError, match=r"File too large|could not write"):
        save(tmp_path, 3, state(3, size=1 << 20))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert newest(tmp_path).step == 2


def _save_for_ever(directory: Path) -> None:
    # larger tensors would need torch's threads, which a fork does not have
    for step in range(1, 100_000):
        save(directory, step, state(step, size=30_000), best=step - step % 5 or None)


def test_killed_while_saving_it_is_always_sound(tmp_path):
    context = multiprocessing.get_context("fork")
    last = 0
    for attempt in range(8):
        process = context.Process(target=_save_for_ever, args=(tmp_path / str(attempt),))
        process.start()
        begun = time.monotonic()
        while not (tmp_path / str(attempt)).exists() and time.monotonic() - begun < 10:
            time.sleep(0.005)
        time.sleep(0.05 + 0.013 * attempt)
        process.kill()
        process.join()
        found = newest(tmp_path / str(attempt))
        if found is not None:
            last = found.step
            assert found.state["step"] == last
            assert (found.state["weights"]["a"] == last).all()
            save(tmp_path / str(attempt), last + 1, state(last + 1))
            assert not list((tmp_path / str(attempt)).glob("*.draft"))
    assert last > 0
