import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.babelon import read_babelon
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import Alias

SOURCES = Path(__file__).parents[3] / "shared" / "data" / "sources"
HPO, DOID = SOURCES / "hpo-translations", SOURCES / "doid" / "doid-es-translated.tsv"

BABELON = "source_language\ttranslation_language\tsubject_id\tpredicate_id\tsource_value\t"
BABELON += "translation_value\ttranslation_status\n"
TEMPLATE = "subject_id\ttranslation_value\tcomment\nID\tAL oboInOwl:hasExactSynonym@cs\t\n"
TABLE = "source_id\tpredicate\ttranslation_text\ttranslation_lang\tstatus\treview_notes\n"


@pytest.fixture
def read(tmp_path):
    def read(data, name="x.tsv", **options):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_file(path, **options)

    return read


def read_file(path, **options):
    rejects, skipped = Rejects(), Counter()
    aliases = read_babelon(path, origin="x", rejects=rejects, skipped=skipped, **options)
    return list(aliases), skipped, rejects


def alias(text, lang="de", *, source="babelon:hp", preferred=False, id_="hp:0001250"):
    return Alias(concept_id=id_, text=text, lang=lang, source=source, preferred=preferred)


def row(text="Anfall", predicate="rdfs:label", status="OFFICIAL", lang="de", id_="HP:0001250"):
    return f"en\t{lang}\t{id_}\t{predicate}\tSeizure\t{text}\t{status}\n"


def test_labels_are_preferred_and_synonyms_are_not(read):
    data = BABELON + row() + row(" Krampfanfall ", "oboInOwl:hasExactSynonym")
    data += row("Fit", "oio:hasExactSynonym", lang="en-gb") + row("Anfälle", "rdfs:label")
    aliases, skipped, rejects = read(data)
    assert aliases == [
        alias("Anfall", preferred=True),
        alias("Krampfanfall"),
        alias("Fit", "en-GB"),
        alias("Anfälle"),
    ]
    assert not skipped
    assert not len(rejects), rejects.kept


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(predicate="IAO:0000115"), "neither a label nor an exact synonym"),
        (row(predicate="oboInOwl:hasRelatedSynonym"), "neither a label nor an exact synonym"),
        (row(status="NOT_TRANSLATED"), "not translated"),
        (row("NA"), "not translated"),
        (row(""), "not translated"),
        (row("\u00a0 "), "not translated"),
    ],
)
def test_what_is_left_out_is_counted_and_not_rejected(read, line, reason):
    aliases, skipped, rejects = read(BABELON + line + row())
    assert aliases == [alias("Anfall", preferred=True)]
    assert skipped == {reason: 1}
    assert not len(rejects)


@pytest.mark.parametrize("status", ["CANDIDATE", "UNDER_REVIEW", "", "reviewed?"])
def test_what_nobody_accepted_can_be_told_apart_and_dropped(read, status):
    data = BABELON + row("Krampf", status=status) + row("Anfall", "oboInOwl:hasExactSynonym")
    aliases, _, _ = read(data)
    assert aliases == [
        alias("Krampf", source="babelon:hp-candidate", preferred=True),
        alias("Anfall"),
    ]
    aliases, skipped, _ = read(data, machine_translations=False)
    assert aliases == [alias("Anfall")]
    assert skipped == {"not accepted": 1}


def test_columns_may_come_in_any_order_and_inexact_translations_are_left_out(read):
    header = "translation_precision\ttranslation_value\tsubject_id\ttranslation_language\t"
    header += "predicate_id\n"
    rows = [f"{p}\tAnfall {p}\tHP:0001250\tde\trdfs:label\n" for p in ("BROADER", "exact", "")]
    aliases, skipped, _ = read(header + "".join(rows))
    candidate = "babelon:hp-candidate"
    assert aliases == [
        alias("Anfall exact", source=candidate, preferred=True),
        alias("Anfall", source=candidate),
    ]
    assert skipped == {"inexact translation": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(id_="0001250"), "subject is no CURIE (prefix:local)"),
        (row(id_=""), "subject is no CURIE (prefix:local)"),
        (row(lang="deutsch!"), "language is no BCP 47 tag"),
        (row(lang=""), "language is no BCP 47 tag"),
        ("too\tfew\n", "row has another number of fields than the header"),
        (row().replace("\n", "\tmore\n"), "row has another number of fields than the header"),
        (row('"Anfall" oder Krampf'), "quotes of the row are broken"),
        (row("Anf\xe4lle").encode("latin-1"), "row is not UTF-8"),
    ],
)
def test_a_bad_row_costs_only_itself(read, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    aliases, skipped, rejects = read((BABELON + row()).encode() + line + b"\n" + row("B").encode())
    assert [a.text for a in aliases] == ["Anfall", "B"]
    assert not skipped
    [reject] = rejects.kept
    assert (reject.file, reject.line, reject.reason) == ("x", 3, reason)
    assert reject.row == line.rstrip(b"\n").decode("utf-8", "backslashreplace")


def test_an_unclosed_quote_is_counted_by_lines_and_does_not_cost_the_file(read):
    opened = row('"Anfall')
    after = [row(f"Nach {number}") for number in range(4000)]
    aliases, _, rejects = read(BABELON + row() + opened + "".join(after))
    assert rejects.kept[0].line == 3
    assert set(rejects.by_reason()) == {"quotes of the row are broken"}
    assert len(aliases) + len(rejects) == 4002
    assert aliases[-1].text == "Nach 3999"


def test_quotes_line_ends_and_blank_lines(read):
    data = BABELON + row('"Der ""große"" Anfall"') + "\n\t\t\t\t\t\t\n" + row('"Alte ""Form"""')
    expected = ['Der "große" Anfall', 'Alte "Form"']
    for version in (data, data.replace("\n", "\r\n"), "\ufeff" + data, data.rstrip("\n")):
        aliases, skipped, rejects = read(version)
        assert [a.text for a in aliases] == expected
        assert not skipped
        assert not len(rejects), rejects.kept


def test_a_cell_may_have_several_lines(read):
    data = TABLE + 'DOID:1\trdfs:label\tuno\tes\tMANUALLY TRANSLATED\t"[JAB]\r\nsee ""x""\n\nend"\n'
    data += "DOID:2\trdfs:label\tdos\txx-\tMANUALLY TRANSLATED\t\n"
    aliases, _, rejects = read(data)
    assert aliases == [alias("uno", "es", source="babelon:doid", preferred=True, id_="doid:1")]
    assert [(r.line, r.reason) for r in rejects.kept] == [(6, "language is no BCP 47 tag")]


def test_rows_of_disease_ontology_that_are_marked_as_wrong(read):
    lines = [
        "DOID:1\trdfs:label\tuno\tes\tMANUALLY TRANSLATED\tfurther review",
        "DOID:1\toboInOwl:hasExactSynonym\tbad\tes\tERROR: truncated\t",
        'DOID:1\toboInOwl:hasExactSynonym\tbad\tes\tMANUALLY TRANSLATED\t"[X]\nERROR, format: y"',
        "DOID:1\toboInOwl:hasExactSynonym\tun\tes\tMACHINE TRANSLATED\tno ERROR here",
    ]
    aliases, skipped, rejects = read(TABLE + "\n".join(lines))
    assert [(a.text, a.source) for a in aliases] == [
        ("uno", "babelon:doid"),
        ("un", "babelon:doid-candidate"),
    ]
    assert skipped == {"marked as wrong": 2}
    assert not len(rejects)


def test_a_template_tells_the_language_and_joins_texts_by_bars(read):
    data = TEMPLATE + "HP:0001250\tPadoucnice| Epilepsie |\tOFFICIAL\n"
    data += "HP:0001250\tZáchvat\tCANDIDATE\nHP:0001250\tSeizure\tNOT_TRANSLATED\n"
    data += "HP:0001250\t|NA|\tOFFICIAL\n"
    aliases, skipped, rejects = read(data)
    assert aliases == [
        alias("Padoucnice", "cs"),
        alias("Epilepsie", "cs"),
        alias("Záchvat", "cs", source="babelon:hp-candidate"),
    ]
    assert skipped == {"not translated": 2}
    assert not len(rejects)


def test_the_columns_of_a_template_differ(read):
    french = "subject_id\ttranslation_value\tcomment\tStatus\n"
    french += "ID\tAL oboInOwl:hasExactSynonym@fr\t\t\nHP:0001250\ta\tOFFICIAL\tCANDIDATE\n"
    german = "translation_value\tsubject_id\tsynonym_type\n"
    german += "AL oboInOwl:hasExactSynonym@de SPLIT=|\tID\t>AI oboInOwl:hasSynonymType\n"
    german += "b|c\tHP:0001250\thttp://example.org/hp#layperson\n"
    assert read(french)[0] == [alias("a", "fr", source="babelon:hp-candidate")]
    assert read(german)[0] == [alias("b"), alias("c")]


@pytest.mark.parametrize("data", [BABELON, BABELON.rstrip("\n"), TEMPLATE, TABLE])
def test_a_header_alone_gives_nothing(read, data):
    aliases, skipped, rejects = read(data)
    assert (aliases, len(skipped), len(rejects)) == ([], 0, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n", "header is empty"),
        (b"\xff\xfes\0u\0", "not UTF-8"),
        (b"a\0b\n", "UTF-16 or no text"),
        (b"concept_id\tlang\ttext\n", "not known as a file of translations"),
        (b"subject_id\tsubject_id\n", "twice"),
        (b"x" * 200_000, "cannot be read"),
        (b"subject_id\ttranslation_value\n", "no ROBOT template"),
        (b"subject_id\ttranslation_value\nHP:1\tPadoucnice\n", "no ROBOT template"),
        (b"subject_id\ttranslation_value\nID\tA oboInOwl:hasExactSynonym\n", "no ROBOT template"),
    ],
)
def test_what_is_no_file_of_translations(read, data, words):
    with pytest.raises(InputError, match=words):
        read(data)


def test_gzip_whole_and_cut_off(read):
    packed = gzip.compress((BABELON + row()).encode())
    assert read(packed, "x.babelon.tsv.gz")[0] == [alias("Anfall", preferred=True)]
    with pytest.raises(InputError, match="cannot be read"):
        read(packed[:-9], "x.babelon.tsv.gz")


# A cell of a text file, quoted where it must be.
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_any_text_comes_back(texts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.babelon.tsv"
    cells = ['"' + text.replace('"', '""') + '"' for text in texts]
    path.write_bytes((BABELON + "".join(map(row, cells))).encode())
    aliases, skipped, rejects = read_file(path)
    assert not len(rejects), rejects.kept
    assert [a.text for a in aliases] == [t.strip() for t in texts if t.strip() not in ("", "NA")]
    assert len(aliases) + skipped.total() == len(texts)


# Language, aliases that were accepted, others, preferred ones, rows left out.
REAL = {
    "hp-ar.babelon.tsv": ("ar", 0, 0, 0, 0),
    "hp-cs.synonyms.tsv": ("cs", 14_782, 4_029, 0, 0),
    "hp-de.babelon.tsv": ("de", 587, 2_901, 3_488, 0),
    "hp-de.synonyms.tsv": ("de", 746, 0, 0, 0),
    "hp-es.babelon.tsv": ("es", 19_932, 0, 19_932, 0),
    "hp-fr.babelon.tsv": ("fr", 14_220, 0, 13_985, 473),
    "hp-fr.synonyms.tsv": ("fr", 33, 15_478, 0, 2_469),
    "hp-it.babelon.tsv": ("it", 524, 2_964, 3_488, 0),
    "hp-it.synonyms.tsv": ("it", 21, 0, 0, 0),
    "hp-ja.babelon.tsv": ("ja", 17_649, 0, 17_649, 219),
    "hp-nl.synonyms.tsv": ("nl", 0, 65, 0, 20_670),
    "hp-pt.babelon.tsv": ("pt", 7_213, 0, 7_213, 1),
    "hp-tr.synonyms.tsv": ("tr", 10_983, 5_018, 0, 2_705),
    "hp-tw.babelon.tsv": ("tw", 83, 0, 82, 0),
    "hp-zh.babelon.tsv": ("zh", 18_988, 0, 18_988, 0),
}
KNOWN = {
    "hp-cs.synonyms.tsv": [
        alias("Padoucnice", "cs"),
        alias("Srdeční infarkt", "cs", id_="hp:0001658"),
        alias('"Ghost teeth"', "cs", id_="hp:0000694"),
    ],
    "hp-de.babelon.tsv": [alias("Krampfanfall", source="babelon:hp-candidate", preferred=True)],
    "hp-de.synonyms.tsv": [alias("Herzinfarkt", id_="hp:0001658")],
    "hp-fr.babelon.tsv": [alias("Infarctus du myocarde", "fr", preferred=True, id_="hp:0001658")],
    "hp-ja.babelon.tsv": [alias("発作", "ja", preferred=True)],
    "hp-zh.babelon.tsv": [
        alias("癫痫发作", "zh", preferred=True),
        alias("心肌梗死", "zh", preferred=True, id_="hp:0001658"),
        alias("男性外阴性别不明", "zh", preferred=True, id_="hp:0000033"),
    ],
    "hp-nl.synonyms.tsv": [
        alias("Ontsteking van de prostaat", "nl", source="babelon:hp-candidate", id_="hp:0000024")
    ],
    "hp-tr.synonyms.tsv": [
        alias("Epilepsi", "tr", source="babelon:hp-candidate"),
        alias("Kalp krizi", "tr", id_="hp:0001658"),
    ],
    "hp-it.babelon.tsv": [
        alias(
            'Aspetto "a cielo stellato" del fegato all\'ecografia',
            "it",
            preferred=True,
            id_="hp:0031145",
        )
    ],
}


@pytest.mark.skipif(not HPO.exists(), reason=f"{HPO} is not there")
def test_every_translation_of_hpo_is_known():
    assert {path.name for path in HPO.glob("*.tsv")} == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_translations_of_hpo(name):
    if not (HPO / name).exists():
        pytest.skip(f"{HPO / name} is not there")
    lang, accepted, others, preferred, left_out = REAL[name]
    aliases, skipped, rejects = read_file(HPO / name)
    assert not len(rejects), rejects.kept
    expected = {"babelon:hp": accepted, "babelon:hp-candidate": others}
    assert Counter(a.source for a in aliases) == {k: n for k, n in expected.items() if n}
    assert {a.lang for a in aliases} <= {lang}
    assert sum(a.preferred for a in aliases) == preferred
    assert skipped.total() == left_out
    assert all(known in aliases for known in KNOWN.get(name, ()))
    assert all(a.text and a.text == a.text.strip() and "|" not in a.text for a in aliases)
    if others:
        assert len(read_file(HPO / name, machine_translations=False)[0]) == accepted


@pytest.mark.skipif(not DOID.exists(), reason=f"{DOID} is not there")
def test_translations_of_disease_ontology():
    aliases, skipped, rejects = read_file(DOID)
    assert not len(rejects), rejects.kept
    assert Counter((a.lang, a.source) for a in aliases) == {("es", "babelon:doid"): 3_822}
    # 2,046 definitions, 100 related, 7 broad and 6 narrow synonyms.
    assert skipped == {"neither a label nor an exact synonym": 2_159}
    label = "enfermedad vírica del bosque de Barmah"
    source = "babelon:doid"
    assert alias(label, "es", source=source, preferred=True, id_="doid:0050517") in aliases
    assert alias("alergia al Profenal", "es", source=source, id_="doid:0040017") in aliases
