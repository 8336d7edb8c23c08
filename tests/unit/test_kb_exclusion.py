import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.exclusion import Exclusion, read_exclusion
from bioelx_ray.records import Alias

HEADER = "key\ttext\tform\tgold\n"


def alias(concept_id, lang, text):
    return Alias(concept_id=concept_id, text=text, lang=lang, source="test")


@pytest.fixture
def read(tmp_path):
    def reading(data):
        path = tmp_path / "leaks.tsv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_exclusion(path)

    return reading


def test_forms_of_gold_concepts_in_any_language():
    out = Exclusion([("Asthma", "asthma", ["t:1", "t:2"])])
    assert alias("t:1", "de", "ASTHMA") in out
    assert alias("t:2", "fr", "asthma") in out
    assert alias("t:3", "de", "Asthma") not in out
    assert alias("t:1", "de", "Bronchialasthma") not in out
    assert alias("t:1", "de", "Asthma") not in Exclusion(())


def test_a_text_whose_form_differs_between_languages():
    # in Turkish I is the capital of ı, so the forms differ where the texts do not
    out = Exclusion([("ILEUM", "ıleum", ["t:1"])])
    assert alias("t:1", "en", "ILEUM") in out
    assert alias("t:1", "tr", "ılEUM") in out
    assert alias("t:1", "en", "ileum") not in out


def test_reading(read):
    out = read("\ufeff" + HEADER + 'de\t"a"\t"a"\tt:1|t:2\r\nde\tb\tb\t\n\n')
    assert alias("t:2", "en", '"A"') in out
    assert alias("t:1", "en", "b") not in out


def test_a_line_separator_of_unicode_ends_no_row(read):
    assert alias("t:1", "en", "a\u2028b") in read(HEADER + "de\ta\u2028b\ta b\tt:1\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "no column text, form, gold"),
        ("text\tform\n", "no column gold"),
        (HEADER + "de\ta\ta\n", "line 2: 3 fields, the header has 4"),
        (HEADER + "de\ta\ta\tt:1\tx\n", "line 2: 5 fields"),
        (HEADER.encode() + b"de\t\xff\ta\tt:1\n", "cannot be read as UTF-8"),
        (HEADER.encode("utf-16"), "cannot be read as UTF-8"),
    ],
)
def test_what_is_not_read_is_an_error(read, data, message):
    with pytest.raises(InputError, match=message):
        read(data)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv"):
        read_exclusion(tmp_path / "none.tsv")
