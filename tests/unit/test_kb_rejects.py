import json

import pytest

from bioelx_ray.errors import InputError, TooManyRejects
from bioelx_ray.kb.rejects import Rejects


def add(rejects, n, file="a.tsv", reason="text is empty"):
    for line in range(1, n + 1):
        rejects.add(file, line, reason=reason, row=b"row %d" % line)


def test_all_are_counted_and_some_are_kept(tmp_path):
    rejects = Rejects(keep=2)
    add(rejects, 3)
    add(rejects, 4, file="b.tsv", reason="row is not UTF-8")
    assert len(rejects) == 7
    assert [(r.file, r.line) for r in rejects.kept] == [("a.tsv", 1), ("a.tsv", 2)]
    assert rejects.count("b.tsv") == 4
    assert rejects.by_reason() == {"row is not UTF-8": 4, "text is empty": 3}
    path = rejects.write(tmp_path)
    assert path == tmp_path / "rejects.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "file": "a.tsv",
        "line": 1,
        "offset": None,
        "reason": "text is empty",
        "row": "row 1",
    }
    assert lines[-1] == {"not_kept": 5}
    assert len(lines) == 3


def test_bytes_are_cut_and_shown():
    rejects = Rejects()
    rejects.add("a", 1, reason="r", row=b"\xff\xfe caf\xc3\xa9 " + b"x" * 500)
    row = rejects.kept[0].row
    assert row.startswith("\\xff\\xfe café xx")
    assert row.count("x") == 200 - 9 + 2


def test_the_share_is_that_of_one_file(tmp_path):
    rejects = Rejects(keep=1)
    add(rejects, 1)
    add(rejects, 5, file="b.tsv", reason="lang is no BCP 47 tag")
    aside = tmp_path / "kb.rejects.jsonl"
    rejects.check("a.tsv", total=1000, max_share=0.001, aside=aside)
    rejects.check("clean.tsv", total=0, max_share=0, aside=aside)
    assert not aside.exists()
    with pytest.raises(TooManyRejects) as caught:
        rejects.check("b.tsv", total=4000, max_share=0.001, aside=aside)
    message = str(caught.value)
    for part in ("b.tsv", "5 of 4,000", "line 1: lang is no BCP 47 tag", str(aside)):
        assert part in message
    assert isinstance(caught.value, InputError)
    assert aside.read_text().count("\n") == 2
