"""The application on a real Serve, over HTTP."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve
from rich.console import Console

from deployments.app import ServeConfig, join
from deployments.demo import serving
from tests.serving import (
    BAD,
    CANARY,
    JSON,
    Broken,
    assert_problem,
    document,
    request,
    small_stage,
)

pytestmark = pytest.mark.integration

SLOW_S = 0.5


class Slow(Broken):
    def retrieve(self, mentions, *, k, where=None):
        time.sleep(SLOW_S)
        return super().retrieve(mentions, k=k, where=where)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with serving(join(ServeConfig(), small_stage()), Console(stderr=True)) as address:
            yield address


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as made:
        yield made


@pytest.fixture(scope="module")
def slow(client):
    """The path of a second application, whose retriever is slow and has a short queue."""
    app = join(ServeConfig(queue=2), small_stage(Slow))
    serve.run(app, name="slow", route_prefix="/slow")
    return "/slow/v1/link"


def test_a_mention_is_linked(client):
    assert client.get("/readyz").json() == {"status": "ready"}
    answer = client.post("/v1/link", json=request(document("😀 asthma")))
    assert answer.status_code == 200
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    (mention,) = body["documents"][0]["mentions"]
    assert (mention["start"], mention["text"]) == (2, "asthma")
    assert mention["candidates"][0]["id"] == "hp:0002099"
    assert client.get("/v1/concepts/hp:0002099").json()["name"] == "Asthma"
    assert client.get("/v1/info").json()["vocabularies"] == ["hp", "umls"]


def test_the_page_is_there(client):
    answer = client.get("/ui", follow_redirects=True)
    assert answer.url.path == "/ui/"
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_problems_without_their_text(client, name):
    sent, status, pointers = BAD[name]
    assert_problem(client.post("/v1/link", **sent), status, pointers)


def test_a_chunked_body_is_counted(client):
    chunks = (CANARY.encode() * 5000 for _ in range(60))
    assert_problem(client.post("/v1/link", content=chunks, headers=JSON), 413)
    assert client.get("/healthz").status_code == 200


def test_garbage_is_the_client_s_error(client):
    for size in (1, 7, 1000, 100_000):
        answer = client.post("/v1/link", content=os.urandom(size), headers=JSON)
        assert answer.status_code in {400, 422}


def test_a_deadline_is_kept(client, slow):
    start = time.monotonic()
    assert_problem(client.post(slow, json=request(timeout_ms=100)), 504)
    assert time.monotonic() - start < SLOW_S


def test_more_than_the_queue_holds_is_refused_and_the_rest_answered(client, slow):
    def post(_):
        return client.post(slow, json=request(timeout_ms=30_000))

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(post, range(24)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 24
    for answer in refused:
        assert_problem(answer, 429)


def test_a_killed_retriever_comes_back_and_until_then_its_requests_are_not_lost(client, slow):
    names = ray.util.list_named_actors(all_namespaces=True)
    (replica,) = [actor for actor in names if "slow#retriever" in actor["name"]]
    ray.kill(ray.get_actor(replica["name"], namespace=replica["namespace"]))
    first = client.post(slow, json=request(timeout_ms=30_000))
    if first.status_code != 200:
        assert_problem(first, 503)
    deadline = time.monotonic() + 30
    while client.post(slow, json=request()).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_no_text_is_logged(client):
    """Last: everything above has been logged by now, and one error of ours is added."""
    broken = document(f"broken {CANARY} asthma", mentions=[{"start": 0, "end": 27}])
    assert_problem(client.post("/v1/link", json=request(broken)), 500)
    time.sleep(1)
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    text = "".join(p.read_text(errors="replace") for p in logs.rglob("*") if p.is_file())
    assert re.search(r"retrieval failed: RuntimeError at \S*serving\.py", text)
    assert CANARY not in text
