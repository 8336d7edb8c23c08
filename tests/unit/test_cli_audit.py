import json

import pytest
import typer
from typer.testing import CliRunner

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.cli import audit, pairs
from bioelx_ray.errors import ConfigError, InputError
from bioelx_ray.testing import small_kb

app = typer.Typer()
app.command("audit")(audit)
app.command("pairs")(pairs)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    small_kb(tmp_path)
    (tmp_path / "xl").mkdir()
    (tmp_path / "xl" / "en.txt").write_text("C0027530||Neck\nC0027530||nape\n", encoding="utf-8")
    return tmp_path


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_audit_pairs_audit(small):
    listed, figures = small / "leaks.tsv", small / "figures.json"
    audited = ("audit", "xlbel", small / "xl", "--kb", small / "kb")
    assert run(*audited, "--list", listed).exit_code == 0
    assert "neck" in listed.read_text(encoding="utf-8")

    made = run("pairs", small / "kb", "--out", small / "all").stdout
    assert "cross-lingual" in made
    out = run(*audited, "--pairs", small / "all", "--json", figures).stdout
    assert "xlbel" in out
    row = json.loads(figures.read_text("utf-8"))["rows"][0]
    assert row["training"]["gold"] == {
        "verbatim": {"n": 0, "share": 0.0},
        "normalised": {"n": 1, "share": 0.5},
    }

    assert (
        "1 excluded"
        in run(*("pairs", small / "kb", "--out", small / "clean", "--exclude", listed)).stdout
    )
    run(*audited, "--pairs", small / "clean", "--json", figures)
    row = json.loads(figures.read_text("utf-8"))["rows"][0]
    assert row["training"]["any"]["normalised"]["n"] == 0
    assert row["dictionary"]["gold"]["normalised"]["n"] == 1


def test_the_limit_is_the_settings_unless_given(small):
    settings = small / "settings.yaml"
    settings.write_text("pairs: {per_concept: 2, seed: 7}\n")
    told = ("pairs", small / "kb", "--out", small / "p", "--config", settings)
    run(*told)
    assert open_artifact(small / "p", "pairs").manifest.config == {"per_concept": 2, "seed": 7}
    run(*told, "--per-concept", 1)
    assert open_artifact(small / "p", "pairs").manifest.config == {"per_concept": 1, "seed": 7}


def test_what_is_wrong_is_said(small):
    with pytest.raises(ConfigError, match="xlbel, mantra"):
        run("audit", "xyz", small, "--kb", small / "kb")
    with pytest.raises(InputError, match=r"none\.tsv"):
        run("pairs", small / "kb", "--out", small / "p", "--exclude", small / "none.tsv")
    assert run("pairs", small / "kb", "--out", small / "p", "--per-concept", 0).exit_code == 2
