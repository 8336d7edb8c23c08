"""The demo: the application on this machine's loopback, asked over HTTP in sixteen languages."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve import Application
from rich.console import Console
from rich.table import Table

from bioelx_ray.errors import BioelxError
from deployments.app import ServeConfig, build

SENTENCES = Path(__file__).parent / "sentences.json"
HOST = "127.0.0.1"
APPLICATION = "bioelx"
TABLE_WIDTH = 120


def run_demo() -> int:
    """Serve the demo's index, link the example sentences and print what came back.

    The index is built first where it is missing; `bioelx demo` has done so by now, with a progress
    bar. Everything that was started is stopped again, on an error and on Ctrl-C too.

    Returns:
        An exit code: 0, 1 where a sentence got no answer, 130 after Ctrl-C.
    """
    progress = Console(stderr=True)
    try:
        # Ray prints now and then, and results alone belong on stdout
        with redirect_stdout(sys.stderr), serving(build(ServeConfig()), progress) as url:
            asked = documents()
            progress.print(f"linking {len(asked)} sentences at {url}/v1/link")
            answer = link(url, asked)
    except KeyboardInterrupt:
        progress.print("stopped")
        return 130
    return report(asked, answer)


@contextlib.contextmanager
def serving(application: Application, progress: Console) -> Iterator[str]:
    """The application on a Ray of its own and a free loopback port; yields its URL."""
    port = free_port()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        progress.print("starting Ray on this machine (about 15 s) ...")
        start_ray()
        start_proxy(port)
        progress.print("starting gateway and retriever ...")
        start_application(application)
        url = f"http://{HOST}:{port}"
        wait_until_ready(url)
        yield url
    finally:
        progress.print("stopping Serve and Ray ...")
        if ray.is_initialized():  # or Serve would start a Ray, to stop its applications there
            with contextlib.suppress(Exception):  # it may be half started; Ray's end ends it too
                serve.shutdown()
        ray.shutdown()


def start_proxy(port: int) -> None:
    """Serve's HTTP proxy; on busy cores it takes longer than the minute that Serve waits for it."""
    with contextlib.suppress(TimeoutError):  # it goes on starting; `wait_until_ready` waits longer
        serve.start(http_options={"host": HOST, "port": port})


def wait_until_ready(url: str, *, seconds: float = 180) -> None:
    """Wait for the application to say that it is ready.

    Raises:
        BioelxError: it has not within so many seconds.
    """
    end = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
            time.sleep(0.2)
    raise BioelxError(
        f"the application at {url} is not ready after {seconds:.0f} s: free this machine's "
        "processors for it, and start it again"
    )


def start_application(application: Application) -> None:
    """Run the application at ``/``.

    Raises:
        BioelxError: a deployment does not start; with Serve's reason.
    """
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        deployments = serve.status().applications[APPLICATION].deployments
        reasons = [f"{name}: {found.message}" for name, found in deployments.items()]
        raise BioelxError("the application does not start: " + "; ".join(reasons)) from error


def start_ray() -> None:
    """A Ray of our own that only this machine reaches, whatever the environment says."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Serve ends a proxy that takes 5 s to start, which on busy cores it does
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    with ctrl_c_waits():
        ray.init(
            address="local",
            _node_ip_address=HOST,
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: a half-started Ray leaves processes, or crashes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda _number, _frame: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def documents(path: Path = SENTENCES) -> list[dict[str, Any]]:
    """The example sentences as documents of a request, ``[[mention]]`` read as offsets."""
    return [
        _document(f"s{i}", row["text"], row["lang"])
        for i, row in enumerate(json.loads(path.read_bytes()))
    ]


def _document(name: str, marked: str, lang: str) -> dict[str, Any]:
    left, _, rest = marked.partition("[[")
    mention, _, right = rest.partition("]]")
    span = {"start": len(left), "end": len(left) + len(mention)}
    return {"id": name, "text": left + mention + right, "lang": lang, "mentions": [span]}


def link(url: str, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Post the documents; the answer as it came.

    Raises:
        httpx.HTTPStatusError: the application answered with a problem.
    """
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        body = {"documents": asked, "top_k": 1, "timeout_ms": 30_000}
        answer: dict[str, Any] = client.post("/v1/link", json=body).raise_for_status().json()
    return answer


def report(asked: list[dict[str, Any]], answer: dict[str, Any]) -> int:
    """Print a row a sentence; 0 if each has a concept, else 1."""
    table = Table(title="linked over HTTP")
    for name in ("mention", "lang", "concept", "name", "score", "matched alias"):
        table.add_column(name, overflow="fold", justify="right" if name == "score" else "left")
    rows = [_row(found) for found in answer["documents"]]
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table, markup=False)
    linked = sum(bool(row[2]) for row in rows)
    summary = f"{linked} of {len(asked)} sentences linked in {answer['timings_ms']['total']:.0f} ms"
    Console().print(summary, markup=False)
    return 0 if linked == len(asked) else 1


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    mentions = found.get("mentions") or []
    if not mentions or mentions[0]["nil"]:
        text = mentions[0]["text"] if mentions else ""
        return (text, found["lang"], "", "", "", "")
    best = mentions[0]["candidates"][0]
    alias = f"{best['matched_alias']} ({best['matched_lang']})"
    score = f"{best['score']:.3f}"
    return (mentions[0]["text"], found["lang"], best["id"], best["name"], score, alias)
