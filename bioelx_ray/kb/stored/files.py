"""Lines of plain and gzipped files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from bioelx_ray.errors import InputError


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends; a name that ends in ``.gz`` is unpacked.

    Raises:
        InputError: the file cannot be read, or its compression is damaged.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as handle:
            yield from handle
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); give a whole, readable file"
        ) from error
