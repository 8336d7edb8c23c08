"""The command `bioelx`. Results go to stdout, progress and errors to stderr.

The commands import what they need: torch and FAISS take seconds, `bioelx --help` should not.
"""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from bioelx_ray.cli.evaluate import audit, evaluate
from bioelx_ray.cli.kb import apply, diff, harvest, holdout, pairs, show
from bioelx_ray.cli.link import demo, index, link
from bioelx_ray.cli.sources import sources_app
from bioelx_ray.console import messages
from bioelx_ray.errors import BioelxError

app = typer.Typer(
    help="Link mentions of biomedical concepts, in any language, to a knowledge base.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(sources_app, name="sources")
for command in (harvest, show, diff, apply, holdout, pairs, index, link, evaluate, audit, demo):
    app.command(command.__name__)(command)


def main() -> None:
    """Entry point: errors of ours and of the file system end in one line and exit code 2."""
    try:
        app()
    except (BioelxError, OSError) as error:
        messages.print("[bold red]error[/]:", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2)
