"""What the tests of the deployments share: stage 1 over a small index, and bad requests."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import httpx
from ray import serve

from bioelx_ray.config import RankingConfig, RetrievalConfig
from bioelx_ray.testing import small_index
from deployments.client import RetrieverClient
from deployments.gateway import make_api
from deployments.retriever import RetrieverDeployment
from deployments.stage import Stage, open_stage

CANARY = "Zebrafinkenkrankheit"
JSON = {"content-type": "application/json"}


class Broken:
    """Passes on to a retriever, but fails at a mention of `broken`, text in its message."""

    def __init__(self, inner):
        self._inner = inner

    def retrieve(self, mentions, *, k, where=None):
        for mention in mentions:
            if "broken" in mention.text:
                raise RuntimeError(f"cannot read {mention.text}")
        return self._inner.retrieve(mentions, k=k, where=where)


@cache
def artifacts() -> Path:
    """A directory with the index of the small knowledge base, built once a process."""
    directory = Path(tempfile.mkdtemp(prefix="bioelx-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    small_index(directory)
    return directory


def open_small(directory: Path, wrap=Broken) -> Stage:
    stage = open_stage(
        directory / "index",
        directory / "kb",
        encoder=None,
        retrieval=RetrievalConfig(retriever="lexical"),
    )
    return replace(stage, retriever=wrap(stage.retriever))


def small_stage(wrap=Broken):
    """What opens stage 1 over the small index in a replica."""
    return partial(open_small, artifacts(), wrap)


def local_api(wrap=Broken, *, ranking=None):
    """The gateway's routes over the retriever's deployment, both in this process."""
    target = serve.deployment(RetrieverDeployment).bind(small_stage(wrap))
    handle = serve.run(target, name="local", _local_testing_mode=True)
    return make_api(RetrieverClient(handle), ranking or RankingConfig())


def ask(api, method, path, **options):
    async def send():
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def document(text=f"{CANARY} and asthma", *, name="d1", **changes):
    start = text.index("asthma") if "asthma" in text else 0
    span = {"start": start, "end": start + len("asthma")}
    return {"id": name, "text": text, "mentions": [span], **changes}


def request(*documents, **changes):
    return {"documents": list(documents) or [document()], **changes}


def _body(value) -> dict:
    return {"content": json.dumps(value).encode(), "headers": JSON}


# what is wrong -> (how it is sent, status, pointers)
BAD = {
    "broken JSON": ({"content": f'{{"documents": "{CANARY}'.encode(), "headers": JSON}, 400, []),
    "empty body": ({"content": b"", "headers": JSON}, 400, []),
    "not UTF-8": ({"content": b'{"a": "\xff' + CANARY.encode(), "headers": JSON}, 400, []),
    "endless nesting": ({"content": b"[" * 100_000, "headers": JSON}, 400, []),
    "endless number": ({"content": b"[" + b"1" * 5000 + b"]", "headers": JSON}, 400, []),
    "plain text": ({"content": CANARY, "headers": {"content-type": "text/plain"}}, 415, []),
    "compressed": ({"content": b"x", "headers": {**JSON, "content-encoding": "gzip"}}, 415, []),
    "an array": (_body([CANARY]), 422, [""]),
    "null": (_body(None), 400, []),
    "no documents": (_body({}), 422, ["/documents"]),
    "unknown key": (_body(request(treshold=CANARY)), 422, ["/treshold"]),
    "text as a key": (_body(request(document(**{f"{CANARY} ~/": 1}))), 422, ["/documents/0"]),
    "number as text": (_body(request(document(id=7))), 422, ["/documents/0/id"]),
    "text as a number": (_body(request(top_k=CANARY)), 422, ["/top_k"]),
    "bool as an offset": (
        _body(request(document(mentions=[{"start": True, "end": 1.5}]))),
        422,
        ["/documents/0/mentions/0/start", "/documents/0/mentions/0/end"],
    ),
    "not a number": (_body(request(nil_threshold=float("nan"))), 422, ["/nil_threshold"]),
    "out of range": (_body(request(top_k=65, timeout_ms=0)), 422, ["/top_k", "/timeout_ms"]),
    "no such rank": (_body(request(rank=CANARY)), 422, ["/rank"]),
    "no language": (_body(request(document(lang=f"{CANARY}_x"))), 422, ["/documents/0/lang"]),
    "surrogate in an id": (_body(request(document(id="\ud83d"))), 422, ["/documents/0/id"]),
    "same id twice": (_body(request(document(), document())), 422, ["/documents/1/id"]),
    "65 documents": (
        _body(request(*(document(name=str(i)) for i in range(65)))),
        422,
        ["/documents"],
    ),
    "a long text": (_body(request(document(CANARY * 1001))), 422, ["/documents/0/text"]),
    "513 mentions": (
        _body(request(document(mentions=[{"start": 0, "end": 1}] * 513))),
        422,
        ["/documents/0/mentions"],
    ),
    "a huge answer": (
        _body(
            request(
                *(document(name=str(i), mentions=[{"start": 0, "end": 1}] * 512) for i in range(3)),
                top_k=64,
            )
        ),
        422,
        ["/top_k"],
    ),
    "unknown vocabulary": (_body(request(kb=["hp", CANARY])), 422, ["/kb/1"]),
    "unknown type": (_body(request(types=[CANARY])), 422, ["/types/0"]),
    "no ranker": (_body(request(rank="always")), 503, []),
    "too large": ({"content": b'"' + b"x" * 4 * 1024 * 1024, "headers": JSON}, 413, []),
}


def assert_problem(response, status, pointers=()):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert [error["pointer"] for error in body.get("errors", [])] == list(pointers)
    assert body["request_id"]
    assert CANARY not in response.text
    assert CANARY not in str(response.headers)
    if status in {429, 503}:
        assert int(response.headers["retry-after"]) > 0
