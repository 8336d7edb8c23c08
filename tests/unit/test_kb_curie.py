import pytest

from bioelx_ray.kb.curie import curie


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HP:0000001", "hp:0000001"),
        ("umls:C0027051", "umls:C0027051"),
        ("UMLS_CUI:C0263591", "umls:C0263591"),
        ("SNOMEDCT_US:204962002", "snomedct:204962002"),
        ("SNOMEDCT_US_2025_09_01:80258006", "snomedct:80258006"),
        ("SNOMED_CT:1", "snomedct:1"),
        ("SCTID:1", "snomedct:1"),
        ("SNOMED:1", "snomedct:1"),
        ("SNOMED_CT_US_2025_09_01:1", "snomedct:1"),
        ("MSH:D009203", "mesh:D009203"),
        ("MESH:D009203", "mesh:D009203"),
        ("ICD-10:I21", "icd10:I21"),
        ("ICD10:I21.9", "icd10:I21.9"),
        ("ICD10CM:M32.0", "icd10cm:M32.0"),
        ("ICD10WHO:H00-H06", "icd10:H00-H06"),
        ("ICD9CM:250", "icd9cm:250"),
        ("icd11.foundation:368780653", "icd11:368780653"),
        ("ICDO:9811/3", "icdo:9811/3"),
        ("ORPHA:93", "orphanet:93"),
        ("ORDO:231111", "orphanet:231111"),
        ("Orphanet:93", "orphanet:93"),
        ("NCI:C114354", "ncit:C114354"),
        ("NCIT:C114354", "ncit:C114354"),
        ("MIM:100100", "omim:100100"),
        ("MIM:PS203655", "omim.ps:203655"),
        ("OMIM:PS203655", "omim.ps:203655"),
        ("OMIMPS:203655", "omim.ps:203655"),
        ("omim.ps:PS203655", "omim.ps:203655"),
        ("OMIM:PS", "omim:PS"),
        ("GARD:0012651", "gard:12651"),
        ("GARD:12651", "gard:12651"),
        ("GARD:000", "gard:000"),
        ("Wikidata:Q12152", "wikidata:Q12152"),
    ],
)
def test_bioregistry_form(text, expected):
    assert curie(text) == expected
    assert curie(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["", "C0027051", "umls:", ":C1", "umls: C1", "umls:C1 ", "http://x.org/a", "1a:b", "ü:1"],
)
def test_no_curie(text):
    assert curie(text) is None
