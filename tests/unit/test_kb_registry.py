import re

import pytest
import yaml

from bioelx_ray.errors import InputError
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.fetch.registry import load_registry, wanted_files
from bioelx_ray.kb.text import language_tag

SOURCES = load_registry()
SPDX = {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0"}
ENDS = {
    "obo": (".obo", ".obo.gz"),
    "babelon": (".babelon.tsv", ".synonyms.tsv"),
    "sssom": (".sssom.tsv",),
    "wikidata": (".json.bz2", ".json.gz"),
    "table": (".tsv", ".csv", ".parquet"),
    "umls": (),
}
PLAIN = {
    "name": "mine",
    "title": "Mine",
    "reader": "obo",
    "gives": "names",
    "langs": ["en"],
    "ids": ["mine"],
    "licence": "CC0-1.0",
    "licence_page": "https://example.org/licence",
    "homepage": "https://example.org",
    "files": [{"address": "https://example.org/mine.obo"}],
}


def load(tmp_path, *entries):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(list(entries)), "utf-8")
    return load_registry(path)


def test_the_sources_that_must_be_there():
    wanted = {"wikidata", "hpo", "hpo-translations", "mondo", "mondo-mappings", "doid", "uberon"}
    assert wanted | {"umls", "snomedct"} <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_entry(source):
    assert source.licence in SPDX or "licence" in source.licence.lower() or source.accept
    assert source.licence_page.startswith("https://")
    assert all(language_tag(lang) == lang for lang in source.langs)
    assert all(curie(f"{prefix}:1") == f"{prefix}:1" for prefix in source.ids), "not Bioregistry's"
    for file in source.files:
        assert file.address.startswith("https://")
        assert file.address.endswith(ENDS[source.reader])
        assert (file.of_release or file.address).endswith(ENDS[source.reader])
        assert file.lang is None or file.lang in source.langs


def test_a_file_is_in_the_language_that_its_name_says():
    for file in SOURCES["hpo-translations"].files:
        assert re.search(rf"/hp-{file.lang}\.", file.address)
    assert {file.lang for file in SOURCES["hpo-translations"].files} == set(
        SOURCES["hpo-translations"].langs
    )


def test_licences_that_must_be_accepted_come_without_files():
    assert {name for name, source in SOURCES.items() if source.accept} == {
        "umls",
        "snomedct",
        "meddra",
    }
    assert not any(source.files for source in SOURCES.values() if source.accept)


def test_the_newest_and_a_named_release():
    [newest] = wanted_files(SOURCES["wikidata"])
    assert newest.name == "latest-all.json.bz2"
    assert newest.checksums is None
    [dated] = wanted_files(SOURCES["wikidata"], release="20250106")
    base = "https://dumps.wikimedia.org/wikidatawiki/entities/20250106/wikidata-20250106-"
    assert dated.address == base + "all.json.bz2"
    assert (dated.checksums, dated.algorithm) == (base + "sha1sums.txt", "sha1")
    assert dated.name == "wikidata-20250106-all.json.bz2"


@pytest.mark.parametrize("release", ["", "..", "a/b", "../x", "a b", "é", "a?b"])
def test_names_of_releases_that_are_none(release):
    with pytest.raises(InputError, match="no name of a release"):
        wanted_files(SOURCES["wikidata"], release=release)


def test_a_source_without_releases():
    with pytest.raises(InputError, match="hpo has no named releases"):
        wanted_files(SOURCES["hpo"], release="2025-01-01")


def test_files_by_language():
    names = [f.name for f in wanted_files(SOURCES["hpo-translations"], langs=frozenset({"de"}))]
    assert names == ["hp-de.babelon.tsv", "hp-de.synonyms.tsv"]
    assert len(wanted_files(SOURCES["hpo"], langs=frozenset({"de"}))) == 1
    with pytest.raises(InputError, match=r"no file in xx; there are: ar, cs, de"):
        wanted_files(SOURCES["hpo-translations"], langs=frozenset({"xx"}))


def test_an_own_list_adds_and_replaces(tmp_path):
    mirror = PLAIN | {"name": "hpo", "files": [{"address": "http://127.0.0.1:8000/hp.obo"}]}
    sources = load(tmp_path, PLAIN, mirror)
    assert list(sources) == [*SOURCES, "mine"]
    assert sources["hpo"].files[0].address == "http://127.0.0.1:8000/hp.obo"
    assert sources["mondo"] == SOURCES["mondo"]


def change_file(**changes):
    return {"files": [PLAIN["files"][0] | changes]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adress": "x"}, "adress: Extra inputs"),
        ({"reader": "xml"}, "reader: Input should be"),
        ({"licence": ""}, "licence: "),
        ({"licence_page": "example.org"}, "begins with https"),
        ({"name": "My Source"}, "name: "),
        ({"concepts": 0}, "concepts: "),
        ({"files": []}, "either files or"),
        ({"accept": "ask them"}, "either files or"),
        ({"files": PLAIN["files"] * 2}, "same name"),
        (change_file(sum="x"), r"files\.0\.sum: Extra"),
        (change_file(algorithm="crc32"), "algorithm"),
        (change_file(address="http://example.org/x.obo"), "begins with https"),
        (change_file(address="ftp://example.org/x.obo"), "begins with https"),
        (change_file(address="file:///etc/passwd"), "begins with https"),
        (change_file(address="https:///x.obo"), "begins with https"),
        (change_file(address="https://example.org/x.obo\n"), "begins with https"),
        (change_file(address="https://me:pw@example.org/x.obo"), "credentials"),
        (change_file(address="https://example.org/"), "name of a file"),
        (change_file(address="https://example.org/.."), "name of a file"),
        (change_file(address="https://example.org/{release}.obo"), "must not hold"),
        (change_file(of_release="https://example.org/x.obo"), "must hold"),
        (change_file(checksums="https://example.org/{release}.txt"), "no of_release"),
    ],
)
def test_entries_that_are_none(tmp_path, change, message):
    with pytest.raises(InputError, match=rf"own\.yaml: source 1: .*{message}"):
        load(tmp_path, PLAIN | change)


def test_lists_that_are_none(tmp_path):
    with pytest.raises(InputError, match="mine is there twice"):
        load(tmp_path, PLAIN, PLAIN)
    with pytest.raises(InputError, match="source 1: Input should be"):
        load(tmp_path, "text")
    path = tmp_path / "own.yaml"
    for data, message in [
        (b"name: x\n", "expected a list"),
        (b"", "expected a list"),
        (b"[\xff]", "cannot be read"),
        (b"[", "cannot be read"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            load_registry(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_registry(tmp_path / "none.yaml")
