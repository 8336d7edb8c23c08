import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation.corpora.brat import TextBound, read_brat, read_brat_dir

TEXT = "Acute 𝛽 or\nchronic pain.\r\nNo fever."


def read(annotations, *, text=TEXT):
    lines = annotations.encode().splitlines(keepends=True)
    return read_brat(lines, text=text, origin="a.ann")


def test_spans_carry_their_notes_and_references_wherever_these_stand():
    spans = read(
        "#1\tAnnotatorNotes T1\tC0030193\n"
        "T1\tDISO 19 23\tpain\n"
        "N1\tReference T1 UMLS:C0030193\tPain\n"
        "#2\tAnnotatorNotes T1\n"
        "T2\tDISO 29 34\tfever\n"
        "A1\tNegation T2\n"
        "R1\tRel Arg1:T1 Arg2:T2\n"
        "*\tEquiv T1 T2\n"
        "#3\tAnnotatorNotes R1\tabout a relation\n"
        "\n"
    )
    pain = TextBound(
        id="T1",
        type="DISO",
        fragments=((19, 23),),
        text="pain",
        notes=("C0030193", ""),
        references=("UMLS:C0030193",),
    )
    fever = TextBound(id="T2", type="DISO", fragments=((29, 34),), text="fever")
    assert spans == (pain, fever)


def test_offsets_are_code_points_and_line_ends_become_spaces():
    (span,) = read("T1\tX 6 18\t𝛽 or chronic\r\n")
    assert span.text == "𝛽 or chronic"


def test_fragments_are_joined_and_white_space_around_them_is_cut():
    (span,) = read("T1\tX 0 6;18 23\tAcute   pain\n")
    assert span.fragments == ((0, 5), (19, 23))
    assert span.text == "Acute pain"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("T2\tX 0 5\tacute", "T2 says 'acute', the text holds 'Acute' there"),
        ("T2\tX 29 99\tfever.", "[29, 99) ends after the text"),
        ("T2\tX 5 6\t ", "white space only"),
        ("T2\tX 5 0\tAcute", "the text holds ''"),
        ("T2 X 0 5 Acute", "is not 'T1<TAB>Type 0 5<TAB>text'"),
        ("T1\tX 0 5\tAcute", "T1 is there twice"),
        ("#1\tAnnotatorNotes T9\tx", "points at T9, which is not there"),
        ("some words", "is no annotation"),
    ],
)
def test_a_bad_line_is_an_error_with_file_and_line(line, problem):
    with pytest.raises(InputError) as error:
        read(f"T1\tX 0 5\tAcute\n{line}\n")
    assert str(error.value).startswith("a.ann, line 2: ")
    assert problem in str(error.value)


def test_annotations_in_another_encoding_are_an_error():
    with pytest.raises(InputError, match=r"a\.ann, line 1: 'utf-8' codec"):
        read_brat([b"T1\tX 0 1\t\xe4"], text="ä", origin="a.ann")


def test_a_text_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xe4")
    (tmp_path / "a.ann").touch()
    with pytest.raises(InputError, match=r"a\.txt: .* expected UTF-8"):
        list(read_brat_dir(tmp_path))


def test_a_file_without_its_partner_is_an_error(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a has only one of \.txt and \.ann"):
        list(read_brat_dir(tmp_path))


def test_documents_come_by_name_with_their_line_ends(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_bytes(b"x\r\n")
        (tmp_path / f"{name}.ann").touch()
    assert [(doc.id, doc.text, doc.spans) for doc in read_brat_dir(tmp_path)] == [
        ("a", "x\r\n", ()),
        ("b", "x\r\n", ()),
    ]
