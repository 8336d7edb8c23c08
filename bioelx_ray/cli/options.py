"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bioelx_ray.config import RetrieverName
from bioelx_ray.errors import ConfigError

Config = Annotated[Path | None, typer.Option("--config", help="Settings in YAML.")]
Out = Annotated[Path, typer.Option("--out", resolve_path=True, help="The directory to publish.")]


def retriever_name(name: str) -> RetrieverName:
    """The retriever of a name given on the command line.

    Raises:
        ConfigError: there is none.
    """
    names: dict[str, RetrieverName] = {"dense": "dense", "lexical": "lexical", "hybrid": "hybrid"}
    if name not in names:
        raise ConfigError(f"no retriever {name!r}; there are: {', '.join(names)}")
    return names[name]
