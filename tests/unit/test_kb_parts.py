import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioelx_ray.errors import ArtifactError
from bioelx_ray.kb import parts
from bioelx_ray.kb.parts import PartWriter, read_figures
from bioelx_ray.kb.rejects import load_rejects
from bioelx_ray.records import Alias, Concept, Retired


def alias(text, lang="en"):
    return Alias(concept_id="x:1", text=text, lang=lang, source="s")


def test_a_part_holds_records_forms_and_figures(tmp_path):
    with PartWriter(tmp_path / "part") as writer:
        writer.add_all([Concept(id="x:1", name="A"), alias("Fièvre  Q"), alias("12"), alias("")])
        writer.add_all([Retired(id="x:0", replaced_by="x:1", source="s")])
        writer.rejects.add("f", 3, reason="bad", row=b"\xff")
    rows = pq.read_table(tmp_path / "part" / "aliases.parquet").to_pylist()
    assert [(row["text"], row["form"]) for row in rows] == [("Fièvre  Q", "fièvre q")]
    figures = read_figures(tmp_path / "part")
    assert (figures.records, figures.aliases) == (3, 1)
    assert figures.dropped == {"empty": 1, "no letter": 1}
    assert figures.rejected == {"bad": 1}
    assert [reject.line for reject in load_rejects(tmp_path / "part")] == [3]
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == [
        "aliases.parquet",
        "concepts.parquet",
        "part.json",
        "rejects.jsonl",
        "retired.parquet",
    ]


def test_batches_are_taken_as_they_are_and_mixed_with_records(tmp_path):
    columns = ["concept_id", "text", "lang", "source", "preferred"]
    batch = pa.record_batch(
        [["x:1"] * 3, ["a", "b", "7"], ["en"] * 3, ["s"] * 3, [True, False, True]], columns
    )
    with PartWriter(tmp_path / "part") as writer:
        writer.add_all([batch, alias("c"), batch])
    texts = pq.read_table(tmp_path / "part" / "aliases.parquet")["text"].to_pylist()
    assert sorted(texts) == ["a", "a", "b", "b", "c"]
    assert writer.figures.dropped == {"no letter": 2}


def test_many_records_are_written_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_FLUSH", 10)
    with PartWriter(tmp_path / "part") as writer:
        writer.add_all(alias(f"a{n}") for n in range(25))
        assert len(writer._rows[Alias]) == 5
    assert writer.figures.aliases == 25


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        with PartWriter(tmp_path / name) as writer:
            writer.add_all(alias(f"a{n}") for n in range(2500))
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_an_error_leaves_nothing(tmp_path):
    def records():
        yield alias("a")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), PartWriter(tmp_path / "part") as writer:
        writer.add_all(records())
    assert list(tmp_path.iterdir()) == []
    assert read_figures(tmp_path / "part") is None


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with (
        pytest.raises(ArtifactError, match=r"No space left.*what is finished is kept"),
        PartWriter(tmp_path / "part") as writer,
    ):
        writer.add_all([alias("a")])
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_dead_processes_are_removed(tmp_path):
    stale = tmp_path / ".part.999999999.draft"
    stale.mkdir()
    with PartWriter(tmp_path / "part") as writer:
        writer.add_all([alias("a")])
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
