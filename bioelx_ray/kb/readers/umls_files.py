"""Where the files of a UMLS release are."""

from __future__ import annotations

from pathlib import Path

from bioelx_ray.config import UmlsConfig
from bioelx_ray.errors import InputError

NAMES = ("MRCONSO", "MRSTY", "MRDEF", "MRCUI", "DELETEDCUI")
_SUFFIXES = (".RRF", ".RRF.gz")
_FOLDERS = (".", "CHANGE", "META", "META/CHANGE")
"""DELETEDCUI lies in CHANGE; a release as unpacked holds all of them in META."""


def find_rrf(directory: Path, *, config: UmlsConfig | None = None) -> dict[str, Path]:
    """The files of a META directory, or of a release that holds one, by their names in `NAMES`.

    Unpacked files go before packed ones. A file that is not there is left out.

    Raises:
        InputError: MRCONSO is missing, or MRSTY although `config` chooses semantic types.
    """
    found: dict[str, Path] = {}
    for name in NAMES:
        places = (directory / folder / (name + s) for s in _SUFFIXES for folder in _FOLDERS)
        if place := next((place for place in places if place.is_file()), None):
            found[name] = place
    if "MRCONSO" not in found:
        raise InputError(_without_names(directory))
    if config and (config.semantic_types or config.semantic_groups) and "MRSTY" not in found:
        raise InputError(
            f"{directory}: MRSTY.RRF is missing, and semantic types are chosen "
            "(umls.semantic_types, umls.semantic_groups); add the file, or choose none"
        )
    return found


def _without_names(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory}: no such directory; give the META directory of a UMLS release"
    pieces = sorted(path.name for path in directory.glob("MRCONSO.RRF.*"))
    if pieces:
        return (
            f"{directory}: MRCONSO.RRF is in pieces ({', '.join(pieces[:3])} ...); install the "
            "release with MetamorphoSys, or join them: cat MRCONSO.RRF.*.gz > MRCONSO.RRF.gz"
        )
    return (
        f"{directory}: neither MRCONSO.RRF nor MRCONSO.RRF.gz is there; give the META directory of "
        "a UMLS release"
    )
