"""What every job does first and last: join Ray, find its paths, end with a line of figures."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
import typer

from bioelx_ray.errors import BioelxError, ConfigError

_log = logging.getLogger("bioelx_ray.jobs")


@contextlib.contextmanager
def session(name: str) -> Iterator[None]:
    """Join the cluster that the job was submitted to, or start Ray on this machine for the block.

    Errors raised on purpose end the process with one line and exit code 2.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    begun = time.monotonic()
    try:
        # Unset, a file in the user's home would switch authentication on.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(log_to_driver=True)
        yield
        _log.info("%s took %.1f s", name, time.monotonic() - begun)
    except (BioelxError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    finally:
        ray.shutdown()


def shared(path: Path) -> Path:
    """A path that means the same on every node.

    Raises:
        ConfigError: it is relative, and this is a submitted job: its working directory is a copy
            that Ray throws away, so what is written there is lost.
    """
    if not path.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ConfigError(
            f"{path} is relative: a submitted job runs in a copy of your directory, which is "
            "thrown away; give an absolute path on a volume that all nodes mount"
        )
    return path.absolute()


def run(main: Callable[..., None]) -> None:
    """The job's function as a command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
