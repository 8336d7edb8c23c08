"""Hard negatives: aliases of other concepts that lie near an anchor.

::

    shared = shared_keys(kb, concept_ids(pairs))
    rows = mine(bank, anchors, positives, shared=shared, per_anchor=1)   # [anchors, 1], -1: none
    bank.texts[rows], bank.concepts[rows]                   # go into the batch, with their labels

A text that joins a batch with its concept's label is no pair, but a negative to all other concepts.
The danger is a false one, a synonym that the knowledge base does not know to be one (Robinson et
al. 2021, arXiv 2010.04592; Moreira et al. 2024, arXiv 2407.15831). So these are passed over: texts
of the anchor's concept; concepts that have a form or an id in common with it; and texts nearer to
the anchor than its own positive by more than a margin.

Anchors are independent, so that parts of them can be mined anywhere, and joined in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bioelx_ray.artifacts import Artifact
from bioelx_ray.errors import InputError
from bioelx_ray.kb.forms import forms_of
from bioelx_ray.kb.pairs import read_pairs
from bioelx_ray.kb.store import XREFS, KnowledgeBase

MARGIN = 0.1
"""Cosine by which a negative may be nearer to the anchor than its positive.

It must not be 0: before training a translation lies farther away than half of the other names in
the anchor's own language, and these are what training is to push away.
"""
DEPTH = 64
"""Nearest texts that are looked at for each anchor."""

_ANCHORS, _TEXTS = 1024, 1 << 16
"""Rows and columns of the scores that are held at a time: 256 MiB."""
_LOOSE = frozenset({"broad", "narrow", "related"})
_ALIASES = 1 << 16

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """What is mined among: rows of a text and a concept that it names, each pair of them once.

    `texts` and `concepts` int64 [n], sorted; `vectors` [texts, dim], float32 or float16, of unit
    length and by the number of the text.
    """

    texts: Rows
    concepts: Rows
    vectors: NDArray[np.floating]

    def rows(self, texts: Rows, concepts: Rows) -> Rows:
        """The rows of texts that name concepts, both int64 [m]; -1 where there is none."""
        width = 1 + max(self.concepts.max(initial=0), concepts.max(initial=0))
        keys, wanted = self.texts * width + self.concepts, texts * width + concepts
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        if not len(keys):
            return np.full(len(wanted), -1, dtype=np.int64)
        return np.where(keys[at] == wanted, at, -1).astype(np.int64)


def make_bank(sides: NDArray[np.integer], concepts: Rows, vectors: NDArray[np.floating]) -> Bank:
    """The bank of pairs.

    Args:
        sides: int [pairs, 2], the numbers of their texts.
        concepts: int64 [pairs], the numbers of their concepts.
        vectors: [texts, dim], unit vectors. A text with a vector of zeros is left out: where the
            bank is to be a sample, embed a part.
    """
    named = np.column_stack([sides.T.ravel().astype(np.int64), np.tile(concepts, 2)])
    texts, owners = np.unique(named, axis=0).T
    there = np.linalg.norm(vectors, axis=1)[texts] > 0
    return Bank(texts=texts[there], concepts=owners[there], vectors=vectors)


def concept_ids(pairs: Artifact) -> list[str]:
    """The ids of the concepts of pairs in the order of their first pair, which is their number."""
    columns = [batch.column("concept_id").dictionary_encode() for batch in read_pairs(pairs)]
    if not columns:
        return []
    ids: list[str] = pa.chunked_array(columns).unify_dictionaries().chunk(0).dictionary.to_pylist()
    return ids


def mine(
    bank: Bank,
    anchors: Rows,
    positives: Rows,
    *,
    shared: csr_array,
    per_anchor: int,
    margin: float = MARGIN,
) -> Rows:
    """The nearest rows of the bank that are safe negatives of each anchor, best first.

    An anchor gets at most one row of a concept. Of equally near texts the lower row wins, unless
    more are equally near than are looked at (`DEPTH`).

    Args:
        bank: where the negatives are looked for, and where anchors and positives stand.
        anchors: int64 [m], rows of the bank.
        positives: int64 [m], rows of the bank: the other side of each anchor's pair.
        shared: what concepts have in common, see `shared_keys`.
        per_anchor: rows wanted for each anchor.
        margin: see `MARGIN`.

    Returns:
        int64 [m, per_anchor], -1 where there are fewer.

    Raises:
        InputError: rows that the bank lacks, or anchors and positives in different number.
    """
    _check(bank, anchors, positives)
    found = np.full((len(anchors), per_anchor), -1, dtype=np.int64)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for start in range(0, len(anchors), _ANCHORS):
        part = slice(start, start + _ANCHORS)
        vectors = bank.vectors[bank.texts[anchors[part]]].astype(np.float32)
        own = bank.vectors[bank.texts[positives[part]]].astype(np.float32)
        limits = np.einsum("nd,nd->n", vectors, own) + margin
        scores, rows = _nearest(bank, vectors, place=place)
        safe = scores <= limits[:, None]
        safe &= _foreign(bank, anchors[part], rows, shared=shared)
        found[part] = _chosen(bank, rows, safe, per_anchor=per_anchor)
    return found


def _check(bank: Bank, anchors: Rows, positives: Rows) -> None:
    both = np.concatenate([anchors, positives])
    if len(anchors) != len(positives) or ((both < 0) | (both >= len(bank.texts))).any():
        raise InputError(
            f"{len(anchors)} anchors and {len(positives)} positives; expected as many of both, "
            f"rows of a bank of {len(bank.texts)}"
        )


def _nearest(
    bank: Bank, vectors: NDArray[np.float32], *, place: torch.device
) -> tuple[NDArray[np.float32], Rows]:
    """The `DEPTH` nearest rows of the bank, best first, equally near ones by their number."""
    queries = torch.from_numpy(vectors).to(place)
    scores = torch.empty(len(vectors), 0, device=place)
    rows = torch.empty(len(vectors), 0, dtype=torch.int64, device=place)
    for start in range(0, len(bank.texts), _TEXTS):
        block = bank.vectors[bank.texts[start : start + _TEXTS]].astype(np.float32)
        found = queries @ torch.from_numpy(block).to(place).T
        best, at = found.topk(min(DEPTH, len(block)), dim=1)
        scores, rows = torch.cat([scores, best], dim=1), torch.cat([rows, at + start], dim=1)
        best, at = scores.topk(min(DEPTH, scores.shape[1]), dim=1)
        scores, rows = best, rows.gather(1, at)
    values, numbers = scores.cpu().numpy(), rows.cpu().numpy()
    # equal vectors' products may differ in the last digit
    order = np.lexsort((numbers, -values.round(6)), axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def _foreign(bank: Bank, anchors: Rows, rows: Rows, *, shared: csr_array) -> NDArray[np.bool_]:
    """Which rows [m, k] are of a concept, and of a text, that is clearly not the anchor's."""
    one = np.repeat(anchors, rows.shape[1])
    other = rows.ravel()
    left, right = bank.concepts[one], bank.concepts[other]
    common = shared[left].multiply(shared[right]).sum(axis=1)
    foreign = (left != right) & (np.asarray(common).ravel() == 0)
    foreign &= bank.texts[one] != bank.texts[other]
    return cast("NDArray[np.bool_]", foreign.reshape(rows.shape))


def _chosen(bank: Bank, rows: Rows, safe: NDArray[np.bool_], *, per_anchor: int) -> Rows:
    chosen = np.full((len(rows), per_anchor), -1, dtype=np.int64)
    for at in range(len(rows)):
        usable = rows[at][safe[at]]
        _, first = np.unique(bank.concepts[usable], return_index=True)
        best = usable[np.sort(first)][:per_anchor]
        chosen[at, : len(best)] = best
    return chosen


def shared_keys(kb: KnowledgeBase, concepts: Sequence[str]) -> csr_array:
    """What two concepts may have in common: float32 [concepts, keys], a 1 for each key of one.

    Keys are forms of all aliases, whatever their language, ambiguous ones too (training leaves them
    out of the pairs, but they tell that two concepts may be the same); a concept's own id; and its
    xrefs, unless they are known to be wider, narrower or only related. Only keys of several
    concepts are kept. Forms and ids go by 64-bit hashes. Memory: 16 bytes an alias of these
    concepts, and twice that for a moment.

    Args:
        kb: the knowledge base that the pairs were built from.
        concepts: ids by number (see `concept_ids`).

    Raises:
        InputError: the knowledge base lacks some of the concepts: it is not the pairs' own.
    """
    ids = pa.array(concepts, pa.string())
    known = pc.is_in(ids, value_set=kb.concepts.column("id").combine_chunks())
    if missing := len(ids) - (pc.sum(known).as_py() or 0):
        raise InputError(
            f"{kb.artifact.path} lacks {missing} of {len(ids)} concepts: give the knowledge base "
            "that the pairs were built from"
        )
    found = [(np.arange(len(ids)), _hashed("id", ids))]
    found += _form_keys(kb, ids)
    found += _xref_keys(kb, ids)
    owners = np.concatenate([numbers for numbers, _ in found])
    hashes = np.concatenate([hashes for _, hashes in found])
    keys, places = np.unique(hashes, return_inverse=True)
    width = max(len(keys), 1)
    owners, places = np.divmod(np.unique(owners * width + places), width)
    several = np.bincount(places, minlength=width) > 1
    column = np.cumsum(several) - 1
    kept = several[places]
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    shape = (len(ids), max(int(several.sum()), 1))
    return csr_array((ones, (owners[kept], column[places[kept]])), shape=shape)


_Keys = tuple[Rows, NDArray[np.uint64]]
"""Numbers of concepts, and the hash of a key that each has."""


def _form_keys(kb: KnowledgeBase, ids: pa.StringArray) -> Iterator[_Keys]:
    table = kb.aliases.select(["concept_id", "text", "lang"])
    for batch in table.to_batches(max_chunksize=_ALIASES):
        numbers, own = _numbered(batch.column("concept_id"), ids)
        forms = forms_of(batch.column("text").filter(own), batch.column("lang").filter(own))
        yield numbers, _hashed("form", forms)


def _xref_keys(kb: KnowledgeBase, ids: pa.StringArray) -> Iterator[_Keys]:
    with pa.ipc.open_file(pa.memory_map(str(kb.artifact.file(XREFS)), "r")) as reader:
        table = reader.read_all()
    tight = pc.invert(pc.is_in(table.column("kind"), pa.array(sorted(_LOOSE))))
    for batch in table.filter(tight).to_batches(max_chunksize=_ALIASES):
        numbers, own = _numbered(batch.column("concept_id"), ids)
        yield numbers, _hashed("id", batch.column("xref").filter(own))


def _numbered(column: pa.StringArray, ids: pa.StringArray) -> tuple[Rows, pa.BooleanArray]:
    """The numbers of those concepts of a column that have one, and which these are."""
    numbers = pc.index_in(column, value_set=ids)
    known = pc.is_valid(numbers)
    return numbers.filter(known).to_numpy().astype(np.int64), known


def _hashed(kind: str, texts: pa.StringArray) -> NDArray[np.uint64]:
    person = kind.encode()
    digests = (
        blake2b(text.encode(), digest_size=8, person=person).digest() for text in texts.to_pylist()
    )
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
