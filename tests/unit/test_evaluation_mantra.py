from pathlib import Path

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.corpora import SUITES
from bioelx_ray.evaluation.corpora.mantra import read_mantra_dir

DATA = Path(__file__).parents[1] / "data" / "mantra"


def test_a_span_with_several_cuis_is_one_mention_with_several_right_answers():
    gold = read_mantra_dir(DATA)["de", "emea"]
    assert [(item.mention.text, sorted(item.concept_ids)) for item in gold] == [
        ("Prüfen Gabe", ["umls:C0000014"]),
        ("Leber", ["umls:C0000011", "umls:C0000012"]),
        ("Niere", ["umls:C0000013"]),
    ]
    liver = gold[1].mention
    assert (liver.lang, liver.start, liver.end) == ("de", 11, 16)
    assert liver.document_id == "EMEA_ec22-cui-best_man/0001_d1.u1"
    assert liver.left == "Prüfen Sie "
    assert liver.right == " und Niere vor der Gabe.\r\n"


def test_the_medline_directories_of_english_are_joined():
    gold = read_mantra_dir(DATA)
    assert list(gold) == [("en", "medline"), ("de", "emea")]
    english = gold["en", "medline"]
    assert [item.mention.text for item in english] == ["Acute pain", "chronic pain"] * 2
    assert len({item.mention.document_id for item in english}) == 2
    assert (english[0].mention.left, english[0].mention.right) == ("", " is common.\n")
    assert (english[1].mention.start, english[1].mention.end) == (9, 21)


def test_the_suite_has_one_key_a_language_and_corpus():
    assert list(SUITES["mantra"](DATA)) == ["en/medline", "de/emea"]


def test_a_type_that_is_no_cui_is_an_error_with_its_file(tmp_path):
    folder = tmp_path / "French" / "EMEA_x"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("foie")
    (folder / "a.ann").write_text("T1\tANAT 0 4\tfoie\n")
    with pytest.raises(InputError, match=r"EMEA_x/a\.ann: 'ANAT' is no CUI"):
        read_mantra_dir(tmp_path)


def test_another_directory_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no annotations in Dutch"):
        read_mantra_dir(tmp_path)
