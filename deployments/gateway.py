"""The gateway: routes in, problems out. The second stage runs here while it only passes through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from bioelx_ray.artifacts import code_version
from bioelx_ray.config import RankingConfig
from bioelx_ray.ranking.ranker import PassThroughRanker
from bioelx_ray.records import Mention
from bioelx_ray.tables import to_table
from deployments.client import RetrieverClient
from deployments.linking import Document, read_documents, write_documents
from deployments.problems import (
    PROBLEM_RESPONSE,
    Problem,
    install,
    json_response,
    request_id,
)
from deployments.retriever import Query
from deployments.route import Route
from deployments.schemas import (
    ConceptOut,
    InfoOut,
    LinkRequest,
    LinkResponse,
    cross_errors,
    limits,
)

STATIC = Path(__file__).parent / "static"
SENTENCES = Path(__file__).parent / "sentences.json"
PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class Page(StaticFiles):
    """The page's files, under a strict content policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See `StaticFiles.get_response`."""
        response = await super().get_response(path, scope)
        response.headers["content-security-policy"] = PAGE_POLICY
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        response.headers["cache-control"] = "no-cache"
        return response


def make_api(client: RetrieverClient, ranking: RankingConfig) -> FastAPI:
    """The routes over a retriever."""
    api = FastAPI(
        title="bioelx_ray",
        version=code_version(),
        docs_url=None,  # these two pages load scripts from elsewhere
        redoc_url=None,
        responses=PROBLEM_RESPONSE,
    )
    api.router.route_class = Route
    install(api)
    _add_link(api, client, ranking)
    _add_lookups(api, client)
    _add_health(api, client)
    _add_page(api)
    return api


def _add_link(api: FastAPI, client: RetrieverClient, ranking: RankingConfig) -> None:
    @api.post("/v1/link", response_model=LinkResponse)
    async def link(body: LinkRequest, request: Request) -> Response:
        """Link the marked mentions of documents to concepts."""
        answer = await _link(body, client, ranking)
        return json_response({"request_id": request_id(request), **answer})


async def _link(
    body: LinkRequest, client: RetrieverClient, ranking: RankingConfig
) -> dict[str, Any]:
    start = time.perf_counter()
    deadline = time.time() + body.timeout_ms / 1000
    if errors := cross_errors(body):
        raise Problem(422, "the request cannot be answered as it stands", errors=errors)
    if body.rank == "always":
        raise Problem(503, "no ranker is deployed: ask with rank auto or never", retry=True)
    documents = read_documents(body)
    found = await client.retrieve(_query(body, documents, deadline))
    threshold = ranking.nil_threshold if body.nil_threshold is None else body.nil_threshold
    ranker = PassThroughRanker(RankingConfig(nil_threshold=threshold))
    links = ranker.rank(_mentions(documents), found.per_mention())
    written = write_documents(documents, links, found.by_id(), explain=body.explain)
    spent = {"retrieval": found.seconds, "total": time.perf_counter() - start}
    return {
        "documents": written,
        "degraded": [],
        "offset_unit": "code_point",
        "model": found.model.model_dump(),
        "timings_ms": {stage: round(seconds * 1000, 2) for stage, seconds in spent.items()},
    }


def _mentions(documents: list[Document]) -> list[Mention]:
    return [mention for document in documents for mention in document.mentions]


def _query(body: LinkRequest, documents: list[Document], deadline: float) -> Query:
    return Query(
        mentions=to_table(_mentions(documents), Mention),
        k=body.top_k,
        deadline=deadline,
        vocabularies=body.kb,
        types=body.types,
    )


def _add_lookups(api: FastAPI, client: RetrieverClient) -> None:
    @api.get("/v1/concepts/{curie:path}", response_model=ConceptOut)
    async def concept(curie: str) -> Response:
        """A concept of the knowledge base."""
        found = await client.concept(curie)
        if found is None:
            raise Problem(404, "the knowledge base has no concept of this id")
        out = ConceptOut(
            id=found.id,
            name=found.name,
            semantic_types=list(found.semantic_types),
            definition=found.definition,
            xrefs=list(found.xrefs),
        )
        return json_response(out.model_dump())

    @api.get("/v1/info", response_model=InfoOut)
    async def info() -> Response:
        """Versions, what the filters may name, and the limits."""
        known = await client.describe()
        out = InfoOut(version=code_version(), ranker=None, limits=limits(), **known)
        return json_response(out.model_dump())


def _add_health(api: FastAPI, client: RetrieverClient) -> None:
    @api.get("/healthz")
    async def healthz() -> Response:
        """The gateway lives."""
        return json_response({"status": "ok"})

    @api.get("/readyz")
    async def readyz() -> Response:
        """The retriever answers a query with a known answer."""
        if not await client.ready():
            raise Problem(503, "the retriever does not answer", retry=True)
        return json_response({"status": "ready"})


def _add_page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("ui/")

    @api.get("/ui/sentences.json", include_in_schema=False)
    async def sentences() -> Response:
        return json_response(orjson.loads(SENTENCES.read_bytes()))

    api.mount("/ui", Page(directory=STATIC, html=True))


@serve.ingress()
class Gateway:
    """The ingress. It builds its routes in the replica, around the handle that Serve gives it."""

    def __init__(self, retriever: DeploymentHandle, ranking: RankingConfig) -> None:
        self._client = RetrieverClient(retriever)
        self._ranking = ranking

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once `__init__` is done."""
        return make_api(self._client, self._ranking)
