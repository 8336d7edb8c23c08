"""Commands that index a knowledge base and link mentions to it: `index`, `link`, `demo`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bioelx_ray.cli.options import Config, Out, retriever_name
from bioelx_ray.config import RetrievalConfig, load_config
from bioelx_ray.console import results, showing_progress
from bioelx_ray.errors import MentionError
from bioelx_ray.records import UNDETERMINED, Link, Mention, mention_in

IndexPath = Annotated[
    Path | None, typer.Option("--index", help="An index; without it the demo's, built if missing.")
]
Model = Annotated[
    str | None, typer.Option("--encoder", help="embedded, a Hugging Face directory, or a hub name.")
]


def index(
    kb: Annotated[Path, typer.Argument(help="A knowledge base (see `bioelx harvest`).")],
    *,
    out: Out,
    encoder: Model = None,
    adapter: Annotated[
        str | None, typer.Option(help="The directory of one trained for the encoder, or none.")
    ] = None,
    config: Config = None,
) -> None:
    """Embed and index the aliases of a knowledge base. An interrupted run goes on."""
    from bioelx_ray.kb.store import KnowledgeBase
    from bioelx_ray.retrieval.build import build_index
    from bioelx_ray.retrieval.encoder import open_encoder

    given = {"encoder.model": encoder, "encoder.adapter": adapter}
    settings = load_config(config, {key: value for key, value in given.items() if value})
    with showing_progress() as progress:
        built = build_index(
            out,
            KnowledgeBase.open(kb),
            open_encoder(settings.encoder),
            config=settings.index,
            encoder_config=settings.encoder,
            progress=progress,
        )
    counts, faiss = built.manifest.counts, built.manifest.config["faiss"]
    results.print(
        f"{out}: {counts['forms']:,} forms of {counts['concepts']:,} concepts, {faiss['kind']}"
        + (f", nprobe {faiss['nprobe']} of {faiss['nlist']}" if faiss["nlist"] else "")
        + f", Recall@64 of exact search {faiss['recall']:.4f}",
        highlight=False,
    )


def link(
    text: Annotated[str, typer.Argument(help="A text; mentions may be marked as [[...]].")],
    mention: Annotated[list[str] | None, typer.Option(help="A mention that occurs in it.")] = None,
    lang: Annotated[str, typer.Option(help="The text's language, BCP 47.")] = UNDETERMINED,
    index: IndexPath = None,
    retriever: Annotated[str, typer.Option(help="dense, lexical or hybrid")] = "dense",
    top_k: Annotated[int, typer.Option(min=1, max=64)] = 5,
    vocabulary: Annotated[
        list[str] | None, typer.Option(help="Only concepts of this CURIE prefix, such as hp.")
    ] = None,
    semantic_type: Annotated[list[str] | None, typer.Option(help="Only concepts of it.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only aliases from it.")] = None,
    alias_lang: Annotated[list[str] | None, typer.Option(help="Only aliases in it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a mention.")] = False,
) -> None:
    """Link the mentions of a text in one process. The filters may each be given again."""
    from bioelx_ray.kb.text import language_tag
    from bioelx_ray.linker import Linker, PassThroughRanker, open_retriever
    from bioelx_ray.retrieval.filters import Filter

    where = Filter(
        vocabularies=frozenset(vocabulary or ()),
        semantic_types=frozenset(semantic_type or ()),
        sources=frozenset(source or ()),
        langs=frozenset(alias_lang or ()),
    )
    mentions = _mentions(text, mention or [], lang=language_tag(lang))
    retrieval = RetrievalConfig(retriever=retriever_name(retriever))
    stage_one = open_retriever(index or _demo_index(), retrieval=retrieval)
    links = Linker(stage_one, PassThroughRanker()).link(mentions, k=top_k, where=where)
    if as_json:
        for found in links:
            sys.stdout.write(json.dumps(_as_dict(found), ensure_ascii=False) + "\n")
    else:
        results.print(_table(links))


def demo(
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build the knowledge base and index, and stop.")
    ] = False,
) -> None:
    """Build a real knowledge base and index, serve them, and link sentences over HTTP."""
    _demo_index()
    if not build_only:
        from deployments.demo import run_demo

        raise typer.Exit(run_demo())


def _demo_index() -> Path:
    from bioelx_ray.demo import ensure_demo

    with showing_progress() as progress:
        index, _ = ensure_demo(progress)
    return index


def _mentions(text: str, wanted: Sequence[str], *, lang: str) -> list[Mention]:
    plain, spans = "", []
    for number, part in enumerate(text.replace("]]", "[[").split("[[")):
        if number % 2:
            spans.append((len(plain), len(plain) + len(part)))
        plain += part
    for words in wanted:
        start = plain.find(words) if words else -1
        if start < 0:
            raise MentionError(f"{words!r} does not occur in the text: copy it from there")
        spans.append((start, start + len(words)))
    if not spans:
        raise MentionError('no mention: give --mention "...", or mark it in the text as [[...]]')
    return [mention_in(plain, start, end, lang=lang) for start, end in spans]


def _as_dict(found: Link) -> dict[str, object]:
    return {
        "mention": found.mention.text,
        "start": found.mention.start,
        "end": found.mention.end,
        "lang": found.mention.lang,
        "concept_id": found.concept_id,
        "score": round(found.score, 4),
        "decided_by": found.decided_by,
        "reason": found.reason,
        "candidates": [
            {
                "concept_id": candidate.concept_id,
                "score": round(candidate.score, 4),
                "matched_alias": candidate.alias,
                "matched_lang": candidate.lang,
                "source": candidate.source,
            }
            for candidate in found.candidates
        ],
    }


def _table(links: Sequence[Link]) -> Table:
    table = Table("mention", "rank", "concept id", "score", "matched alias", "language", "source")
    for found in links:
        for rank, candidate in enumerate(found.candidates, start=1):
            table.add_row(
                found.mention.text if rank == 1 else "",
                str(rank),
                candidate.concept_id,
                f"{candidate.score:.3f}",
                candidate.alias,
                candidate.lang,
                candidate.source,
            )
        if found.concept_id is None:
            table.add_row(found.mention.text, "-", "NIL", "", found.reason, "", "")
    return table
