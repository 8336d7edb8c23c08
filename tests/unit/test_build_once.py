import multiprocessing
import threading
from pathlib import Path

import pytest

from bioelx_ray.artifacts import Manifest, build_once, publish

CONTENT = "x" * 1000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def build(target: Path) -> None:
    with (target.parent / "built").open("a") as log:
        log.write("once\n")
    with publish(target, Manifest(kind="encoder", code_version="1")) as draft:
        (draft / "a").write_text(CONTENT)


def times(target: Path) -> int:
    return len((target.parent / "built").read_text().splitlines())


def open_it(target: Path) -> None:
    assert build_once(target, "encoder", build).file("a").read_text() == CONTENT


def test_built_at_the_first_time(tmp_path):
    target = tmp_path / "deep" / "x"
    open_it(target)
    open_it(target)
    assert times(target) == 1


def test_damaged_one_is_built_anew(tmp_path, caplog):
    target = tmp_path / "deep" / "x"
    open_it(target)
    (target / "a").write_text("y" * 1000)
    open_it(target)
    (target / "a").unlink()
    open_it(target)
    assert times(target) == 3
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert "building it again" in caplog.text


def test_of_processes_one_builds(tmp_path):
    target = tmp_path / "deep" / "x"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=open_it, args=(target,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert times(target) == 1


def test_of_threads_one_builds(tmp_path):
    target = tmp_path / "deep" / "x"
    threads = [threading.Thread(target=open_it, args=(target,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    open_it(target)
    assert times(target) == 1


def test_failed_build_leaves_nothing_and_the_next_one_is_tried(tmp_path):
    def fail(target: Path) -> None:
        with publish(target, Manifest(kind="encoder", code_version="1")) as draft:
            (draft / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "deep" / "x", "encoder", fail)
    open_it(tmp_path / "deep" / "x")


def test_filled_cache_may_be_read_only(tmp_path):
    target = tmp_path / "deep" / "x"
    open_it(target)
    for lock in target.parent.glob(".*.lock"):
        lock.unlink()
    open_it(target)
    assert not list(target.parent.glob(".*.lock"))
