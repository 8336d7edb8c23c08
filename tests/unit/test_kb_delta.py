import pytest

from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch
from bioelx_ray.kb.delta import apply_delta, build_delta, summary
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import KnowledgeBase

OBO = """[Term]
id: X:1
name: one
xref: UMLS:C0000001

[Term]
id: X:2
name: two

[Term]
id: X:3
name: three
synonym: "third" EXACT []
"""
NEWER = (
    OBO.replace("name: two\n", "name: two\nis_obsolete: true\nreplaced_by: X:4\n")
    .replace('"third"', '"the third"')
    .replace("C0000001", "C0000002")
    + "\n[Term]\nid: X:4\nname: four\n"
)
TABLE = "concept_id\tlang\ttext\ny:1\tde\tEins\ny:2\tde\tthree\ny:2\ten\tthree\n"
PAIRED = (
    "concept_id\tlang\ttext\tsource\ny:8\ten\tfoo\ty\ny:8\ten\tbar\ty\n"
    "y:7\ten\tfoo\tw\ny:7\ten\tbar\tw\n"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def make(tmp_path, name, obo, table=TABLE):
    home = tmp_path / "in"
    home.mkdir(exist_ok=True)
    (home / "x.obo").write_text(obo)
    (home / "y.tsv").write_text(table)
    out = tmp_path / name
    build_kb(out, [from_file(home / "x.obo"), from_file(home / "y.tsv")])
    return out


def files(kb):
    return {path.name: path.read_bytes() for path in kb.iterdir()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((OBO,), (NEWER,)),
        ((NEWER,), (OBO,)),
        ((OBO,), (OBO,)),
        ((OBO,), (OBO, TABLE + "y:3\tde\tDrei\nbad row\n" + "y:3\ten\tname\n" * 1500)),
        ((OBO, TABLE), (OBO, TABLE.replace("three", "THREE"))),
        ((OBO, PAIRED), (OBO, PAIRED + "y:9\ten\tfoo\ty\ny:9\ten\tbar\ty\n")),  # two flags flip
        ((OBO, PAIRED), (OBO, PAIRED + "y:8\ten\tfoo\tz\ny:8\ten\tbar\tz\n")),  # and two `also`
    ],
)
def test_old_and_delta_give_the_new_one_byte_for_byte(tmp_path, before, after):
    old, new = make(tmp_path, "old", *before), make(tmp_path, "new", *after)
    build_delta(tmp_path / "delta", old, new)
    apply_delta(tmp_path / "made", old, tmp_path / "delta")
    assert files(tmp_path / "made") == files(new)


def test_it_says_what_was_added_changed_and_removed(tmp_path):
    old, new = make(tmp_path, "old", OBO), make(tmp_path, "new", NEWER)
    delta = build_delta(tmp_path / "delta", old, new)
    assert delta.manifest.counts == {"added": 1, "changed": 2, "removed": 1}
    assert summary(delta) == "1 added, 2 changed, 1 removed"
    assert KnowledgeBase.open(new).retired("x:2").replaced_by == "x:4"


def test_nothing_changed_is_an_empty_delta(tmp_path):
    kb = make(tmp_path, "kb", OBO)
    delta = build_delta(tmp_path / "delta", kb, kb)
    assert delta.manifest.counts == {"added": 0, "changed": 0, "removed": 0}


def test_a_delta_for_another_knowledge_base_is_refused(tmp_path):
    old, new = make(tmp_path, "old", OBO), make(tmp_path, "new", NEWER)
    build_delta(tmp_path / "delta", old, new)
    with pytest.raises(ArtifactMismatch, match="apply it to the one that it was made from"):
        apply_delta(tmp_path / "made", new, tmp_path / "delta")
    assert not (tmp_path / "made").exists()


def test_a_result_with_other_bytes_is_refused(tmp_path, monkeypatch):
    old, new = make(tmp_path, "old", OBO), make(tmp_path, "new", NEWER)
    build_delta(tmp_path / "delta", old, new)
    monkeypatch.setattr("bioelx_ray.kb.delta.sha256_file", lambda path: "0")
    with pytest.raises(ArtifactCorrupt, match="other bytes"):
        apply_delta(tmp_path / "made", old, tmp_path / "delta")
    assert not (tmp_path / "made").exists()
