"""A file shaped like UMLS's MRCONSO.RRF, with made-up content, and the time that reading it takes.

    python -m tests.benchmarks.mrconso OUT [--rows 16e6] [--seed 0]
    python -m tests.benchmarks.mrconso --time FILE [--processes 2]

Columns, lengths, the share of suppressed rows, atoms a concept and the mix of languages are near
those of a full release; the words are not words. `--time` reads the file in splits, each in one of
the processes, and makes the comparison form of each text that is kept.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bioelx_ray.config import UmlsConfig
from bioelx_ray.kb.forms import forms_of
from bioelx_ray.kb.readers.umls import read_mrconso
from bioelx_ray.kb.rejects import Rejects
from bioelx_ray.kb.stored.chunks import Split, plan_splits, read_chunks

BATCH = 250_000
ATOMS_A_CONCEPT = 16 / 4.5
PHRASES = 20_000
SHARES = {
    "ENG": 0.70,
    "SPA": 0.10,
    "FRE": 0.026,
    "DUT": 0.02,
    "JPN": 0.021,
    "RUS": 0.02,
    "POR": 0.025,
    "GER": 0.016,
    "ITA": 0.017,
    "CHI": 0.008,
    "KOR": 0.01,
    "CZE": 0.012,
    "POL": 0.006,
    "TUR": 0.005,
    "ARA": 0.004,
    "GRE": 0.004,
    "HUN": 0.003,
    "SWE": 0.003,
}
_LATIN = "etaoinsrlcdmpuhbgfvyxkzqwj"
LETTERS = {
    "SPA": _LATIN + "áéíóúñ",
    "FRE": _LATIN + "éèàçê",
    "POR": _LATIN + "ãçéáí",
    "GER": _LATIN + "äöüß",
    "CZE": _LATIN + "čřžýáí",
    "POL": _LATIN + "łąęśż",
    "TUR": _LATIN + "ışğüİI",
    "HUN": _LATIN + "őűáé",
    "SWE": _LATIN + "åäö",
    "RUS": "оеаинтсрвлкмдпуяызь",
    "GRE": "αοιετσνηυρπκμλςάόίέ",
    "ARA": "ايلمنورتبةعدسفهكقأحجشطصخ",
    "JPN": "ーンスアイルトリシ性症病炎の血管痛心腎肝腫瘍障害",
    "CHI": "性症病炎血管痛心肾肝肿瘤障碍综合征急慢先天",
    "KOR": "이증염성장애질환병심신간종양통혈관급만",
}
VOCABULARIES = [
    "SNOMEDCT_US",
    "MSH",
    "NCI",
    "RXNORM",
    "MEDCIN",
    "LNC",
    "ICD10CM",
    "CHV",
    "OMIM",
    "FMA",
    "GO",
    "HPO",
    "MDR",
    "MTH",
]
TERM_TYPES = ["PT", "SY", "FN", "PN", "LLT", "ET", "MH", "SCD", "PEP", "AB", "OP", "LA", "LN", "DE"]


def main(
    path: Annotated[Path, typer.Argument(metavar="FILE")],
    rows: float = 16e6,
    seed: int = 0,
    timed: Annotated[bool, typer.Option("--time")] = False,
    processes: int = 2,
) -> None:
    if timed:
        report(path, processes=processes)
        return
    with path.open("wb") as out:
        for data in lines(int(rows), seed=seed):
            out.write(data)


def lines(rows: int, *, seed: int) -> Iterator[pa.Buffer]:
    """Whole lines, about `BATCH` at a time, ordered by CUI."""
    rng = np.random.default_rng(seed)
    phrases = {lang: phrase_pool(lang, rng) for lang in SHARES}
    cui = 0
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        first = rng.random(n) < 1 / ATOMS_A_CONCEPT
        cuis = cui + 1 + np.cumsum(first)
        cui = int(cuis[-1])
        yield rows_of(cuis, first=first, start=start, phrases=phrases, rng=rng)


def phrase_pool(lang: str, rng: np.random.Generator) -> pa.Array:
    """Phrases of one to four words; every seventh word begins with a capital."""
    letters = LETTERS.get(lang, _LATIN)
    weights = 1 / np.arange(2, len(letters) + 2)
    drawn = "".join(rng.choice(list(letters), size=24 * PHRASES, p=weights / weights.sum()))
    cuts = np.cumsum(rng.integers(2, 5 if lang in {"JPN", "CHI", "KOR"} else 12, size=3 * PHRASES))
    words = [drawn[a:b] for a, b in pairwise(cuts) if b < len(drawn)]
    words = [word.title() if i % 7 == 0 else word for i, word in enumerate(words)]
    sizes = np.cumsum(rng.integers(1, 5, size=PHRASES)) % (len(words) - 4)
    glue = "" if lang in {"JPN", "CHI"} else " "
    return pa.array([glue.join(words[i : i + 1 + i % 4]) for i in sizes])


def rows_of(
    cuis: NDArray[np.int64],
    *,
    first: NDArray[np.bool_],
    start: int,
    phrases: dict[str, pa.Array],
    rng: np.random.Generator,
) -> pa.Buffer:
    n = len(cuis)
    names = list(SHARES)
    shares = np.array(list(SHARES.values()))
    langs = np.where(first, 0, rng.choice(len(names), size=n, p=shares / shares.sum()))
    numbers = np.arange(start, start + n)

    def pick(values: list[str], weights: list[float] | None = None) -> pa.Array:
        return pa.array(values).take(pa.array(rng.choice(len(values), size=n, p=weights)))

    def ids(letter: str, values: NDArray[np.int64], digits: int) -> pa.Array:
        padded = pc.utf8_lpad(pa.array(values).cast(pa.string()), width=digits, padding="0")
        return pc.binary_join_element_wise(letter, padded, "")

    preferred = first | (rng.random(n) < 0.15)
    columns = [
        ids("C", cuis, 7),
        pa.array(names).take(pa.array(langs)),
        pc.if_else(pa.array(preferred), "P", "S"),
        ids("L", numbers // 2, 7),
        pc.if_else(pa.array(preferred), "PF", pick(["VC", "VO", "PF"])),
        ids("S", numbers, 7),
        pick(["Y", "N"], [0.7, 0.3]),
        ids("A", numbers, 8),
        pick(["", "1234567890", "98765"], [0.6, 0.3, 0.1]),
        pick(["", "M0012345", "38341003"]),
        pick(["", "D012345"], [0.8, 0.2]),
        pick(VOCABULARIES),
        pick(TERM_TYPES),
        pick(["D012345", "38341003", "I10.9", "NOCODE", "C123456"]),
        texts_of(langs, phrases=phrases, rng=rng),
        pick(["0", "9", "4"]),
        pc.if_else(pa.array(first), "N", pick(["N", "O", "Y", "E"], [0.74, 0.18, 0.07, 0.01])),
        pick(["", "256"], [0.6, 0.4]),
        pa.array(["\n"]).take(pa.array(np.zeros(n, dtype=np.int64))),
    ]
    joined = pc.binary_join_element_wise(*columns, "|")
    return joined.buffers()[2]


def texts_of(
    langs: NDArray[np.int64], *, phrases: dict[str, pa.Array], rng: np.random.Generator
) -> pa.Array:
    """Two phrases each, so that most texts differ; some hold a number, quote or double space."""
    pools = list(phrases.values())
    pool = pa.concat_arrays(pools)
    starts = np.cumsum([0, *(len(p) for p in pools)])
    left, right = (
        pool.take(pa.array(starts[langs] + rng.integers(0, PHRASES, size=len(langs))))
        for _ in range(2)
    )
    glue = [" ", ", ", " 20 MG ", ' "', "  ", " - "]
    drawn = rng.choice(len(glue), size=len(langs), p=[0.7, 0.15, 0.1, 0.01, 0.01, 0.03])
    return pc.binary_join_element_wise(left, pa.array(glue).take(pa.array(drawn)), right, "")


@dataclass(frozen=True)
class Figures:
    rows: int
    kept: int
    read_s: float
    forms_s: float
    cpu_s: float
    peak_mib: float


@dataclass
class Counter:
    rows: int = 0


def measure(splits: list[Split]) -> Figures:
    seen, kept, forms_s = Counter(), 0, 0.0
    started = time.perf_counter()
    for split in splits:
        batches = read_mrconso(
            read_chunks(split),
            origin=split.path.name,
            rejects=Rejects(),
            config=UmlsConfig(),
            cuis=None,
            seen=seen,
        )
        for batch in batches:
            before = time.perf_counter()
            kept += len(forms_of(batch.column("text"), batch.column("lang")))
            forms_s += time.perf_counter() - before
    return Figures(
        rows=seen.rows,
        kept=kept,
        read_s=time.perf_counter() - started - forms_s,
        forms_s=forms_s,
        cpu_s=time.process_time(),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def report(path: Path, *, processes: int) -> None:
    splits = plan_splits(path, split_bytes=64 << 20)
    shares = [splits[i::processes] for i in range(processes)]
    started = time.perf_counter()
    with get_context("spawn").Pool(processes) as pool:
        figures = pool.map(measure, shares)
    seconds = time.perf_counter() - started
    rows = sum(f.rows for f in figures)
    table = Table("process", "rows", "kept", "reading, s", "forms, s", "processor, s", "peak, MiB")
    for number, f in enumerate(figures, start=1):
        table.add_row(
            str(number),
            *(f"{value:,}" for value in (f.rows, f.kept)),
            *(f"{value:,.1f}" for value in (f.read_s, f.forms_s, f.cpu_s)),
            f"{f.peak_mib:,.0f}",
        )
    Console().print(table)
    memory = sum(f.peak_mib for f in figures)
    Console().print(
        f"{rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} rows/s; {memory:,.0f} MiB in all"
    )


if __name__ == "__main__":
    typer.run(main)
