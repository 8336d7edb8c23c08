"""The vector index: FAISS, exact or IVF.

Names lie close together: to find 99 % of what exact search finds, a third of the lists must be
searched, and with half-precision codes the time goes into reading them from memory. So the lists
hold 4-bit product codes, an eighth of that and compared in registers, which choose a thousand
vectors; these are compared exactly, in half precision, from a file that is memory-mapped and shared
by processes. Measured on 288,000 vectors: six times as fast as half-precision lists, same recall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from bioelx_ray.config import IndexConfig
from bioelx_ray.errors import ArtifactCorrupt, IndexBuildError
from bioelx_ray.retrieval.threads import cpu_count

FILE, VECTORS = "dense.faiss", "dense.vectors.faiss"
RECALL_AT = 64
MIN_RECALL_OF_A_LANGUAGE = 0.98
_TRAIN_PER_LIST = 64
_COMPARED = 1024
"""Vectors that the codes choose for exact comparison, at least."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build decided: kept in the manifest."""

    kind: str
    nlist: int
    nprobe: int
    recall: float
    recall_by_language: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return {name: getattr(self, name) for name in self.__slots__}


def build_faiss(
    vectors: Vectors,
    directory: Path,
    *,
    config: IndexConfig,
    probes: Mapping[str, Vectors],
) -> Built:
    """Index unit vectors into ``dense.faiss``; the inner product is the cosine.

    Args:
        vectors: float32 [n, dim].
        directory: where the file is written.
        config: `kind`, and for IVF the recall to reach.
        probes: queries by language, over which `nprobe` is chosen.

    Raises:
        IndexBuildError: no `nprobe` reaches `config.min_recall` of exact search.
    """
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    if config.kind == "flat" or (config.kind == "auto" and len(vectors) < config.flat_below):
        faiss.write_index(exact, str(directory / FILE))
        return Built(kind="flat", nlist=0, nprobe=0, recall=1.0, recall_by_language={})
    codes = _trained_ivf(vectors, seed=config.seed)
    codes.add(vectors)
    halves = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    halves.add(vectors)
    built = _choose_nprobe(_Ivf(codes, halves), exact, config=config, probes=probes)
    faiss.write_index(codes, str(directory / FILE))
    faiss.write_index(halves, str(directory / VECTORS))
    return built


def _trained_ivf(vectors: Vectors, *, seed: int) -> faiss.IndexIVFPQFastScan:
    nlist = max(1, min(int(4 * len(vectors) ** 0.5), len(vectors) // 39))
    dim = vectors.shape[1]
    parts = dim // 2 if dim % 2 == 0 else dim  # codes of two dimensions each
    index = faiss.IndexIVFPQFastScan(
        faiss.IndexFlatIP(dim), dim, nlist, parts, 4, faiss.METRIC_INNER_PRODUCT
    )
    index.by_residual = False  # one table of products a query, not one for each list
    index.cp.seed = seed + 1
    index.cp.max_points_per_centroid = _TRAIN_PER_LIST
    index.cp.spherical = True
    sample = np.random.default_rng(seed).permutation(len(vectors))[: _TRAIN_PER_LIST * nlist]
    index.train(vectors[np.sort(sample)])
    return index


class _Ivf:
    """Codes that choose, and the vectors to compare exactly."""

    def __init__(self, codes: faiss.IndexIVFPQFastScan, halves: faiss.IndexScalarQuantizer) -> None:
        self.codes = codes
        self._parts = (codes, halves)  # FAISS keeps no reference to them
        self._index = faiss.IndexRefine(codes, halves)

    def search(
        self, queries: Vectors, *, k: int, nprobe: int, selector: faiss.IDSelector | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        inner = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        compared = max(_COMPARED, 4 * k)
        params = faiss.IndexRefineSearchParameters(k_factor=compared / k, base_index_params=inner)
        found: tuple[Vectors, NDArray[np.int64]] = self._index.search(queries, k, params=params)
        return found


def _choose_nprobe(
    index: _Ivf,
    exact: faiss.IndexFlatIP,
    *,
    config: IndexConfig,
    probes: Mapping[str, Vectors],
) -> Built:
    """The fewest lists, in steps of a quarter, that find what exact search finds."""
    k = min(RECALL_AT, exact.ntotal)
    wanted = {lang: exact.search(queries, k)[1] for lang, queries in probes.items()}
    nlist = index.codes.nlist
    nprobe, recall, by_language = max(1, nlist // 64), 0.0, dict[str, float]()
    while True:
        found = {
            lang: index.search(queries, k=k, nprobe=nprobe)[1] for lang, queries in probes.items()
        }
        by_language = {lang: _overlap(found[lang], wanted[lang]) for lang in probes}
        sizes = [len(probes[lang]) for lang in probes]
        recall = float(np.average(list(by_language.values()), weights=sizes))
        lowest = min(by_language.values())
        if recall >= config.min_recall and lowest >= MIN_RECALL_OF_A_LANGUAGE:
            break
        if nprobe >= nlist:
            raise IndexBuildError(
                f"searching all {nlist} lists reaches Recall@{k} {recall:.4f} of exact "
                f"search (lowest language {lowest:.4f}), {config.min_recall} is wanted: lower "
                "index.min_recall, or build with index.kind flat"
            )
        nprobe = min(nlist, nprobe + max(1, nprobe // 4))
    return Built(
        kind="ivf",
        nlist=nlist,
        nprobe=nprobe,
        recall=round(recall, 4),
        recall_by_language={lang: round(value, 4) for lang, value in by_language.items()},
    )


def _overlap(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    hits = [len(np.intersect1d(f, w)) for f, w in zip(found, wanted, strict=True)]
    return float(np.sum(hits) / wanted.size)


class DenseIndex:
    """The opened index. An IVF index's vectors stay on disk, its codes are read into memory."""

    def __init__(self, directory: Path, *, nprobe: int, threads: int = 0) -> None:
        self._nprobe = nprobe
        self._threads = cpu_count(threads)
        self._main = _read(directory / FILE, flags=0)
        self._ivf: _Ivf | None = None
        self._vectors = self._main
        if isinstance(self._main, faiss.IndexIVF):
            self._vectors = _read(directory / VECTORS, flags=faiss.IO_FLAG_MMAP_IFC)
            self._ivf = _Ivf(self._main, self._vectors)

    def __len__(self) -> int:
        """The number of vectors."""
        return int(self._main.ntotal)

    def search(
        self, queries: Vectors, *, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """The nearest rows of unit queries float32 [n, dim], best first.

        Returns:
            scores float32 [n, k] and rows int64 [n, k], padded with -1.
        """
        faiss.omp_set_num_threads(self._threads)
        selector = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        queries = np.ascontiguousarray(queries)
        if self._ivf:
            return self._ivf.search(queries, k=k, nprobe=self._nprobe, selector=selector)
        params = faiss.SearchParameters(sel=selector)
        found: tuple[Vectors, NDArray[np.int64]] = self._main.search(queries, k, params=params)
        return found

    def vectors(self) -> Vectors:
        """All vectors, float32 [n, dim], read into memory: for measuring and for export."""
        everything: Vectors = self._vectors.reconstruct_n(0, len(self))
        return everything

    def scores_of(self, queries: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """The scores of given rows: queries [n, dim], rows int [n, m] (-1: none), out [n, m]."""
        distinct, place = np.unique(np.maximum(rows, 0), return_inverse=True)
        vectors = self._vectors.reconstruct_batch(distinct)
        place = place.reshape(rows.shape)
        scores = np.empty(rows.shape, dtype=np.float32)
        for at, query in enumerate(queries):
            scores[at] = vectors[place[at]] @ query
        return np.where(rows >= 0, scores, 0).astype(np.float32)


def _read(path: Path, *, flags: int) -> faiss.Index:
    # checked by its sha256 when the artifact was opened: FAISS itself trusts a file's own sizes
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise ArtifactCorrupt(f"{path} is no FAISS index: build it again") from error


def language_probes(
    vectors: Vectors, languages: Sequence[str], *, queries: int, seed: int
) -> dict[str, Vectors]:
    """Queries for the recall sweep: forms of each frequent language, and points between forms.

    A form of the index finds itself in the first list that is searched, and lies close to its
    synonyms. A mention that no form resembles lies between them: so half of the queries are
    normalised sums of two random forms, the hardest that were found.
    """
    rng = np.random.default_rng(seed)
    langs = np.asarray(languages)
    probes: dict[str, Vectors] = {}
    names, counts = np.unique(langs, return_counts=True)
    frequent = names[counts >= max(64, len(langs) // 1000)]
    share = max(32, queries // (2 * max(len(frequent), 1)))
    for name in frequent:
        rows = np.flatnonzero(langs == name)
        probes[str(name)] = vectors[rng.choice(rows, size=min(share, len(rows)), replace=False)]
    pairs = rng.integers(len(vectors), size=(2, queries // 2))
    between = vectors[pairs[0]] + vectors[pairs[1]]
    between /= np.maximum(np.linalg.norm(between, axis=1, keepdims=True), 1e-6)
    probes["between"] = between.astype(np.float32)
    return probes


def exact_search(
    blocks: Iterable[Vectors], queries: Vectors, *, k: int
) -> tuple[Vectors, NDArray[np.int64]]:
    """Exact nearest rows over blocks of unit vectors that need not be in memory together."""
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    start = 0
    for block in blocks:
        scores, rows = faiss.knn(queries, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows + start)
        start += len(block)
    heap.finalize()
    return heap.D, heap.I
