import gzip
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.config import UmlsConfig
from bioelx_ray.errors import ConfigError, InputError
from bioelx_ray.kb.readers.umls import (
    choose_cuis,
    find_rrf,
    read_deleted,
    read_mrconso,
    read_mrcui,
    read_mrdef,
    read_mrsty,
)
from bioelx_ray.kb.readers.umls_codes import LANGUAGES, concept_ids, semantic_groups
from bioelx_ray.kb.readers.umls_rows import BAD_COLUMNS, BAD_UTF8
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage, plan_splits, read_chunks
from bioelx_ray.records import Alias, Concept, Retired
from bioelx_ray.tables import SCHEMAS, from_table

MRCONSO = (
    *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI", "SAB"),
    *("TTY", "CODE", "STR", "SRL", "SUPPRESS", "CVF"),
)
BAD_CUI = "CUI is not C and seven digits"
BAD_LANG = "language code is unknown"


@dataclass
class Counter:
    rows: int = 0


def atom(text="a name", **changed):
    """A line of MRCONSO without its end."""
    values = dict.fromkeys(MRCONSO, "") | {
        "CUI": "C0000001",
        "LAT": "ENG",
        "TS": "P",
        "STT": "PF",
        "ISPREF": "Y",
        "SAB": "MTH",
        "STR": text,
        "SUPPRESS": "N",
    }
    values |= changed
    cells = (v if isinstance(v, bytes) else v.encode() for v in values.values())
    return b"".join(cell + b"|" for cell in cells)


def chunk(*lines, end=b"\n", offset=0):
    return Chunk(data=end.join([*lines, b""]), offset=offset)


def aliases(*chunks, cuis=None, **config):
    """What `read_mrconso` makes of chunks: aliases, the rejects as (offset, reason), all rows."""
    rejects, seen = Rejects(), Counter()
    batches = list(
        read_mrconso(
            chunks,
            origin="MRCONSO.RRF",
            rejects=rejects,
            config=UmlsConfig(**config),
            cuis=None if cuis is None else np.array(cuis, dtype=np.int32),
            seen=seen,
        )
    )
    for batch in batches:
        batch.validate(full=True)
    table = pa.Table.from_batches(batches, SCHEMAS[Alias])
    return from_table(table, Alias), places(rejects), seen.rows


def places(rejects):
    return [(reject.offset, reject.reason) for reject in rejects.kept]


def texts(*chunks, **options):
    found, bad, _ = aliases(*chunks, **options)
    assert bad == []
    return [alias.text for alias in found]


def test_a_name_becomes_an_alias():
    lines = [
        atom('Heart "attack" \\ C:\\', CUI="C0027051", SAB="SNOMEDCT_US"),
        atom("  Herzinfarkt\t", CUI="C0027051", LAT="GER", SAB="MSHGER", TS="S"),
        atom("心筋梗塞", CUI="C9999999", LAT="JPN", ISPREF="N"),
        atom("infarctus", LAT="FRE", STT="VO"),
    ]
    found, bad, rows = aliases(chunk(*lines))
    assert (bad, rows) == ([], 4)
    assert found[0] == Alias(
        concept_id="umls:C0027051",
        text='Heart "attack" \\ C:\\',
        lang="en",
        source="umls:SNOMEDCT_US",
        preferred=True,
    )
    assert [(a.concept_id, a.text, a.lang, a.source, a.preferred) for a in found[1:]] == [
        ("umls:C0027051", "Herzinfarkt", "de", "umls:MSHGER", False),
        ("umls:C9999999", "心筋梗塞", "ja", "umls:MTH", False),
        ("umls:C0000001", "infarctus", "fr", "umls:MTH", False),
    ]


def test_a_number_a_null_and_an_empty_field_stay_text():
    lines = [atom("007"), atom("NULL"), atom("NA"), atom(""), atom(" \u3000 "), atom("1e5")]
    assert texts(chunk(*lines)) == ["007", "NULL", "NA", "1e5"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends_and_blank_lines(end):
    lines = [atom("one"), atom("two"), b"", atom("three"), b""]
    assert texts(chunk(*lines, end=end)) == ["one", "two", "three"]
    whole = chunk(*lines[:2], end=end)
    unfinished = Chunk(data=whole.data.removesuffix(end), offset=0)
    assert texts(unfinished) == ["one", "two"]


def test_a_carriage_return_within_a_name_is_white_space():
    assert texts(chunk(atom("one\rtwo"), atom("three\r"), end=b"\r\n")) == ["one two", "three"]
    assert texts(chunk(atom("x", CODE="1\r2"), atom("y"))) == ["x", "y"]
    assert texts(chunk(atom("x"), atom("y"), end=b"\r\r\n")) == ["x", "y"]


def test_a_carriage_return_between_rows_ends_no_line():
    joined = atom("one") + b"\r" + atom("two")
    found, bad, rows = aliases(chunk(joined, atom("three"), atom("four", LAT="XXX")))
    assert [a.text for a in found] == ["three"]
    after = len(joined) + len(atom("three")) + 2
    assert sorted(bad) == [(0, BAD_COLUMNS), (after, BAD_LANG)]
    assert rows == 3


def test_what_follows_the_last_column_is_a_reject():
    found, bad, rows = aliases(chunk(atom("one"), atom("two")[:-1] + b"|rest", atom("three")))
    assert [a.text for a in found] == ["one", "three"]
    assert bad == [(len(atom("one")) + 1, BAD_COLUMNS)]
    assert rows == 3


def test_nothing_gives_nothing():
    assert aliases() == ([], [], 0)
    for data in (b"", b"\n", b"\r\n\r\n"):
        assert aliases(Chunk(data=data, offset=0)) == ([], [], 0)


@pytest.mark.parametrize("cut", [1, 8, 9, 30, -1])
def test_a_truncated_line_alone_is_a_reject(cut):
    data = atom("one")[:cut]
    assert aliases(Chunk(data=data, offset=70)) == ([], [(70, BAD_COLUMNS)], 1)


def test_bad_rows_cost_themselves_and_tell_their_offset():
    lines = [
        atom("good 1"),
        atom("bad|pipe"),
        atom("cui", CUI="D0000001"),
        atom("cui", CUI="C000001"),
        atom("cui", CUI="C00000\u0661"),
        atom("cui", CUI=""),
        atom("lang", LAT="XXX"),
        atom("lang", LAT=""),
        atom("lang", LAT=b"\xff\xff\xff"),
        atom(b"caf\xe9"),
        atom("source", SAB=b"M\xffH"),
        atom("good 2")[:-1] + b"|" + b"rest",
        atom("good 3"),
    ]
    start, offsets = 1000, {}
    for number, line in enumerate(lines):
        offsets[number], start = start, start + len(line) + 1
    found, bad, rows = aliases(chunk(*lines, offset=1000))
    assert [a.text for a in found] == ["good 1", "good 3"]
    assert rows == len(lines)
    reasons = [BAD_COLUMNS, *[BAD_CUI] * 4, *[BAD_LANG] * 3, BAD_UTF8, BAD_UTF8, BAD_COLUMNS]
    assert sorted(bad) == [(offsets[n], reason) for n, reason in enumerate(reasons, start=1)]


def test_the_row_of_a_reject_is_its_line():
    rejects = Rejects()
    lines = [atom("one"), atom(b"\xff"), b"\xff|short", atom("two", LAT="???")]
    options = {"config": UmlsConfig(), "cuis": None, "seen": Counter()}
    list(read_mrconso([chunk(*lines, end=b"\r\n")], origin="o", rejects=rejects, **options))
    shown = {reject.row for reject in rejects.kept}
    assert shown == {line.decode("utf-8", "backslashreplace") for line in lines[1:]}


def test_bad_utf8_in_what_is_not_taken_costs_nothing():
    lines = [atom(b"\xff", SUPPRESS="O"), atom(b"\xff", LAT="SPA"), atom("one", CODE=b"\xff")]
    assert texts(chunk(*lines), langs=("en",)) == ["one"]


def test_damage_is_told_and_reading_goes_on():
    damage = Damage(offset=77, lost=5, reason="data cannot be unpacked")
    found, bad, rows = aliases(chunk(atom("one")), damage, chunk(atom("two"), offset=99))
    assert [a.text for a in found] == ["one", "two"]
    assert bad == [(77, "data cannot be unpacked")]
    assert rows == 2


def test_suppressed_names_are_left_out_unless_asked_for():
    lines = [atom(flag or "none", SUPPRESS=flag) for flag in ("N", "O", "E", "Y", "")]
    assert texts(chunk(*lines)) == ["N", "none"]
    assert texts(chunk(*lines), suppressed=True) == ["N", "O", "E", "Y", "none"]


def test_languages_vocabularies_and_concepts_are_chosen():
    lines = [
        atom("a", LAT="ENG", SAB="MSH", CUI="C0000001"),
        atom("b", LAT="SCR", SAB="MSHSCR", CUI="C0000002"),
        atom("c", LAT="CHI", SAB="MSH", CUI="C0000300"),
        atom("d", LAT="NOR", SAB="MSH_X", CUI="C9999999"),
    ]
    assert texts(chunk(*lines), langs=("hr", "ZH")) == ["b", "c"]
    assert texts(chunk(*lines), vocabularies=("MSH",)) == ["a", "c"]
    assert texts(chunk(*lines), cuis=[0, 1, 300, 301]) == ["a", "c"]
    assert texts(chunk(*lines), cuis=[9999999]) == ["d"]
    assert texts(chunk(*lines), cuis=[]) == []
    assert texts(chunk(*lines), cuis=[2, 300], vocabularies=("MSH",), langs=("zh",)) == ["c"]


def test_a_language_that_umls_has_not_is_an_error():
    with pytest.raises(ConfigError, match=r"UMLS has no texts in pt-BR; it has ar, bg, .* pt, "):
        aliases(langs=("pt-BR",))
    with pytest.raises(ConfigError, match="no BCP 47 tag"):
        aliases(langs=("POR_X",))


def test_each_language_is_read():
    codes = {"ENG", "SPA", "FRE", "GER", "ITA", "POR", "DUT", "JPN", "CHI", "RUS", "KOR", "CZE"}
    codes |= {"POL", "TUR", "ARA", "HUN", "FIN", "SWE", "NOR", "DAN", "EST", "LAV", "GRE", "HEB"}
    codes |= {"BAQ", "SCR", "UKR"}
    assert codes <= set(LANGUAGES)
    found, bad, _ = aliases(chunk(*(atom(code, LAT=code) for code in LANGUAGES)))
    assert bad == []
    assert {a.text: a.lang for a in found} == LANGUAGES


def test_a_chunk_of_nothing_but_rejects_takes_linear_time():
    def seconds(lines):
        data = Chunk(data=b"\n".join(lines), offset=0)
        started = time.process_time()
        _, bad, rows = aliases(data)
        assert len(bad) == min(rows, 10_000)
        assert rows == len(lines)
        return time.process_time() - started

    for line in (b"a|b", atom("x", CUI="nothing"), atom(b"\xff")):
        seconds([line] * 100)
        # the least of three: a collection of the whole session's garbage may fall into one
        few, many = (min(seconds([line] * n) for _ in range(3)) for n in (10_000, 40_000))
        assert many < 12 * max(few, 0.01)


fields = st.text(
    st.characters(codec="utf-8", exclude_characters="|\n\r") | st.sampled_from("\"\\'\0 \t,;"),
    max_size=8,
)


@settings(deadline=None)
@given(st.lists(fields, max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.binary(max_size=30))
def test_any_text_comes_back_and_any_bytes_are_told(values, end, junk):
    lines = [atom(value, CODE=value) for value in values]
    junk = junk.replace(b"\n", b"").replace(b"|", b"")
    found, bad, _ = aliases(chunk(*lines, junk, atom("last"), end=end))
    assert [a.text for a in found] == [*filter(None, (v.strip() for v in values)), "last"]
    assert [reason for _, reason in bad] == ([BAD_COLUMNS] if junk.strip() else [])


@pytest.mark.parametrize("name", ["MRCONSO.RRF", "MRCONSO.RRF.gz"])
def test_splits_of_a_file_give_what_the_file_gives(tmp_path, name):
    lines = [atom(f"name {n}", CUI=f"C{n:07}") for n in range(500)]
    lines[123] = b"broken"
    data = chunk(*lines).data
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    splits = plan_splits(path, split_bytes=4096)
    assert len(splits) == (1 if name.endswith("gz") else -(-len(data) // 4096))
    parts = [aliases(*read_chunks(split)) for split in splits]
    assert [a for found, _, _ in parts for a in found] == aliases(chunk(*lines))[0]
    assert [place for _, bad, _ in parts for place in bad] == [(data.index(b"broken"), BAD_COLUMNS)]
    assert sum(rows for *_, rows in parts) == 500


def test_concept_ids_have_seven_digits():
    assert concept_ids(np.array([0, 1, 27051, 9_999_999], dtype=np.int32)).to_pylist() == [
        "umls:C0000000",
        "umls:C0000001",
        "umls:C0027051",
        "umls:C9999999",
    ]


def test_semantic_groups():
    groups = semantic_groups()
    assert len(groups) == 127 + 9  # those of today, and those that older releases have
    assert (groups["T047"], groups["T033"], groups["T121"]) == ("DISO", "DISO", "CHEM")
    assert (groups["T028"], groups["T204"], groups["T201"]) == ("GENE", "LIVB", "PHYS")
    sizes = {group: list(groups.values()).count(group) for group in groups.values()}
    assert len(sizes) == 15
    assert (sizes["DISO"], sizes["ANAT"], sizes["PROC"], sizes["GEOG"]) == (12, 11, 7, 1)


MRSTY = chunk(
    b"C0000001|T047|B2.2.1.2.1|Disease or Syndrome|AT1||",
    b"C0000001|T191|B2.2.1.2.1.2|Neoplastic Process|AT2||",
    b"C0000002|T121|A1.4.1.1.1|Pharmacologic Substance|AT3|256|",
    b"C0000003|T023|A1.2.3.1|Body Part, Organ, or Organ Component|AT4||",
)


def concepts(reader, *chunks, **options):
    rejects, seen = Rejects(), Counter()
    options = {"cuis": None} | options
    found = list(reader(chunks, origin="file", rejects=rejects, seen=seen, **options))
    return found, places(rejects), seen.rows


def test_semantic_types_of_concepts():
    found, bad, rows = concepts(read_mrsty, MRSTY, cuis=np.array([1, 3], dtype=np.int32))
    assert (bad, rows) == ([], 4)
    assert found == [
        Concept(id="umls:C0000001", name="", semantic_types=("Disease or Syndrome",)),
        Concept(id="umls:C0000001", name="", semantic_types=("Neoplastic Process",)),
        Concept(
            id="umls:C0000003", name="", semantic_types=("Body Part, Organ, or Organ Component",)
        ),
    ]


def test_bad_semantic_types():
    lines = [b"X|T047||a|||", b"", b"C0000001|047||a|||", b"C0000001|T047||\xff|||"]
    lines += [b"C0000001|T0||", b"C0000001|T047|||||", b"C0000001|T047||b|||"]
    found, bad, rows = concepts(read_mrsty, chunk(*lines))
    assert [c.semantic_types for c in found] == [("b",)]
    unnamed, bad_tui = "semantic type has no name in UTF-8", "TUI is not T and three digits"
    assert sorted(bad) == [
        (0, BAD_CUI),
        (14, bad_tui),
        (33, unnamed),
        (53, BAD_COLUMNS),
        (67, unnamed),
    ]
    assert rows == len(lines) - 1


def test_concepts_are_chosen_by_type_and_group():
    def chosen(*chunks, **config):
        numbers = choose_cuis(chunks, config=UmlsConfig(**config))
        assert numbers.dtype == np.int32
        return numbers.tolist()

    assert choose_cuis([MRSTY], config=UmlsConfig()) is None
    assert chosen(MRSTY, semantic_groups=("DISO",)) == [1]
    assert chosen(MRSTY, semantic_types=("T023",), semantic_groups=("CHEM",)) == [2, 3]
    later = chunk(b"C0000000|T047||x|||", b"bad", b"C00|T047||x|||")
    assert chosen(MRSTY, later, semantic_types=("T047",)) == [0, 1]
    assert chosen(semantic_types=("T047",)) == []


def test_unknown_types_and_groups_are_errors():
    with pytest.raises(ConfigError, match=r"semantic_groups: unknown DISEASE; .*ACTI, ANAT"):
        choose_cuis([], config=UmlsConfig(semantic_groups=("DISEASE",)))
    with pytest.raises(ConfigError, match=r"semantic_types: Disease is no TUI"):
        choose_cuis([], config=UmlsConfig(semantic_types=("Disease",)))
    new = chunk(b"C0000001|T999||Something new|||", b"C0000001|T9||broken|||")
    with pytest.raises(InputError, match=r"T999, of which no semantic group is known"):
        choose_cuis([new], config=UmlsConfig(semantic_groups=("DISO",)))


def test_a_chosen_concept_takes_four_bytes():
    lines = [b"C%07d|T047||x|||" % n for n in range(20_000)]
    chosen = choose_cuis(
        [chunk(*lines), chunk(*lines)], config=UmlsConfig(semantic_types=("T047",))
    )
    assert chosen.nbytes == 4 * 20_000
    assert (np.diff(chosen) > 0).all()


def definition(text, *, cui="C0000001", sab="NCI", suppress="N"):
    return b"|".join(
        [cui.encode(), b"A1", b"AT1", b"", sab.encode(), text, suppress.encode(), b"", b""]
    )


def test_definitions():
    lines = [
        definition("A „disease“ of the <p>heart</p>. ".encode()),
        definition(b"obsolete", suppress="O"),
        definition(b"", cui="C0000002"),
        definition(b"nemoc srdce", sab="MSHCZE"),
        definition(b"enfermedad", sab="SCTSPA"),
        definition(b"bad \xff", cui="C0000003"),
        definition(b"a | pipe", cui="C0000003"),
        definition(b"other", cui="C0000004", sab="MSH"),
    ]
    found, bad, rows = concepts(read_mrdef, chunk(*lines), config=UmlsConfig())
    assert found == [
        Concept(id="umls:C0000001", name="", definition="A „disease“ of the <p>heart</p>."),
        Concept(id="umls:C0000004", name="", definition="other"),
    ]
    assert sorted(reason for _, reason in bad) == [BAD_COLUMNS, BAD_UTF8]
    assert rows == len(lines)
    config = UmlsConfig(vocabularies=("NCI",), suppressed=True)
    found, _, _ = concepts(read_mrdef, chunk(*lines[:3], lines[-1]), config=config)
    assert [c.definition for c in found] == ["A „disease“ of the <p>heart</p>.", "obsolete"]
    few = np.array([4], dtype=np.int32)
    found, _, _ = concepts(read_mrdef, chunk(*lines), config=UmlsConfig(), cuis=few)
    assert [c.definition for c in found] == ["other"]


def history(reader, *chunks):
    rejects, seen = Rejects(), Counter()
    found = list(reader(chunks, origin="file", rejects=rejects, seen=seen))
    assert all(retired.source == "umls" for retired in found)
    return (
        {r.id[5:]: r.replaced_by and r.replaced_by[5:] for r in found},
        places(rejects),
        seen.rows,
    )


def test_retired_concepts():
    first = chunk(
        b"C0000009|2003AB|RB|||C0000100|Y|",
        b"C0000002|2000AC|SY|||C0000101|Y|",
        b"C0000003|1993AA|DEL|||||",
        b"C0000004|2003AB|RO|||C0000102|Y|",
        b"C0000005|2003AB|SY|||C0000103|N|",
        b"C0000006|2003AB|SUBX|||||",
        b"C0000007|1999AA|SY|||C0000104|Y|",
        b"C0000008|2007AA|SY|||C0000105|Y|",
    )
    second = chunk(
        b"C0000009|2003AB|SY|||C0000106|Y|",
        b"C0000002|2001AA|RN|||C0000107|Y|",
        b"C0000007|2004AA|SY|||C0000108|Y|",
        b"C0000008|1999AA|SY|||C0000109|Y|",
    )
    found, bad, rows = history(read_mrcui, first, second)
    assert (bad, rows) == ([], 12)
    assert list(found.items()) == [
        ("C0000002", "C0000101"),
        ("C0000003", None),
        ("C0000004", None),
        ("C0000005", None),
        ("C0000007", "C0000108"),
        ("C0000008", "C0000105"),
        ("C0000009", "C0000106"),
    ]


def test_bad_retirements():
    lines = [
        b"C1|2003AB|SY|||C0000100|Y|",
        b"C0000001|2003AB|SY|||C100|Y|",
        b"C0000002|2003AB|XX|||C0000100|Y|",
        b"C0000003|2003AB|SY|||C0000100|",
        b"C0000004|2003AB|RB|||not read|Y|",
    ]
    found, bad, rows = history(read_mrcui, chunk(*lines))
    assert found == {"C0000004": None}
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    reasons = ["CUI1 is not C and seven digits", "CUI2 is not C and seven digits"]
    reasons += ["relation is unknown", BAD_COLUMNS]
    assert sorted(bad) == list(zip(starts, reasons, strict=False))
    assert rows == len(lines)
    assert history(read_mrcui) == ({}, [], 0)
    assert history(read_mrcui, chunk(lines[2])) == ({}, [(0, "relation is unknown")], 1)


def test_deleted_concepts():
    found, bad, rows = history(read_deleted, chunk(b"C0000001|A name|", b"C0000002|\xff|", b"D|x|"))
    assert found == {"C0000001": None, "C0000002": None}
    assert bad == [(29, "PCUI is not C and seven digits")]
    assert rows == 3
    assert list(
        read_deleted([chunk(b"C0000001|x|")], origin="", rejects=Rejects(), seen=Counter())
    ) == [Retired(id="umls:C0000001", replaced_by=None, source="umls")]


def test_files_of_a_release(tmp_path):
    meta = tmp_path / "2031AA" / "META"
    (meta / "CHANGE").mkdir(parents=True)
    for name in ("MRCONSO.RRF", "MRCONSO.RRF.gz", "MRDEF.RRF.gz", "CHANGE/DELETEDCUI.RRF"):
        (meta / name).touch()
    expected = {
        "MRCONSO": meta / "MRCONSO.RRF",
        "MRDEF": meta / "MRDEF.RRF.gz",
        "DELETEDCUI": meta / "CHANGE" / "DELETEDCUI.RRF",
    }
    assert find_rrf(meta) == expected
    assert find_rrf(meta.parent) == expected
    with pytest.raises(InputError, match=r"MRSTY\.RRF is missing, and semantic types are chosen"):
        find_rrf(meta, config=UmlsConfig(semantic_groups=("DISO",)))
    (meta / "MRSTY.RRF").touch()
    assert "MRSTY" in find_rrf(meta, config=UmlsConfig(semantic_types=("T047",)))


def test_no_release(tmp_path):
    with pytest.raises(InputError, match="no such directory; give the META directory"):
        find_rrf(tmp_path / "none")
    with pytest.raises(InputError, match=r"neither MRCONSO\.RRF nor MRCONSO\.RRF\.gz is there"):
        find_rrf(tmp_path)
    (tmp_path / "MRCONSO.RRF.aa.gz").touch()
    with pytest.raises(InputError, match=r"in pieces \(MRCONSO\.RRF\.aa\.gz .*join them"):
        find_rrf(tmp_path)
