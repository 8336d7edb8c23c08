import bz2
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bioelx_ray.config import HarvestConfig
from bioelx_ray.errors import ArtifactError, InputError, TooManyRejects
from bioelx_ray.kb import harvest as harvests
from bioelx_ray.kb.harvest import build_kb, merge_parts, plan, run_task, run_tasks, summary
from bioelx_ray.kb.sources import from_directory, from_file
from bioelx_ray.kb.store import KnowledgeBase

SMALL = HarvestConfig(split_bytes=1 << 16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def noise(number):
    """Bytes that do not pack well, so that a small dump has many stored ones."""
    return random.Random(number).randbytes(500).hex()


def entity(number):
    """A made-up item; each has its own CUI."""
    labels = {
        lang: {"language": lang, "value": f"{word} {number}"}
        for lang, word in {"en": "disease", "de": "Krankheit", "ja": "病気"}.items()
    }
    snak = {
        "snaktype": "value",
        "property": "P2892",
        "datavalue": {"value": f"C{number:07}", "type": "string"},
    }
    claim = {"mainsnak": snak, "type": "statement", "rank": "normal", "id": noise(number)}
    return {"type": "item", "id": f"Q{number}", "labels": labels, "claims": {"P2892": [claim]}}


def dump(path, n, *, bad=()):
    lines = [
        json.dumps(entity(number), ensure_ascii=False, separators=(",", ":"))
        for number in range(1, n + 1)
    ]
    for row in bad:
        lines[row] = lines[row][:300]
    data = ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return from_file(path)


@pytest.fixture
def sources(tmp_path):
    home = tmp_path / "in"
    home.mkdir()
    (home / "a.tsv").write_text("concept_id\tlang\ttext\numls:C0000001\tfr\tmaladie\n")
    umls = home / "umls"
    umls.mkdir()
    rows = [
        f"C{n:07}|ENG|P|L1|PF|S1|Y|A1||M1|D1|MSH|MH|D1|ailment {n}|0|N|256|" for n in range(1, 900)
    ]
    (umls / "MRCONSO.RRF").write_text("\n".join(rows) + "\n")
    (umls / "MRSTY.RRF").write_text("C0000001|T047|B2.2.1.2.1|Disease or Syndrome|AT1|256|\n")
    return [
        from_file(home / "a.tsv"),
        from_file(umls),
        dump(home / "one.json.gz", 400),
        dump(home / "two.json", 900),
    ]


def files(kb):
    return {path.name: path.read_bytes() for path in kb.iterdir()}


def test_sources_of_all_kinds_become_one_knowledge_base(tmp_path, sources):
    built = build_kb(tmp_path / "kb", sources, config=SMALL)
    kb = KnowledgeBase(built)
    assert len(kb) == 900  # every item is joined with its CUI; 900 has none in the other files
    concept = kb.concept("umls:C0000001")
    assert concept.semantic_types == ("Disease or Syndrome",)
    assert "wikidata:Q1" in concept.xrefs
    assert {(a.lang, a.text) for a in kb.aliases_of("umls:C0000001")} == {
        ("fr", "maladie"),
        ("en", "ailment 1"),
        ("en", "disease 1"),
        ("de", "Krankheit 1"),
        ("ja", "病気 1"),
    }
    counts = built.manifest.counts
    assert counts["by_source"]["umls:MSH"] == {"en": 899}
    assert counts["by_source"]["wikidata:label"] == {"de": 900, "en": 900, "ja": 900}
    assert "900 concepts, 3,600 aliases in 4 languages; 899 concepts joined" in summary(built)


def test_several_workers_give_the_same_bytes_as_one(tmp_path, sources):
    build_kb(tmp_path / "one", sources, config=SMALL)
    build_kb(tmp_path / "two", sources, config=SMALL, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_splits_of_another_size_give_the_same_knowledge_base(tmp_path, sources):
    build_kb(tmp_path / "one", sources, config=SMALL)
    build_kb(tmp_path / "two", sources)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    del one["manifest.json"], two["manifest.json"]
    assert one == two


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from bioelx_ray.config import HarvestConfig
    from bioelx_ray.kb import parts
    from bioelx_ray.kb.harvest import build_kb
    from bioelx_ray.kb.sources import from_file

    target, left, *paths = sys.argv[1:]
    left = int(left)
    publish, add_all = parts.PartWriter._publish, parts.PartWriter.add_all

    def count(self):
        global left
        left -= 1
        publish(self)

    def die(self, records):
        def until():
            for number, record in enumerate(records):
                if left <= 0 and number >= 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield record
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        add_all(self, until())

    parts.PartWriter._publish, parts.PartWriter.add_all = count, die
    build_kb(
        Path(target),
        [from_file(Path(p)) for p in paths],
        config=HarvestConfig(split_bytes=1 << 16),
    )
"""


@pytest.mark.parametrize("after", [0, 1, 4, 7, 11])
def test_a_killed_build_goes_on_where_it_was(tmp_path, sources, after):
    target = tmp_path / "kb"
    paths = [str(spec.path) for spec in sources]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(target), str(after), *paths],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    work = tmp_path / ".kb.parts"
    finished = {path: path.stat().st_ino for path in work.glob("*/[0-9]*")}
    assert len(finished) == after
    planned = plan(sources, SMALL)
    run_tasks(planned, work, config=SMALL, workers=1, progress=lambda *_: None)
    assert {path: path.stat().st_ino for path in finished} == finished  # none was made again
    build_kb(target, sources, config=SMALL)
    build_kb(tmp_path / "undisturbed", sources, config=SMALL)
    assert files(target) == files(tmp_path / "undisturbed")
    assert not work.exists()


def test_parts_that_are_kept_save_reading_what_has_not_changed(tmp_path, sources, monkeypatch):
    work = tmp_path / "work"
    build_kb(tmp_path / "old", sources, config=SMALL, work=work)
    sources[0].path.write_text("concept_id\tlang\ttext\numls:C0000001\tfr\taffection\n")
    read = []

    def spy(task, *args):
        before = set(work.glob("*/[0-9]*"))
        run_task(task, *args)
        if set(work.glob("*/[0-9]*")) != before:
            read.append(task.source)

    monkeypatch.setattr(harvests, "run_task", spy)
    build_kb(tmp_path / "new", sources, config=SMALL, work=work)
    assert read == [sources[0].source.name]
    build_kb(tmp_path / "fresh", sources, config=SMALL)
    assert files(tmp_path / "new") == files(tmp_path / "fresh")


def test_a_dump_with_a_few_bad_lines_is_read_and_they_are_listed(tmp_path):
    spec = dump(tmp_path / "d.json.gz", 1500, bad=[700])
    built = build_kb(tmp_path / "kb", [spec], config=SMALL)
    assert sum(built.manifest.counts["rejected"].values()) == 1
    (reject,) = [json.loads(line) for line in built.file("rejects.jsonl").read_bytes().splitlines()]
    data = gzip.decompress(spec.path.read_bytes())
    at = reject["offset"]
    assert data[at : at + 30].decode() == reject["row"][:30]
    assert reject["line"] is None


def test_a_dump_with_many_bad_lines_is_refused(tmp_path):
    spec = dump(tmp_path / "d.json", 1500, bad=[7, 70, 700])
    with pytest.raises(TooManyRejects, match=r"d\.json: 3 of 1,50\d rows are bad.*byte [\d,]+: "):
        build_kb(tmp_path / "kb", [spec], config=SMALL)
    assert not (tmp_path / "kb").exists()
    assert (tmp_path / "kb.rejects.jsonl").read_text().count("\n") == 3


def test_a_dump_that_is_damaged_in_the_middle_is_refused(tmp_path):
    spec = dump(tmp_path / "d.json.gz", 1500)
    data = bytearray(spec.path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    spec.path.write_bytes(data)
    with pytest.raises(TooManyRejects, match=r"bytes cannot be unpacked"):
        build_kb(tmp_path / "kb", [spec], config=SMALL)
    assert not (tmp_path / "kb").exists()
    rows = [json.loads(line) for line in (tmp_path / "kb.rejects.jsonl").open()]
    (damage,) = [row for row in rows if row["reason"] == "gzip member is damaged"]
    assert 0 < damage["offset"] < len(data)


def test_a_dump_that_was_not_fetched_whole_is_refused(tmp_path):
    spec = dump(tmp_path / "d.json.gz", 1500)
    data = spec.path.read_bytes()
    spec.path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"d\.json\.gz ends too early.*[Ff]etch it again"):
        build_kb(tmp_path / "kb", [spec], config=SMALL)
    assert not (tmp_path / "kb").exists()


def test_a_bz2_that_was_not_fetched_whole_is_refused(tmp_path):
    spec = dump(tmp_path / "d.json", 3000)
    packed = bz2.compress(spec.path.read_bytes(), compresslevel=1)
    for cut in (len(packed) // 2, len(packed) - 5):
        path = tmp_path / "d.json.bz2"
        path.write_bytes(packed[:cut])
        with pytest.raises(InputError, match=r"d\.json\.bz2 ends too early.*|cannot be unpacked"):
            build_kb(tmp_path / "kb", [from_file(path)])
    path.write_bytes(packed)
    assert build_kb(tmp_path / "kb", [from_file(path)]).manifest.counts["concepts"] == 3000


@pytest.mark.parametrize("name", ["page.obo", "page.json"])
def test_a_page_that_is_no_source_is_refused_beside_good_ones(tmp_path, sources, name):
    page = tmp_path / name
    page.write_text("<html><body>404 Not Found</body></html>\n")
    with pytest.raises(InputError, match=r"page.*(can be used|rows are bad)"):
        build_kb(tmp_path / "kb", [*sources, from_file(page)], config=SMALL)


def test_workers_end_with_their_parent(tmp_path):
    code = """
        import os, signal, time
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from bioelx_ray.kb.harvest import _end_with_parent

        if __name__ == "__main__":
            context = get_context("spawn")
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
            print(pool.submit(os.getpid).result(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, script], check=False, stdout=subprocess.PIPE, text=True, timeout=60
    )
    worker = Path(f"/proc/{done.stdout.strip()}")
    deadline = time.monotonic() + 20
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_lost_within_the_share_is_counted_and_the_rest_is_read(tmp_path):
    spec = dump(tmp_path / "d.json.gz", 1500)
    data = bytearray(spec.path.read_bytes())
    data[-200:-150] = bytes(50)
    spec.path.write_bytes(data)
    config = HarvestConfig(split_bytes=1 << 16, max_reject_share=0.2)
    built = build_kb(tmp_path / "kb", [spec], config=config)
    assert built.manifest.counts["rejected"]
    assert 1000 < built.manifest.counts["concepts"] < 1500


def test_a_full_disk_while_reading_leaves_nothing_half(tmp_path, sources, monkeypatch):
    import pyarrow.parquet as pq

    written = pq.ParquetWriter.write_table
    calls = []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        written(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(ArtifactError, match=r"No space left.*free space there and run again"):
            build_kb(tmp_path / "kb", sources, config=SMALL)
    assert not (tmp_path / "kb").exists()
    assert not list(tmp_path.rglob("*.draft"))
    build_kb(tmp_path / "kb", sources, config=SMALL)
    build_kb(tmp_path / "undisturbed", sources, config=SMALL)
    assert files(tmp_path / "kb") == files(tmp_path / "undisturbed")


def test_an_empty_file_among_others_is_no_error(tmp_path, sources):
    empty = tmp_path / "in" / "hp-ar.babelon.tsv"
    empty.write_text("subject_id\tpredicate_id\ttranslation_language\ttranslation_value\n")
    built = build_kb(tmp_path / "kb", [*sources, from_file(empty)], config=SMALL)
    assert str(empty) in built.manifest.inputs


def test_settings_that_leave_nothing_are_an_error(tmp_path, sources):
    config = HarvestConfig.model_validate({"umls": {"vocabularies": ["NONE"]}})
    with pytest.raises(InputError, match=r"nothing that can be used, of"):
        build_kb(tmp_path / "kb", [sources[1]], config=config)


def test_a_missing_part_is_told(tmp_path, sources):
    planned = plan(sources, SMALL)
    with pytest.raises(InputError, match="is missing: read"):
        merge_parts(tmp_path / "kb", sources, planned, work=tmp_path / "work", config=SMALL)


def test_a_directory_of_sources(tmp_path, sources):
    specs = from_directory(tmp_path / "in")
    assert [(spec.path.name, spec.kind) for spec in specs] == [
        ("a.tsv", "table"),
        ("one.json.gz", "wikidata"),
        ("two.json", "wikidata"),
        ("umls", "umls"),
    ]
