"""The commands `bioelx sources`: which sources there are, and downloading them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bioelx_ray.console import Report, messages, results, showing_progress
from bioelx_ray.errors import InputError

if TYPE_CHECKING:
    import httpx

    from bioelx_ray.kb.fetch.registry import RemoteSource, Wanted

sources_app = typer.Typer(
    help="Public sources for knowledge bases: which there are, and downloading them.",
    no_args_is_help=True,
)

Registry = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        envvar="BIOELX_SOURCES",
        help="Your own list of sources (YAML, as bioelx_ray/kb/data/sources.yaml): adds to the "
        "known ones, and replaces those of the same name, for a mirror or a source in-house.",
    ),
]


@sources_app.command("list")
def list_sources(
    registry: Registry = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a source.")] = False,
) -> None:
    """Show the known sources."""
    from bioelx_ray.kb.fetch.registry import load_registry

    sources = load_registry(registry).values()
    if as_json:
        for source in sources:
            line = json.dumps(source.model_dump(mode="json"), ensure_ascii=False)
            sys.stdout.write(line + "\n")
    else:
        results.print(_table(list(sources)))


@sources_app.command("fetch")
def fetch_sources(
    names: Annotated[list[str], typer.Argument(help="Names from `bioelx sources list`.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Files go into OUT/NAME/.")],
    release: Annotated[
        str | None,
        typer.Option(help="A named release instead of the newest, such as 20250106 of wikidata."),
    ] = None,
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Of a source with files by language only these; may be given again."),
    ] = None,
    contact: Annotated[
        str,
        typer.Option(
            envvar="BIOELX_CONTACT",
            help="Your e-mail or web address, told to the servers; Wikimedia's ask for it.",
        ),
    ] = "",
    registry: Registry = None,
) -> None:
    """Download sources; print the paths as arguments for `bioelx harvest`.

    An interrupted download goes on where it was when the command is run again, and what is there
    and up to date is not downloaded again. A source whose licence you must accept yourself is not
    downloaded: the command says where to get it, and exits with code 2 before it does anything.
    """
    from bioelx_ray.kb.fetch.registry import load_registry, wanted_files

    sources = _chosen(list(dict.fromkeys(names)), load_registry(registry))
    if any(source.accept for source in sources):
        _explain([source for source in sources if source.accept])
        raise typer.Exit(2)
    langs = frozenset(lang or ())
    wanted = [
        (out / source.name / file.name, file)
        for source in sources
        for file in wanted_files(source, release=release, langs=langs)
    ]
    for source in sources:
        messages.print(
            f"{source.name}: licence {source.licence}, see {source.licence_page}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    with showing_progress() as progress:
        failures = _download_all(wanted, contact=contact, progress=progress)
    paths = [str(path) for path, _ in wanted if path not in failures]
    if paths:
        sys.stdout.write(shlex.join(paths) + "\n")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(wanted)} files could not be downloaded: "
            + "; ".join(map(str, failures.values()))
        )


def _chosen(names: Sequence[str], known: dict[str, RemoteSource]) -> list[RemoteSource]:
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"no source {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    return [known[name] for name in names]


def _explain(sources: Sequence[RemoteSource]) -> None:
    for source in sources:
        messages.print(
            f"{source.name}: {source.title} is under a licence that you must accept yourself "
            f"({source.licence}, {source.licence_page}), so it is not downloaded. {source.accept}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _download_all(
    wanted: Sequence[tuple[Path, Wanted]], *, contact: str, progress: Report
) -> dict[Path, InputError]:
    """The files that could not be had, and why. One that is gone does not cost the others."""
    from bioelx_ray.kb.fetch.web import new_client

    failures: dict[Path, InputError] = {}
    with new_client(contact) as client:
        for path, file in wanted:
            try:
                _download(path, file, client=client, progress=progress)
            except InputError as error:
                failures[path] = error
    return failures


def _download(path: Path, file: Wanted, *, client: httpx.Client, progress: Report) -> None:
    from bioelx_ray.kb.fetch.checksums import published_checksum
    from bioelx_ray.kb.fetch.download import download

    checksum = None
    if file.checksums:
        checksum = published_checksum(
            file.checksums, file.name, algorithm=file.algorithm, client=client
        )
    download(file.address, path, checksum=checksum, progress=progress, client=client)


def _table(sources: Sequence[RemoteSource]) -> Table:
    table = Table("name", "what it gives", "languages", "concepts", "licence", "size")
    for source in sources:
        table.add_row(
            source.name,
            escape(source.gives),
            " ".join(source.langs),
            f"{source.concepts:,}" if source.concepts else "",
            escape(source.licence) + (" (to be accepted)" if source.accept else ""),
            escape(source.size),
        )
    return table
