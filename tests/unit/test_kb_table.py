import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.table import read_table
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias, Concept

OPEN_KB = Path(__file__).parents[3] / "shared" / "data" / "open_kb.tsv"
SAMPLE = Path(__file__).parents[1] / "data" / "starter_sample.tsv"
HEAD = b"concept_id\tlang\ttext\n"


def read(path):
    rejects = Rejects()
    records = list(read_table(path, rejects=rejects))
    concepts = {r.id: r for r in records if isinstance(r, Concept)}
    return concepts, [r for r in records if isinstance(r, Alias)], rejects


def save(tmp_path, data, name="my_table.tsv"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_the_sample():
    concepts, aliases, rejects = read(SAMPLE)
    assert not len(rejects)
    assert len(aliases) == 8
    assert concepts["umls:C0027051"] == Concept(
        id="umls:C0027051", name="Myocardial infarction", semantic_types=("Disease or Syndrome",)
    )
    assert concepts["umls:C0004057"].semantic_types == (
        "Pharmacologic Substance",
        "Organic Chemical",
    )
    assert aliases[2] == Alias(
        concept_id="umls:C0027051", text="Herzinfarkt", lang="de", source="starter", preferred=True
    )


def test_three_columns_in_any_order_are_enough(tmp_path):
    data = 'text\tconcept_id\tlang\n 5" ruler\tMSH:D1\tzh-tw\nnext "quoted\tmesh:D1\tnna\n'
    concepts, aliases, rejects = read(save(tmp_path, data.encode()))
    assert not len(rejects)
    assert [(a.concept_id, a.text, a.lang) for a in aliases] == [
        ("mesh:D1", '5" ruler', "zh-TW"),
        ("mesh:D1", 'next "quoted', "nna"),
    ]
    assert {a.source for a in aliases} == {"my_table"}
    assert concepts["mesh:D1"].name == '5" ruler'


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (["x:1\tde\tzwei\t1", "x:1\ten\tone\t0", "x:1\tfr\ttrois\ttrue"], "zwei"),
        (["x:1\tde\tzwei\t1", "x:1\ten\tone\tTRUE"], "one"),
        (["x:1\tde\tzwei\t", "x:1\ten-GB\tone\t", "x:1\ten\tlater\t"], "one"),
        (["x:1\tde\tzwei\tfalse", "x:1\tfr\ttrois\tfalse"], "zwei"),
    ],
)
def test_the_name_is_preferred_or_english_or_first(tmp_path, rows, name):
    data = "\n".join(["concept_id\tlang\ttext\tpreferred", *rows]).encode()
    concepts, _, rejects = read(save(tmp_path, data))
    assert not len(rejects)
    assert concepts["x:1"].name == name


def test_rows_of_a_concept_add_up(tmp_path):
    data = (
        "concept_id\tlang\ttext\tsemantic_types\tdefinition\txrefs\n"
        "x:1\ten\tone\tA | B\t\tUMLS:C1|ICD-10:I21\n"
        "x:2\ten\ttwo\t\t\t\n"
        "x:1\tde\teins\tB|C\tThe first.\tumls:C1|mesh:D1\n"
    )
    concepts, _, _ = read(save(tmp_path, data.encode()))
    assert concepts["x:1"] == Concept(
        id="x:1",
        name="one",
        semantic_types=("A", "B", "C"),
        definition="The first.",
        xrefs=("umls:C1", "icd10:I21", "mesh:D1"),
    )
    assert concepts["x:2"] == Concept(id="x:2", name="two")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"C1\ten\ta\t\t", "concept_id is no CURIE (prefix:local)"),
        (b"\ten\ta\t\t", "concept_id is no CURIE (prefix:local)"),
        (b"x:1\tenglish\ta\t\t", "lang is no BCP 47 tag"),
        (b"x:1\t\ta\t\t", "lang is no BCP 47 tag"),
        (b"x:1\ten\t  \t\t", "text is empty"),
        (b"x:1\ten\tNaN\t\t", "text is a placeholder (nan, null or none)"),
        (b"x:1\ten\t--\t\t", "text has no letter or digit"),
        (b"x:1\ten\ta\0b\t\t", "text holds a control character"),
        (b"x:1\ten\t" + b"y" * 501 + b"\t\t", "text is longer than 500 code points"),
        (b"x:1\ten\tcaf\xe9\t\t", "row is not UTF-8"),
        (b"x:1\ten\ta\tmaybe\t", "preferred is neither true nor false"),
        (b"x:1\ten\ta\t\tC1", "an xref is no CURIE (prefix:local)"),
        (b"x:1\ten\ta", "row has another number of fields than the header"),
        (b"x:1\ten\ta\t\t\t", "row has another number of fields than the header"),
    ],
)
@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
def test_a_bad_row_is_counted_where_it_stands(tmp_path, row, reason, name):
    good = b"x:2\ten\tgood\t\t"
    data = b"\n".join([b"concept_id\tlang\ttext\tpreferred\txrefs", good, b"", row, good, b""])
    if name.endswith("csv"):
        data, row = data.replace(b"\t", b","), row.replace(b"\t", b",")
    concepts, aliases, rejects = read(save(tmp_path, data, name))
    assert [(r.line, r.reason) for r in rejects.kept] == [(4, reason)]
    assert rejects.kept[0].row == row[:200].decode("utf-8", "backslashreplace")
    assert list(concepts) == ["x:2"]
    assert [a.text for a in aliases] == ["good", "good"]


def test_csv_quoting(tmp_path):
    data = (
        b'concept_id,lang,text,definition\r\nx:1,en,"a, ""b""","two\r\nlines"\r\nx:1,en,5" c,\r\n'
    )
    concepts, aliases, rejects = read(save(tmp_path, data, "t.csv"))
    assert not len(rejects)
    assert [a.text for a in aliases] == ['a, "b"', '5" c']
    assert concepts["x:1"].definition == "two\r\nlines"


def test_csv_lines_are_counted_past_records_of_several_lines(tmp_path):
    data = (
        b'concept_id,lang,text,definition\nx:1,en,a,"1\n2\n3"\nx:1,en,,\nx:1,en,"b" c,\nx:1,en,d,\n'
    )
    _, aliases, rejects = read(save(tmp_path, data, "t.csv"))
    assert [(r.line, r.reason) for r in rejects.kept] == [
        (5, "text is empty"),
        (6, "quotes of the row are broken"),
    ]
    assert [a.text for a in aliases] == ["a", "d"]


def test_every_line_that_a_lost_quote_swallows_is_counted(tmp_path):
    rows = [b"concept_id,lang,text", b"x:1,en,a", b'x:1,en,"lost', *[b"x:1,en,b"] * 50]
    _, aliases, rejects = read(save(tmp_path, b"\n".join(rows), "t.csv"))
    assert [a.text for a in aliases] == ["a"]
    assert [r.line for r in rejects.kept] == list(range(3, 54))
    assert rejects.by_reason() == {"quotes of the row are broken": 51}


def test_so_is_every_line_of_a_bad_record(tmp_path):
    data = b'concept_id,lang,text\nx:1,en,"lost\nx:2,en,b\nx:3,en,ends"\nx:4,en,good\n'
    _, aliases, rejects = read(save(tmp_path, data, "t.csv"))
    assert [a.text for a in aliases] == ["good"]
    assert [(r.line, r.row) for r in rejects.kept] == [
        (2, 'x:1,en,"lost'),
        (3, "x:2,en,b"),
        (4, 'x:3,en,ends"'),
    ]
    assert rejects.by_reason() == {"text holds a control character": 3}


def test_byte_order_mark_line_ends_and_gzip(tmp_path):
    data = b"\xef\xbb\xbf" + HEAD.replace(b"\n", b"\r\n") + "x:1\tde\tMüde\r\n".encode()
    plain = read(save(tmp_path, data, "t.tsv"))
    packed = read(save(tmp_path, gzip.compress(data), "t.tsv.gz"))
    assert plain[:2] == packed[:2]
    assert plain[1] == [Alias(concept_id="x:1", text="Müde", lang="de", source="t")]


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "t.tsv", "empty; expected a header"),
        (HEAD.decode().encode("utf-16"), "t.tsv", "UTF-16 or no text; save it as UTF-8"),
        (HEAD.decode().encode("utf-16-le"), "t.tsv", "UTF-16 or no text; save it as UTF-8"),
        (b"concept_id\tlang\tt\xe9xt\n", "t.tsv", "header is not UTF-8"),
        (
            b"concept_id\tlang\ttext\tlabel\n",
            "t.tsv",
            "unknown column 'label'; known are concept_id",
        ),
        (b"concept_id;lang;text\n", "t.csv", "unknown column 'concept_id;lang;text'"),
        (b"concept_id\ttext\n", "t.tsv", "no column lang; known are"),
        (b"concept_id\tlang\ttext\ttext\n", "t.tsv", "a column is there twice"),
        (b"[" + b"1," * 200_000, "t.csv", "unknown column '\\[1', '1', '1'"),
        (HEAD, "t.xlsx", "unknown kind of table; expected one of .tsv"),
        (HEAD, "t.parquet.gz", "unknown kind of table"),
        (HEAD, "t.tsv.gz", "cannot be read"),
        (gzip.compress(HEAD + b"x:1\ten\ta\n" * 999)[:-20], "t.tsv.gz", "cannot be read"),
        (HEAD, "t.parquet", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, data, name, message):
    path = save(tmp_path, data, name)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv: cannot be read"):
        read(tmp_path / "none.tsv")


def test_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    columns = {
        "concept_id": ["x:1", "x:1", "x1"],
        "lang": pa.array(["en", "de", "en"]).dictionary_encode(),
        "text": ["one", None, "two"],
        "preferred": [True, False, None],
    }
    pq.write_table(pa.table(columns), path)
    concepts, aliases, rejects = read(path)
    assert aliases == [
        Alias(concept_id="x:1", text="one", lang="en", source="t", preferred=True),
    ]
    assert concepts == {"x:1": Concept(id="x:1", name="one")}
    assert [(r.line, r.reason) for r in rejects.kept] == [
        (2, "text is empty"),
        (3, "concept_id is no CURIE (prefix:local)"),
    ]


def test_parquet_of_other_types(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"concept_id": ["x:1"], "lang": ["en"], "text": [["a", "b"]]}), path)
    with pytest.raises(InputError, match="row 1 or later cannot be read"):
        read(path)


@pytest.mark.skipif(not OPEN_KB.exists(), reason=f"{OPEN_KB} is not there")
def test_the_awkward_rows_of_open_kb(tmp_path):
    head, *rows = OPEN_KB.read_bytes().splitlines(keepends=True)
    rows = [r for n, r in enumerate(rows) if n % 50 == 0 or b'"' in r or b"\tnan\t" in r]
    lines = [head, *rows]
    _, aliases, rejects = read(save(tmp_path, b"".join(lines)))
    assert rejects.by_reason() == {"text is a placeholder (nan, null or none)": 95}
    assert all(lines[r.line - 1].decode().rstrip("\n") == r.row for r in rejects.kept)
    assert len(aliases) == len(rows) - 95
    assert sum('"' in a.text for a in aliases) == sum(b'"' in row for row in rows) > 300


def test_a_csv_header_in_quotes(tmp_path):
    data = b'"concept_id","lang","text"\n"x:1","en","one"\n'
    _, aliases, rejects = read(save(tmp_path, data, "T.CSV"))
    assert not len(rejects)
    assert [a.text for a in aliases] == ["one"]
