"""The readers on the published files, where they are present. Counts are those of shell tools."""

from pathlib import Path

import pytest

from bioelx_ray.evaluation.corpora import SUITES
from bioelx_ray.evaluation.corpora.mantra import read_mantra_dir

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not (DATA / "xlbel").is_dir() or not (DATA / "mantra").is_dir(),
    reason=f"no benchmarks in {DATA}",
)

# wc -l xlbel/*/*.txt
ROWS = {
    "de": 504,
    "es": 461,
    "fi": 473,
    "ja": 459,
    "ko": 468,
    "ru": 489,
    "th": 489,
    "tr": 457,
    "zh": 505,
}

# for each file: grep '^T' | cut -f2 | sed 's/^C[0-9]* //' | sort -u | wc -l
SPANS = {
    ("nl", "emea"): 188,
    ("nl", "medline"): 124,
    ("en", "emea"): 187,
    ("en", "medline"): 597,
    ("en", "patents"): 197,
    ("fr", "emea"): 187,
    ("fr", "medline"): 143,
    ("fr", "patents"): 191,
    ("de", "emea"): 183,
    ("de", "medline"): 160,
    ("de", "patents"): 195,
    ("es", "emea"): 186,
    ("es", "medline"): 160,
}


@pytest.mark.parametrize(("version", "english"), [("v0.0", 473), ("v1.0", 512)])
def test_xlbel(version, english):
    gold = SUITES["xlbel"](DATA / "xlbel" / version)
    assert {lang: len(items) for lang, items in gold.items()} == {**ROWS, "en": english}
    mentions = [item.mention for items in gold.values() for item in items]
    assert all(bool(m.left or m.right) == (version == "v1.0") for m in mentions)


def test_xlbel_rows_with_several_ids():
    # grep -c '^[^|]*|[^|]' xlbel/v1.0/de.txt
    gold = SUITES["xlbel"](DATA / "xlbel" / "v1.0")["de"]
    assert sum(len(item.concept_ids) > 1 for item in gold) == 45


def test_mantra():
    gold = read_mantra_dir(DATA / "mantra")
    assert {key: len(items) for key, items in gold.items()} == SPANS
    items = [item for group in gold.values() for item in group]
    # 3,060 lines of T, one of them there twice
    assert sum(len(item.concept_ids) for item in items) == 3059
    # grep '^T.*[0-9];', then cut and sort -u as above
    mentions = [item.mention for item in items]
    assert sum(len(m.text) != m.end - m.start for m in mentions) == 67
