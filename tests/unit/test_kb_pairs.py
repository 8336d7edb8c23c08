import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioelx_ray.artifacts import Manifest, Source, open_artifact, publish
from bioelx_ray.config import PairsConfig
from bioelx_ray.errors import ArtifactMismatch, InputError
from bioelx_ray.kb import pairs as module
from bioelx_ray.kb.pairs import build_pairs, read_pairs
from bioelx_ray.kb.sampling import language_weights, sample_pairs
from bioelx_ray.kb.store import XREF_SCHEMA, KnowledgeBase
from bioelx_ray.records import Alias, Concept, Retired, SynonymPair
from bioelx_ray.tables import SCHEMAS, from_table, to_table
from bioelx_ray.testing import small_kb

CONFIG = PairsConfig(per_concept=6, seed=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


def silent(*_):
    pass


def made_kb(directory, aliases, *, batch=5):
    """A knowledge base of these aliases, with concepts that span record batches."""
    rows = sorted(aliases, key=lambda alias: (alias.concept_id, alias.lang, alias.text))
    ids = sorted({alias.concept_id for alias in rows})
    tables = {
        "concepts": to_table([Concept(id=id_, name=id_) for id_ in ids], Concept),
        "aliases": to_table(rows, Alias),
        "xrefs": XREF_SCHEMA.empty_table(),
        "retired": to_table([], Retired),
    }
    counts = {"languages": dict(Counter(alias.lang for alias in rows))}
    source = Source(name="made", licence="CC0-1.0")
    manifest = Manifest(kind="kb", code_version="1", counts=counts, sources=[source])
    with publish(directory, manifest) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    return KnowledgeBase.open(directory)


def alias(concept, lang, text, **given):
    return Alias(concept_id=f"t:{concept:06}", lang=lang, text=text, source="test", **given)


def many(concepts, *, each=4):
    return [
        alias(concept, lang, f"{lang} {number} of {concept}")
        for concept in range(concepts)
        for lang in ("de", "en")
        for number in range(each)
    ]


def drawn(artifact):
    return from_table(pa.Table.from_batches(read_pairs(artifact)), SynonymPair)


def test_the_pairs_are_those_of_each_concept_in_order(tmp_path):
    own = [*many(7), alias(8, "th", "ก"), alias(8, "en", "k")]
    kb = made_kb(tmp_path / "kb", own)
    built = build_pairs(tmp_path / "pairs", kb, config=CONFIG, progress=silent)
    weights = language_weights(Counter(one.lang for one in own))
    want = [
        pair
        for id_ in kb.concepts["id"].to_pylist()
        for pair in sample_pairs(kb.aliases_of(id_), per_concept=6, seed=1, weights=weights)
    ]
    assert drawn(built) == want
    assert len(want) == 7 * 6 + 1


def test_the_batches_of_the_kb_do_not_matter(tmp_path, monkeypatch):
    prints = set()
    for number, (batch, at_a_time) in enumerate([(1, 8192), (7, 3), (1000, 1), (1000, 8192)]):
        monkeypatch.setattr(module, "_ALIASES_AT_A_TIME", at_a_time)
        kb = made_kb(tmp_path / f"kb{number}", many(9), batch=batch)
        target = tmp_path / f"pairs{number}"
        built = build_pairs(target, kb, config=CONFIG, progress=silent)
        prints.add(built.manifest.fingerprint)
    assert len(prints) == 1


def test_shards_are_full_but_for_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_FILE", 10)
    monkeypatch.setattr(module, "_ROWS_PER_GROUP", 4)
    kb = made_kb(tmp_path / "kb", many(5))
    build_pairs(tmp_path / "pairs", kb, config=CONFIG, progress=silent)
    built = open_artifact(tmp_path / "pairs", "pairs")
    names = [f"pairs-0000{number}.parquet" for number in range(3)]
    assert sorted(built.manifest.files) == names
    files = [pq.ParquetFile(built.file(name)) for name in names]
    assert [file.metadata.num_rows for file in files] == [10, 10, 10]
    assert {file.metadata.row_group(0).column(1).compression for file in files} == {"ZSTD"}
    assert files[0].schema_arrow == SCHEMAS[SynonymPair]
    assert files[0].metadata.num_row_groups == 3
    ids = [pair.concept_id for pair in drawn(built)]
    assert ids == sorted(ids)


def test_the_manifest(tmp_path):
    own = [
        alias(1, "en", "MI"),
        alias(1, "en", "heart attack"),
        alias(1, "de", "Herzinfarkt"),
        alias(1, "en", "cold", ambiguous=True),
        alias(2, "en", "asthma"),
        alias(2, "de", "Asthma"),
        alias(3, "en", "neck"),
        alias(4, "en", "gone"),
    ]
    listed = tmp_path / "listed.tsv"
    listed.write_text("text\tform\tgold\nMI\tmi\tt:000001\nGONE\tgone\tt:000004\n")
    kb = made_kb(tmp_path / "kb", own)
    told = []
    built = build_pairs(
        tmp_path / "pairs",
        kb,
        config=PairsConfig(),
        exclude=[listed],
        progress=lambda *step: told.append(step),
    ).manifest
    assert built.counts == {
        "pairs": 1,
        "concepts": 1,
        "kinds": {"cross": 1, "mono": 0},
        "languages": {"de": 1, "en": 1},
        "left_out": {"excluded": 2, "ambiguous": 1, "alone": 3},
    }
    assert built.inputs["kb"] == kb.artifact.manifest.fingerprint
    assert built.inputs["exclude-0"].startswith("sha256:")
    assert built.config == {"per_concept": 50, "seed": 0}
    assert [source.name for source in built.sources] == ["made"]
    assert told[-1] == ("pairs", 8, 8)


def test_a_pair_within_a_language_counts_once_for_it(tmp_path):
    kb = made_kb(tmp_path / "kb", [alias(1, "en", "a"), alias(1, "en", "b")])
    counts = build_pairs(tmp_path / "p", kb, config=CONFIG, progress=silent).manifest.counts
    assert counts["languages"] == {"en": 1}
    assert counts["kinds"] == {"cross": 0, "mono": 1}


@pytest.mark.parametrize("own", [[], [alias(1, "en", "a"), alias(2, "en", "b")]])
def test_a_kb_without_pairs(tmp_path, own):
    kb = made_kb(tmp_path / "kb", own)
    with pytest.raises(InputError, match="no concept has two forms"):
        build_pairs(tmp_path / "pairs", kb, config=CONFIG, progress=silent)
    assert not (tmp_path / "pairs").exists()


def test_a_bad_list_leaves_what_stood_there(tmp_path):
    kb = made_kb(tmp_path / "kb", many(2))
    before = build_pairs(tmp_path / "p", kb, config=CONFIG, progress=silent).manifest
    (tmp_path / "bad.tsv").write_text("nothing\n")
    with pytest.raises(InputError, match="no column"):
        build_pairs(
            tmp_path / "p", kb, config=CONFIG, exclude=[tmp_path / "bad.tsv"], progress=silent
        )
    assert open_artifact(tmp_path / "p", "pairs").manifest == before


def test_pairs_are_no_kb(tmp_path):
    kb = small_kb(tmp_path)
    build_pairs(tmp_path / "pairs", kb, config=CONFIG, progress=silent)
    with pytest.raises(ArtifactMismatch, match="'pairs' artifact, a 'kb' one"):
        KnowledgeBase.open(tmp_path / "pairs")


def test_memory_does_not_grow_with_the_kb(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ALIASES_AT_A_TIME", 256)
    monkeypatch.setattr(module, "_ROWS_PER_GROUP", 256)
    peaks = {}
    for concepts in (200, 800):
        kb = made_kb(tmp_path / f"kb{concepts}", many(concepts, each=2), batch=1000)
        tracemalloc.start()
        build_pairs(tmp_path / f"p{concepts}", kb, config=CONFIG, progress=silent)
        peaks[concepts] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[800] < 1.2 * peaks[200], peaks
