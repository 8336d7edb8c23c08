import gzip
from collections import Counter
from pathlib import Path

import pytest

from bioelx_ray.errors import InputError
from bioelx_ray.kb.readers.sssom import read_sssom, read_xrefs, sssom_header
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.records import IdMapping

SOURCES = Path(__file__).parents[3] / "shared" / "data" / "sources"
MONDO, XREFS = SOURCES / "mondo", SOURCES / "doid" / "allXREFinDO.tsv"

METADATA = """# curie_map:
#   MONDO: http://purl.obolibrary.org/obo/MONDO_
#   UMLS: http://linkedlifedata.com/resource/umls/id/
#   MIM: https://omim.org/entry/
# license: https://creativecommons.org/publicdomain/zero/1.0/
# mapping_set_version: 2024-01-10
"""
HEADER = "subject_id\tsubject_label\tpredicate_id\tobject_id\tmapping_justification\n"


def row(predicate="skos:exactMatch", subject="MONDO:0000001", object_="UMLS:C1"):
    return f"{subject}\tdisease\t{predicate}\t{object_}\tsemapv:ManualMappingCuration\n"


@pytest.fixture
def read(tmp_path):
    def read(data, name="x.sssom.tsv"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_file(path)

    return read


def read_file(path):
    rejects, skipped = Rejects(), Counter()
    return list(read_sssom(path, origin="x", rejects=rejects, skipped=skipped)), skipped, rejects


def mapping(kind="exact", object_="umls:C1"):
    return IdMapping(subject_id="mondo:0000001", object_id=object_, kind=kind, source="sssom:mondo")


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        ("skos:exactMatch", "exact"),
        ("owl:equivalentClass", "exact"),
        ("owl:sameAs", "exact"),
        ("skos:closeMatch", "close"),
        ("skos:broadMatch", "broad"),
        ("rdfs:subClassOf", "broad"),
        ("skos:narrowMatch", "narrow"),
        ("skos:relatedMatch", "related"),
        ("oboInOwl:hasDbXref", "xref"),
    ],
)
def test_predicates_become_kinds(read, predicate, kind):
    mappings, skipped, rejects = read(METADATA + HEADER + row(predicate))
    assert mappings == [mapping(kind)]
    assert not skipped
    assert not len(rejects), rejects.kept


@pytest.mark.parametrize("version", ["\n", "\r\n"])
def test_line_ends_quotes_and_unknown_columns(read, version):
    data = METADATA + HEADER.replace("\n", "\tnotes\n")
    data += row(object_='"UMLS:C1"').replace("\n", '\t"say ""no""\nor not\t"\n')
    data += row(object_="MIM:PS203655").replace("\n", "\t\n")
    mappings, _, rejects = read(data.replace("\n", version))
    assert mappings == [mapping(), mapping(object_="omim.ps:203655")]
    assert not len(rejects), rejects.kept


def test_what_is_left_out_is_counted(read):
    header = "subject_id\tpredicate_modifier\tpredicate_id\tobject_id\tobject_type\n"
    lines = [
        "MONDO:0000001\tNot\tskos:exactMatch\tUMLS:C1\t",
        "MONDO:0000001\t\tskos:exactMatch\tsssom:NoTermFound\t",
        "sssom:NoTermFound\t\tskos:exactMatch\tUMLS:C1\t",
        "MONDO:0000001\t\tskos:exactMatch\t\trdfs literal",
        "MONDO:0000001\t\tsemapv:crossSpeciesExactMatch\tUMLS:C1\t",
        "MONDO:0000001\t\tRO:0002610\tUMLS:C1\t",
        "MONDO:0000001\t\tskos:closeMatch\tUMLS:C1\towl class",
    ]
    mappings, skipped, rejects = read(METADATA + header + "\n".join(lines))
    assert mappings == [mapping("close")]
    assert skipped == {"negated": 1, "no term found": 2, "literal": 1, "another predicate": 2}
    assert not len(rejects), rejects.kept


def test_a_whole_file_of_literals(read):
    mappings, skipped, rejects = read("#subject_type: rdfs literal\n" + HEADER + row(subject=""))
    assert (mappings, skipped, len(rejects)) == ([], {"literal": 1}, 0)


UNDECLARED = "subject_id or object_id has a prefix that curie_map does not declare"
NO_CURIE = "subject_id or object_id is no CURIE (prefix:local)"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(object_="DOID:4"), UNDECLARED),
        (row(subject="mondo:0000001"), UNDECLARED),
        (row(object_=""), NO_CURIE),
        (row(subject="http://purl.obolibrary.org/obo/MONDO_0000001"), NO_CURIE),
        (row(""), "predicate_id is empty"),
        ("MONDO:0000001\tskos:exactMatch\n", "row has another number of fields than the header"),
        (row(object_='"UMLS:C1'), "quotes of the row are broken"),
        (row(subject="MONDO:\xe4").encode("latin-1"), "row is not UTF-8"),
    ],
)
def test_a_bad_row_costs_only_itself(read, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    after = b"" if "quotes" in reason else row("skos:closeMatch").encode()
    mappings, skipped, rejects = read((METADATA + HEADER + row()).encode() + line + after)
    assert mappings == [mapping(), mapping("close")][: 2 if after else 1]
    assert not skipped
    [reject] = rejects.kept
    assert (reject.file, reject.line, reject.reason) == ("x", 9, reason)


def test_without_a_curie_map_any_prefix_goes(read):
    mappings, _, rejects = read(HEADER + row(object_="DOID:4"))
    assert mappings == [mapping(object_="doid:4")]
    assert not len(rejects)


def test_metadata_beside_the_file(read, tmp_path):
    (tmp_path / "x.sssom.yml").write_text(METADATA.replace("# ", ""))
    for name in ("x.sssom.tsv", "x.sssom.tsv.gz"):
        data = (HEADER + row() + row(object_="DOID:4")).encode()
        mappings, _, rejects = read(gzip.compress(data) if name.endswith("gz") else data, name)
        assert mappings == [mapping()]
        assert rejects.by_reason() == {UNDECLARED: 1}
        assert sssom_header(tmp_path / name)[1] == "2024-01-10"


def test_the_header_tells_licence_and_version(tmp_path):
    path = tmp_path / "x.sssom.tsv"
    path.write_text(METADATA + HEADER)
    licence = "https://creativecommons.org/publicdomain/zero/1.0/"
    assert sssom_header(path) == (licence, "2024-01-10")
    # Not a number, which would lose the zero.
    path.write_text("#mapping_set_version: 1.10\n" + HEADER)
    assert sssom_header(path) == ("", "1.10")
    path.write_text(HEADER)
    assert sssom_header(path) == ("", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (METADATA.encode(), "empty"),
        (b"# a: [\n" + HEADER.encode(), "no YAML"),
        (b"# just words\n" + HEADER.encode(), "no YAML mapping"),
        (b"subject_id\tobject_id\n", "no column predicate_id"),
        (b"# a: caf\xe9\n" + HEADER.encode(), "not UTF-8"),
        (gzip.compress(HEADER.encode())[:-9], "cannot be read|not UTF-8"),
    ],
)
def test_what_is_no_set_of_mappings(read, data, words):
    with pytest.raises(InputError, match=words):
        read(data)


def read_table(path):
    rejects = Rejects()
    return list(read_xrefs(path, origin="x", rejects=rejects)), rejects


def test_a_table_of_xrefs(tmp_path):
    path = tmp_path / "xrefs.tsv"
    path.write_bytes(
        b'id\tlabel\txref\n"DOID:1"\t"a ""b"""\t"MIM:PS1"\nDOID:1\t\tSNOMEDCT_US_2025_09_01:5\n'
        b"DOID:1\tx\tnone\nDOID_1\tx\tMIM:1\nDOID:1\tcaf\xe9\tMIM:1\nDOID:1\tMIM:1\n"
    )
    mappings, rejects = read_table(path)
    assert mappings == [
        IdMapping(subject_id="doid:1", object_id="omim.ps:1", kind="xref", source="xref:doid"),
        IdMapping(subject_id="doid:1", object_id="snomedct:5", kind="xref", source="xref:doid"),
    ]
    assert [(r.line, r.reason) for r in rejects.kept] == [
        (4, "id or xref is no CURIE (prefix:local)"),
        (5, "id or xref is no CURIE (prefix:local)"),
        (6, "row is not UTF-8"),
        (7, "row has another number of fields than the header"),
    ]
    path.write_text("id\tlabel\n")
    with pytest.raises(InputError, match="no column xref"):
        read_table(path)


REAL = {
    "doid": ("doid", 11_966, ("mondo:0000001", "doid:4")),
    "icd10cm": ("icd10cm", 2_038, ("mondo:0000190", "icd10cm:I49.01")),
    "icd10who": ("icd10", 209, ("mondo:0000462", "icd10:H00-H06")),
    "mesh": ("mesh", 8_181, ("mondo:0000190", "mesh:D014693")),
    "orphanet": ("orphanet", 9_785, ("mondo:0000001", "orphanet:377788")),
    "sctid": ("snomedct", 9_120, ("mondo:0000001", "snomedct:64572001")),
    "umls": ("umls", 21_660, ("mondo:0000001", "umls:C0012634")),
}


@pytest.mark.parametrize("name", REAL)
def test_mappings_of_mondo(name):
    path = MONDO / f"mondo_exactmatch_{name}.sssom.tsv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    prefix, count, known = REAL[name]
    mappings, skipped, rejects = read_file(path)
    assert not len(rejects), rejects.kept
    assert not skipped
    assert len(mappings) == count
    assert {(m.kind, m.source) for m in mappings} == {("exact", "sssom:mondo")}
    assert {m.object_id.partition(":")[0] for m in mappings} == {prefix}
    assert known in {(m.subject_id, m.object_id) for m in mappings}
    licence, version = sssom_header(path)
    assert licence == "https://creativecommons.org/publicdomain/zero/1.0/"
    assert "/releases/2026-08-04/" in version


@pytest.mark.skipif(not XREFS.exists(), reason=f"{XREFS} is not there")
def test_xrefs_of_disease_ontology():
    mappings, rejects = read_table(XREFS)
    assert not len(rejects), rejects.kept
    assert len(mappings) == 39_264
    prefixes = Counter(m.object_id.partition(":")[0] for m in mappings)
    assert prefixes["umls"] == 7_126
    assert prefixes["omim"] + prefixes["omim.ps"] == 6_483
    # Seven releases of SNOMED CT.
    assert prefixes["snomedct"] == 5_358
    known = ("doid:0060241", "orphanet:2616")
    assert known in {(m.subject_id, m.object_id) for m in mappings}
