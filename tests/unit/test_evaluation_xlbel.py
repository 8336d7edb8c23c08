from pathlib import Path

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.corpora.xlbel import read_xlbel, read_xlbel_dir

DATA = Path(__file__).parents[1] / "data" / "xlbel"


def read(text, *, lang="de"):
    lines = text.encode().splitlines(keepends=True)
    return list(read_xlbel(lines, lang=lang, origin="de.txt"))


def test_a_version_with_context_keeps_every_row_and_its_spaces():
    gold = read_xlbel_dir(DATA / "v1.0")
    assert list(gold) == ["de", "ja"]
    first, second, third = gold["de"]
    assert first == third
    assert first.concept_ids == {"umls:C0000001"}
    assert (first.mention.text, first.mention.lang) == ("Nasenbluten", "de")
    assert first.mention.left == "Die Krankheit beginnt mit  "
    assert first.mention.right == "  und  Fieber ."
    assert second.concept_ids == {"umls:C0000002", "umls:CL000003"}
    assert (second.mention.left, second.mention.right) == ("", " heilt meist von selbst.")
    assert gold["ja"][0].mention.right == " を訴えた。"


def test_a_version_without_context():
    gold = read_xlbel_dir(DATA / "v0.0")["de"]
    assert [item.mention.text for item in gold] == ["Nasenbluten", "Mumps"]
    assert {item.mention.left + item.mention.right for item in gold} == {""}


def test_the_first_pair_is_the_mention_and_further_tags_are_taken_out():
    (item,) = read("C0000001||B||a <tgt> b</tgt> c <tgt>d</tgt> || e\n")
    assert item.mention.text == "B"
    assert (item.mention.left, item.mention.right) == ("a ", " c d || e")


def test_byte_order_mark_line_ends_and_blank_lines():
    (item,) = read("\ufeffC0000001||Mumps\r\n\r\n")
    assert item.mention.text == "Mumps"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("Mumps", "no '||'"),
        ("C001||Mumps", "'C001' is no CUI"),
        ("C0000001|||Mumps", "an empty mention or id"),
        ("||Mumps", "'' is no CUI"),
        ("C0000001|| ", "an empty mention or id"),
        ("C0000001||Mumps||it is Mumps", "no <tgt>"),
        ("C0000001||Mumps||it is <tgt>Mumps", "no <tgt>"),
        ("C0000001||Mumps||it is <tgt>Masern</tgt>", "marks 'Masern', the mention is 'Mumps'"),
    ],
)
def test_an_odd_row_is_an_error_with_file_and_line(row, problem):
    with pytest.raises(InputError, match="expected CUI") as error:
        read(f"\n{row}\n")
    assert str(error.value).startswith("de.txt, line 2: ")
    assert problem in str(error.value)


def test_a_row_of_the_other_version_is_an_error():
    with pytest.raises(InputError, match=r"line 2: 2 columns after rows of 3"):
        read("C0000001||a||<tgt>a</tgt>\nC0000001||a\n")


def test_another_encoding_is_an_error():
    with pytest.raises(InputError, match=r"ko\.txt, line 1: 'utf-8' codec"):
        list(read_xlbel([b"C0000001||\xc0\xcf"], lang="ko", origin="ko.txt"))


def test_the_directory_above_the_versions_is_an_error():
    with pytest.raises(InputError, match="directory of one version"):
        read_xlbel_dir(DATA)


def test_other_files_are_left_out(tmp_path):
    (tmp_path / "LICENSE.txt").write_text("MIT\n")
    (tmp_path / "th.txt").write_text("C0000001||x\n")
    assert list(read_xlbel_dir(tmp_path)) == ["th"]


def test_two_files_of_a_language_are_an_error(tmp_path):
    for name in ("de.txt", "de_1k_test_query.txt"):
        (tmp_path / name).write_text("C0000001||Mumps\n")
    with pytest.raises(InputError, match="several files of 'de'"):
        read_xlbel_dir(tmp_path)
