"""The starter table as it ships: its figures are true, its names in the right script."""

import json
from collections import Counter, defaultdict

from bioelx_ray.artifacts import sha256_file
from bioelx_ray.kb.packaged import starter
from bioelx_ray.kb.readers.reading import read_file
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.text import normalise, script
from bioelx_ray.records import Alias

SCRIPTS = {
    "ar": {"Arabic"},
    "hi": {"Devanagari"},
    "ja": {"Kana", "Han"},
    "ko": {"Hangul"},
    "ru": {"Cyrillic"},
    "th": {"Thai"},
    "zh": {"Han"},
}


def aliases():
    rejects = Rejects()
    found = [record for record in read_file(starter(), rejects) if isinstance(record, Alias)]
    assert len(rejects) == 0
    return found


def test_figures_are_of_this_very_table():
    figures = json.loads(starter().path.with_suffix(".json").read_text("utf-8"))
    table = aliases()
    assert figures["sha256"] == sha256_file(starter().path)
    assert figures["names"] == len(table)
    assert figures["concepts"] == len({alias.concept_id for alias in table}) >= 300
    assert figures["languages"] == sorted({alias.lang for alias in table})
    assert len(figures["languages"]) >= 12
    assert figures["ids_confirmed"] == figures["concepts"]
    assert f"{figures['names_confirmed']:,} of" in starter().source.note


def test_every_concept_has_one_preferred_name_in_every_language():
    preferred = Counter((a.concept_id, a.lang) for a in aliases() if a.preferred)
    ids = {a.concept_id for a in aliases()}
    langs = {a.lang for a in aliases()}
    assert set(preferred.values()) == {1}
    assert set(preferred) == {(id_, lang) for id_ in ids for lang in langs}


def test_preferred_names_are_in_the_script_of_their_language():
    wrong = [
        (alias.lang, alias.text)
        for alias in aliases()
        if alias.preferred
        and not SCRIPTS.get(alias.lang, {"Latin"}) & {script(char) for char in alias.text}
    ]
    assert wrong == []


def test_hardly_any_name_stands_for_two_concepts():
    owners = defaultdict(set)
    for alias in aliases():
        owners[normalise(alias.text, alias.lang), alias.lang].add(alias.concept_id)
    shared = {form for form, ids in owners.items() if len(ids) > 1}
    assert len(shared) / len(owners) < 0.005, sorted(shared)
