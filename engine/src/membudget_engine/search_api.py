"""The search API over HTTP, for agents and probes.

Covers: routes, limits on bodies and waiting queries, typed errors as problem+json. Does not cover what a query does
(`search`) nor starting the server (`lifecycle`). Queries run in worker threads: the loop only moves bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

import msgspec
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract import metric_names
from membudget_contract.control_api import Problem
from membudget_engine.errors import CollectionMissing, EngineError, QueryInvalid
from membudget_engine.search import Answer, Search
from membudget_engine.settings import MAX_BODY_BYTES, WAITING_QUERIES, query_workers

DEFAULT_HITS: Final = 5


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/search."""

    collection: str
    query: str
    hits: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_HITS


class CollectionView(msgspec.Struct, frozen=True):
    """One line of GET /v1/collections."""

    name: str
    generation: int
    count: int
    dimension: int
    index_type: str
    embedder: str


class _Refused(Exception):
    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail


class SearchApi:
    """The engine's HTTP side. `registry` holds what /metrics shows."""

    def __init__(self, search: Search, registry: CollectorRegistry) -> None:
        self._search = search
        self._registry = registry
        self._pool = ThreadPoolExecutor(max_workers=query_workers(), thread_name_prefix="query")
        self._in_work = 0
        duration = metric_names.ENGINE_QUERY_SECONDS
        self._duration = Histogram(duration.name, duration.help, registry=registry)
        self.application = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/readyz", self._health),
                Route("/metrics", self._metrics),
                Route("/v1/collections", self._collections),
                Route("/v1/search", self._answered(self._post_search), methods=["POST"]),
                Route("/v1/chunks/{collection}/{chunk}", self._answered(self._get_chunk)),
            ]
        )

    def close(self) -> None:
        """Wait for queries in work; those waiting are cancelled."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _health(self, _request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _collections(self, _request: Request) -> Response:
        views = [
            CollectionView(name, m.generation, m.count, m.dimension, m.index_type, m.embedder)
            for name, m in ((name, opened.manifest) for name, opened in self._search.collections.items())
        ]
        return _json(200, msgspec.json.encode(views))

    async def _post_search(self, request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=SearchRequest)
        with self._duration.time():
            answer = await self._in_worker(lambda: self._search.answer(asked.collection, asked.query, asked.hits))
        return _json(200, msgspec.json.encode(answer))

    async def _get_chunk(self, request: Request) -> Response:
        collection, wanted = request.path_params["collection"], request.path_params["chunk"]
        chunk = await self._in_worker(lambda: self._search.collection(collection).chunks.get_by_id(wanted))
        if chunk is None:
            raise _Refused(404, "ChunkMissing", f"no chunk {wanted!r} in {collection!r}")
        return _json(200, msgspec.json.encode(chunk))

    async def _in_worker(self, work: Callable[[], Answer | object]) -> object:
        if self._in_work >= WAITING_QUERIES:
            raise _Refused(503, "Busy", f"{WAITING_QUERIES} queries are in work; try again in a moment")
        self._in_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._in_work -= 1

    def _answered(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint with its typed errors as problem+json."""

        async def answered(request: Request) -> Response:
            try:
                return await endpoint(request)
            except _Refused as refused:
                return _problem(refused.status, refused.reason, refused.detail)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                return _problem(400, "Invalid", f"the body is no search request: {error}")
            except QueryInvalid as error:
                return _problem(400, "QueryInvalid", str(error))
            except CollectionMissing as error:
                return _problem(404, "CollectionMissing", str(error))
            except EngineError as error:
                return _problem(503, type(error).__name__, str(error))

        return answered


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(413, "TooLarge", f"a body has at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")


def _problem(status: int, reason: str, detail: str) -> Response:
    problem = Problem(title="Search request refused", status=status, reason=reason, detail=detail)
    headers = {"Retry-After": "1"} if status == 503 else None  # noqa: PLR2004
    return Response(msgspec.json.encode(problem), status, headers, media_type="application/problem+json")
