"""The command line, without weights: the lexical retriever needs no encoder."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.cli import app
from bioelx_ray.errors import BioelxError, ConfigError, InputError, MentionError
from bioelx_ray.testing import SMALL_TABLE, small_index


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    small_index(directory)
    return directory


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if isinstance(result.exception, BioelxError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_harvest_says_what_it_built(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text(SMALL_TABLE)
    out = run("harvest", table, "--out", tmp_path / "kb").output
    assert "6 concepts, 19 aliases in 12 languages; 0 concepts joined" in " ".join(out.split())
    assert open_artifact(tmp_path / "kb", "kb").manifest.counts["concepts"] == 6


def test_show_tells_aliases_by_source_and_language(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text(SMALL_TABLE)
    run("harvest", table, "--out", tmp_path / "kb")
    out = run("show", tmp_path / "kb", "--languages", 2).output
    lines = [line.split() for line in out.splitlines()]
    assert ["hp", "5", "5"] in lines
    assert ["starter", "14", "3", "1", "10"] in lines
    assert ["all", "19", "8", "1", "10"] in lines
    assert f"{table}: not stated" in " ".join(out.split())


def test_link_prints_one_json_object_a_mention(small):
    result = run(
        *("link", "Pat. mit [[Herzinfarkt]] und حمى", "--mention", "حمى", "--lang", "de", "--json"),
        *("--index", small / "index", "--retriever", "lexical", "--top-k", 2),
    )
    links = [json.loads(line) for line in result.stdout.splitlines()]
    assert [link["concept_id"] for link in links] == ["hp:0001658", "hp:0001945"]
    assert (links[0]["start"], links[0]["end"]) == (9, 20)
    assert links[0]["candidates"][0]["matched_alias"] == "Herzinfarkt"
    assert links[0]["decided_by"] == "retrieval"


def test_link_prints_a_table(small):
    args = ("link", "[[asthma]] [[ᚠᚢᚦ]]", "--index", small / "index", "--retriever", "lexical")
    out = run(*args).stdout
    assert "hp:0002099" in out
    assert "NIL" in out


def test_link_keeps_to_its_filters(small):
    result = run(
        *("link", "[[cold]]", "--index", small / "index", "--retriever", "lexical", "--json"),
        *("--vocabulary", "umls", "--semantic-type", "symptom", "--alias-lang", "en"),
        *("--source", "starter"),
    )
    found = [c["concept_id"] for c in json.loads(result.stdout)["candidates"]]
    assert found == ["umls:C0009264"]


def test_evaluate_prints_and_writes_figures(small, tmp_path):
    (tmp_path / "xl").mkdir()
    (tmp_path / "xl" / "de.txt").write_text("C0027530||neck\nC9999999||Auto\n", encoding="utf-8")
    figures = tmp_path / "figures.json"
    result = run(
        *("evaluate", "xlbel", tmp_path / "xl", "--index", small / "index", "--kb", small / "kb"),
        *("--retriever", "lexical", "--json", figures, "--audit"),
    )
    assert "100.0" in result.stdout
    assert "no alias of their gold concept" in result.stdout
    assert json.loads(figures.read_text("utf-8"))["lexical, audit"]["share_seen"]["de"] == 1.0
    row = json.loads(figures.read_text("utf-8"))["lexical"]["rows"][0]
    assert (row["key"], row["n"], row["n_in_kb"]) == ("de", 2, 1)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("link", "text"), MentionError, "mark it in the text as"),
        (("link", "text", "--mention", "other"), MentionError, "does not occur in the text"),
        (("link", "[[text]]", "--lang", "klingon!"), InputError, "klingon!"),
        (("link", "[[text]]", "--retriever", "magic"), ConfigError, "dense, lexical, hybrid"),
        (("evaluate", "xyz", ".", "--index", "i", "--kb", "k"), ConfigError, "xlbel, mantra"),
        (("harvest", "nowhere.tsv", "--out", "x"), InputError, "nowhere.tsv"),
        (("index", "nowhere", "--out", "x", "--config", "none.yaml"), ConfigError, "none.yaml"),
    ],
)
def test_what_is_wrong_is_said(args, error, message):
    with pytest.raises(error, match=message):
        run(*args)


def test_errors_end_in_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "bioelx_ray.cli", "harvest", "none.tsv", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_needs_no_heavy_library():
    code = (
        "import sys; from bioelx_ray import cli\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'faiss', 'ray', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
