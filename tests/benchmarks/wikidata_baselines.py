"""Other ways to read a Wikidata dump. Needs the standard library alone, or qwikidata.

    python tests/benchmarks/wikidata_baselines.py json|qwikidata FILE PROPERTIES

Prints how many biomedical entities and aliases it found, and a checksum over the aliases.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

Named = tuple[str, set[str]]
"""An item's id and its names."""


def with_json(path: str, properties: set[str]) -> Iterator[Named]:
    """Every line parsed by the standard library."""
    opened = {"gz": gzip.open, "bz2": bz2.open}.get(path.rpartition(".")[2], open)
    with opened(path, "rb") as handle:
        for line in handle:
            row = line.strip().rstrip(b",")
            if row in (b"[", b"]", b""):
                continue
            entity = json.loads(row)
            if entity["type"] == "item" and _is_wanted(entity, properties):
                labels = {v["value"] for v in dict(entity["labels"]).values()}
                aliases = {v["value"] for vs in dict(entity["aliases"]).values() for v in vs}
                yield entity["id"], labels | aliases


def with_qwikidata(path: str, properties: set[str]) -> Iterator[Named]:
    """The package qwikidata; its items are made of wanted entities only, which favours it."""
    from qwikidata.entity import WikidataItem
    from qwikidata.json_dump import WikidataJsonDump

    for entity in WikidataJsonDump(path):
        if entity["type"] == "item" and _is_wanted(entity, properties):
            item = WikidataItem(entity)
            labels = {item.get_label(code) for code in entity["labels"]}
            aliases = {alias for code in entity["aliases"] for alias in item.get_aliases(code)}
            yield item.entity_id, labels | aliases


def _is_wanted(entity: dict[str, Any], properties: set[str]) -> bool:
    claims = entity["claims"]
    return any(
        row["rank"] != "deprecated" and row["mainsnak"]["snaktype"] == "value"
        for key in properties.intersection(claims)
        for row in claims[key]
    )


def digest(named: Iterable[Named]) -> tuple[int, int, str]:
    """How many items and names there are, and a checksum that does not depend on their order."""
    items = names = checksum = 0
    for item, found in named:
        items += 1
        names += len(found)
        for name in found:
            key = f"{item}\t{name}".encode()
            checksum ^= int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return items, names, f"{checksum:016x}"


def main() -> None:
    """Read one file in one way."""
    reader = {"json": with_json, "qwikidata": with_qwikidata}[sys.argv[1]]
    items, names, checksum = digest(reader(sys.argv[2], set(sys.argv[3].split(","))))
    sys.stdout.write(f"{items} {names} {checksum}\n")


if __name__ == "__main__":
    main()
