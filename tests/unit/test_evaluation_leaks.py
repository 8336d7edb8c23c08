import json
from collections import Counter

import pytest
from rich.console import Console

from bioelx_ray.artifacts import open_artifact
from bioelx_ray.config import PairsConfig
from bioelx_ray.errors import ArtifactMismatch, InputError
from bioelx_ray.evaluation import leak_report
from bioelx_ray.evaluation.leaks import Leak, find_leaks
from bioelx_ray.kb.harvest import build_kb
from bioelx_ray.kb.pairs import build_pairs, read_pairs
from bioelx_ray.kb.sources import from_file
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import GoldMention, Mention
from bioelx_ray.testing import small_kb

MI, ASTHMA, NECK = "hp:0001658", "hp:0002099", "umls:C0027530"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def gold(lang, text, *ids):
    return GoldMention(mention=Mention(text=text, lang=lang), concept_ids=frozenset(ids))


GOLD = {
    "de": [
        gold("de", "Herzinfarkt", MI),
        gold("de", "HERZINFARKT", MI),
        gold("de", "Heart attack", "icd10:I21"),  # an xref of MI, whose English alias it is
        gold("de", "Asthma", NECK),  # another concept's
        gold("de", "Nacken", NECK),
        gold("de", "Nacken", NECK),
    ],
    "tr": [gold("tr", "FEVER", "hp:0001945"), gold("tr", "boyun", NECK), gold("tr", "neck")],
    "th": [],
}


@pytest.fixture
def kb(tmp_path):
    return small_kb(tmp_path)


def built(kb, tmp_path, **given):
    target = tmp_path / "pairs"
    config = PairsConfig(per_concept=1000)
    build_pairs(target, kb, config=config, progress=lambda *_: None, **given)
    return target


def counts(row, where):
    return [row.found[way] for way in row.found if way[0] == where]


def test_the_dictionary(kb):
    leaks = find_leaks(GOLD, kb)
    de, tr, th = leaks.rows
    assert leaks.places == ("dictionary",)
    assert (de.key, de.n, de.n_in_kb) == ("de", 6, 6)
    # gold verbatim, gold normalised, any verbatim, any normalised
    assert counts(de, "dictionary") == [1, 3, 2, 4]
    assert counts(tr, "dictionary") == [1, 2, 2, 3]
    assert counts(th, "dictionary") == [0, 0, 0, 0]
    assert de.share(("dictionary", "gold", "normalised")) == 0.5
    assert leaks.mean(("dictionary", "gold", "normalised")) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_turkish_form_is_no_english_one_but_its_text_is(tmp_path):
    table = tmp_path / "own.tsv"
    table.write_text("concept_id\tlang\ttext\nt:1\ten\tILEUM\nt:1\tde\tKrummdarm\n")
    kb = KnowledgeBase(build_kb(tmp_path / "kb", [from_file(table)]))
    (row,) = find_leaks({"tr": [gold("tr", "ILEUM", "t:1"), gold("tr", "ileum", "t:1")]}, kb).rows
    # ILEUM is ıleum in Turkish: no form of the dictionary, but its very text
    assert counts(row, "dictionary") == [1, 2, 1, 2]


def test_a_retired_id_means_what_replaced_it(tmp_path):
    obo = tmp_path / "own.obo"
    obo.write_text(
        "[Term]\nid: HP:0000002\nname: Ague\n\n[Term]\nid: HP:0000001\nname: old\n"
        "is_obsolete: true\nreplaced_by: HP:0000002\n"
    )
    kb = KnowledgeBase(build_kb(tmp_path / "kb", [from_file(obo)]))
    leaks = find_leaks({"en": [gold("en", "ague", "hp:0000001")]}, kb)
    assert counts(leaks.rows[0], "dictionary") == [0, 1, 0, 1]
    assert leaks.leaks[0].gold == ("hp:0000001", "hp:0000002")


def test_the_list(kb):
    leaks = [leak for leak in find_leaks(GOLD, kb).leaks if leak.key == "de"]
    assert [(leak.text, leak.match, leak.concept_id) for leak in leaks] == [
        ("Asthma", "verbatim", ASTHMA),
        ("HERZINFARKT", "normalised", MI),
        ("Heart attack", "normalised", MI),
        ("Herzinfarkt", "verbatim", MI),
    ]
    assert leaks[2] == Leak(
        key="de",
        text="Heart attack",
        form="heart attack",
        gold=(MI, "icd10:I21"),
        where="dictionary",
        match="normalised",
        concept_id=MI,
    )


def test_training_holds_what_is_in_pairs_alone(kb, tmp_path):
    # neck/boyun is a pair; the two concepts named cold have no other alias, and so no pair
    found = {"en": [gold("en", "cold", "umls:C0009443"), gold("en", "Neck", NECK)]}
    (row,) = find_leaks(found, kb, built(kb, tmp_path)).rows
    assert counts(row, "dictionary") == [1, 2, 1, 2]
    assert counts(row, "training") == [0, 1, 0, 1]


def test_pairs_without_the_list_hold_no_leak_of_a_gold_concept(kb, tmp_path):
    before = find_leaks(GOLD, kb, built(kb, tmp_path))
    assert [counts(row, "training")[:2] for row in before.rows] == [[1, 3], [1, 2], [0, 0]]
    listed = tmp_path / "leaks.tsv"
    leak_report.write_list(before, listed)
    target = built(kb, tmp_path, exclude=[listed])
    after = find_leaks(GOLD, kb, target)
    assert [counts(row, "training")[:2] for row in after.rows] == [[0, 0], [0, 0], [0, 0]]

    forbidden = {(id_, leak.form) for leak in before.leaks for id_ in leak.gold}
    forms = set()
    for batch in read_pairs(open_artifact(target, "pairs")):
        for pair in batch.to_pylist():
            for side in ("left", "right"):
                form = normalise(pair[side], pair[f"{side}_lang"])
                forms.add((pair["concept_id"], form))
    assert not forms & forbidden
    # what others are called stays: asthma was the gold concept's in no mention
    assert (ASTHMA, "asthma") in forms
    assert (MI, "myocardial infarction") in forms
    assert after.rows[0].found["training", "any", "verbatim"] == 1
    # the dictionary is the kb, whatever is trained on
    assert counts(after.rows[0], "dictionary") == counts(before.rows[0], "dictionary")


def test_the_list_from_the_dictionary_alone_suffices(kb, tmp_path):
    leak_report.write_list(find_leaks(GOLD, kb), tmp_path / "leaks.tsv")
    target = built(kb, tmp_path, exclude=[tmp_path / "leaks.tsv"])
    after = find_leaks(GOLD, kb, target)
    assert not any(row.found["training", "gold", "normalised"] for row in after.rows)


def test_breaks_in_a_mention_stay_in_its_row(kb, tmp_path):
    listed = tmp_path / "leaks.tsv"
    leak_report.write_list(find_leaks({"en": [gold("en", "heart\t\r\nattack", MI)]}, kb), listed)
    assert listed.read_bytes().decode().split("\n") == [
        "key\ttext\tform\tgold\twhere\tmatch\tconcept_id",
        f"en\theart   attack\theart attack\t{MI}\tdictionary\tnormalised\t{MI}",
        "",
    ]
    counted = open_artifact(built(kb, tmp_path, exclude=[listed]), "pairs").manifest.counts
    assert counted["left_out"]["excluded"] == 1


def test_json_and_table(kb, tmp_path):
    leaks = find_leaks(GOLD, kb, built(kb, tmp_path))
    values = json.loads(json.dumps(leak_report.as_json(leaks), allow_nan=False))
    assert values["rows"][0]["training"]["gold"]["normalised"] == {"n": 3, "share": 0.5}
    assert values["rows"][2]["dictionary"]["any"]["verbatim"] == {"n": 0, "share": None}
    assert values["mean"]["dictionary"]["gold"]["verbatim"] == pytest.approx((1 / 6 + 1 / 3) / 2)
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    console.print(leak_report.as_table(leaks, title="title"))
    lines = console.export_text().splitlines()
    (de,) = [line.split() for line in lines if line.strip().startswith("de")]
    assert de[:7] == ["de", "6", "6", "1", "16.7", "3", "50.0"]
    (mean,) = [line.split() for line in lines if line.strip().startswith("mean")]
    assert mean[1:4] == ["9", "8", "25.0"]
    assert len(mean) == 11


def test_progress_tells_of_both(kb, tmp_path):
    told = {}
    find_leaks(
        GOLD,
        kb,
        built(kb, tmp_path),
        progress=lambda step, done, total: told.update({step: (done, total)}),
    )
    n = open_artifact(tmp_path / "pairs", "pairs").manifest.counts["pairs"]
    assert told == {"dictionary": (len(kb.aliases),) * 2, "training": (n, n)}


def test_each_distinct_leak_is_listed_once(kb):
    leaks = find_leaks({"a": [gold("tr", "boyun", NECK)] * 3, "b": [gold("tr", "boyun", NECK)]}, kb)
    assert [row.n for row in leaks.rows] == [3, 1]
    assert Counter(leak.key for leak in leaks.leaks) == {"a": 1, "b": 1}


def test_nothing_to_look_for(kb):
    with pytest.raises(InputError, match="no gold mentions"):
        find_leaks({"de": []}, kb)


def test_a_kb_is_no_pairs(kb):
    with pytest.raises(ArtifactMismatch, match="'pairs' one is needed"):
        find_leaks(GOLD, kb, kb.artifact.path)
