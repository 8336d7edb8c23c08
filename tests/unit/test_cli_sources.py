"""`bioelx sources`, with a list of sources that points to a server on this machine."""

import functools
import hashlib
import http.server
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bioelx_ray.cli.sources import sources_app
from bioelx_ray.errors import BioelxError, InputError

HP = b"format-version: 1.2\n\n[Term]\nid: HP:0001658\nname: Myocardial infarction\n"
AGENTS = []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        AGENTS.append(self.headers["User-Agent"])


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A list of sources whose files a server on this machine has."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "BIOELX_SOURCES"):
        monkeypatch.delenv(name, raising=False)
    site = tmp_path / "site"
    site.mkdir()
    for name in ("hp.obo", "v1-hp.obo", "t-de.tsv", "t-fr.tsv"):
        (site / name).write_bytes(HP if name.endswith("obo") else name.encode())
    (site / "v1.txt").write_text(f"{hashlib.sha256(HP).hexdigest()}  v1-hp.obo\n")
    (site / "v2.txt").write_text(f"{'0' * 64}  v1-hp.obo\n")
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield write_registry(tmp_path, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def write_registry(tmp_path, url):
    common = {
        "title": "T",
        "reader": "obo",
        "gives": "[all] names",
        "langs": ["en"],
        "ids": ["hp"],
        "licence": "CC0-1.0",
        "licence_page": "https://example.org/licence",
        "homepage": "https://example.org",
    }
    onto = {
        "address": f"{url}/hp.obo",
        "of_release": f"{url}/{{release}}-hp.obo",
        "checksums": f"{url}/{{release}}.txt",
    }
    files = {
        "onto": [onto],
        "words": [{"address": f"{url}/t-{lang}.tsv", "lang": lang} for lang in ("de", "fr")],
        "partly": [{"address": f"{url}/{name}"} for name in ("gone.obo", "hp.obo")],
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump([common | {"name": n, "files": f} for n, f in files.items()]))
    return path


def run(*args, env=None):
    result = CliRunner().invoke(sources_app, [str(arg) for arg in args], env=env)
    if isinstance(result.exception, BioelxError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_list_shows_a_table():
    out = run("list").stdout
    for words in ("wikidata", "mondo-mappings", "CC0-1.0", "to be accepted"):
        assert words in out


def test_list_gives_json(registry):
    lines = [
        json.loads(x) for x in run("list", "--json", "--registry", registry).stdout.split("\n")[:-1]
    ]
    by_name = {line["name"]: line for line in lines}
    assert {"hpo", "umls", "onto"} <= set(by_name)
    assert by_name["hpo"]["files"][0]["address"] == "https://purl.obolibrary.org/obo/hp.obo"
    assert by_name["umls"]["files"] == []
    assert "[all] names" in run("list", "--registry", registry).stdout


def test_fetch_prints_the_paths_alone(registry, tmp_path):
    out = tmp_path / "my data"
    result = run("fetch", "onto", "words", "onto", "--out", out, "--registry", registry)
    paths = [Path(word) for word in shlex.split(result.stdout)]
    assert paths == [out / "onto/hp.obo", out / "words/t-de.tsv", out / "words/t-fr.tsv"]
    assert paths[0].read_bytes() == HP
    assert "words: licence CC0-1.0, see https://example.org/licence" in result.stderr


def test_fetch_takes_languages_and_the_list_from_the_environment(registry, tmp_path):
    env = {"BIOELX_SOURCES": str(registry), "BIOELX_CONTACT": "https://example.org/me"}
    AGENTS.clear()
    result = run("fetch", "words", "onto", "--out", tmp_path, "--lang", "fr", env=env)
    assert [Path(word).name for word in shlex.split(result.stdout)] == ["t-fr.tsv", "hp.obo"]
    assert len(AGENTS) == 2
    assert all("(https://example.org/me)" in agent for agent in AGENTS)


def test_fetch_checks_a_release_against_its_checksum(registry, tmp_path):
    args = ("fetch", "onto", "--out", tmp_path, "--registry", registry, "--release")
    assert run(*args, "v1").stdout == f"{tmp_path}/onto/v1-hp.obo\n"
    with pytest.raises(InputError, match=r"v2\.txt: holds no sha256 checksum of v2-hp\.obo"):
        run(*args, "v2")
    (tmp_path / "site" / "v1.txt").write_text(f"{'0' * 64}  v1-hp.obo\n")
    with pytest.raises(InputError, match=f"expected {'0' * 64}"):
        run(*args, "v1")
    assert (tmp_path / "onto/v1-hp.obo").read_bytes() == HP
    with pytest.raises(InputError, match="words has no named releases"):
        run(*args, "v1", "words")


def test_a_file_that_is_gone_does_not_cost_the_others(registry, tmp_path):
    args = ["fetch", "partly", "--out", str(tmp_path), "--registry", str(registry)]
    result = CliRunner().invoke(sources_app, args)
    assert isinstance(result.exception, InputError)
    assert "1 of 2 files could not be downloaded" in str(result.exception)
    assert "gone.obo: the server answers 404" in str(result.exception)
    assert result.stdout == f"{tmp_path}/partly/hp.obo\n"


@pytest.mark.parametrize("name", ["umls", "snomedct", "meddra"])
def test_a_licence_that_must_be_accepted(registry, tmp_path, name):
    result = run("fetch", "onto", name, "--out", tmp_path / "out", "--registry", registry)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{name}: " in result.stderr
    assert "https://" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_name(registry, tmp_path):
    with pytest.raises(InputError, match=r"no source 'hop', 'x'; known are wikidata, .*, onto"):
        run("fetch", "hop", "umls", "x", "--out", tmp_path / "o", "--registry", registry)


def test_help_does_not_load_the_http_client():
    code = (
        "import sys; from typer.testing import CliRunner; "
        "from bioelx_ray.cli.sources import sources_app as app; "
        "r = CliRunner().invoke(app, ['fetch', '--help']); "
        "assert 'BIOELX_SOURCES' in r.output, r.output; "
        "sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
