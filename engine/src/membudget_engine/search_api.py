"""The search API over HTTP, for agents and probes.

Covers: routes, limits on bodies and waiting queries, typed errors as problem+json. Does not cover what a query does
(`search`) nor starting and stopping the server (`lifecycle`). Queries run in worker threads: the loop only moves
bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Annotated, Final, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract import metric_names
from membudget_contract.control_api import Problem
from membudget_engine.errors import CollectionMissing, EngineError, QueryInvalid
from membudget_engine.search import Search
from membudget_engine.settings import MAX_BODY_BYTES, WAITING_QUERIES, query_workers

DEFAULT_HITS: Final = 5

QUERY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Buckets: a cached answer takes under half a millisecond, a query on a cold index up to seconds."""

_Result = TypeVar("_Result")


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

    def __init__(self, search: Search, registry: CollectorRegistry, observe: Callable[[float], None]) -> None:
        """`observe` hears how long each query took, its wait for a worker too."""
        self._search = search
        self._observe = observe
        self._registry = registry
        self._pool = ThreadPoolExecutor(max_workers=query_workers(), thread_name_prefix="query")
        self._in_work = 0
        self._stopping = False
        duration = metric_names.ENGINE_QUERY_SECONDS
        self._duration = Histogram(duration.name, duration.help, buckets=QUERY_SECONDS, registry=registry)
        self.application = Starlette(
            routes=[
                Route("/healthz", _alive),
                Route("/readyz", _typed(self._ready)),
                Route("/metrics", self._metrics),
                Route("/v1/collections", self._collections),
                Route("/v1/search", _typed(self._post_search), methods=["POST"]),
                Route("/v1/chunks/{collection}/{chunk}", _typed(self._get_chunk)),
            ],
            exception_handlers={HTTPException: _unrouted},
        )

    def stop_taking(self) -> None:
        """From now on the engine is not ready and refuses queries; those that had begun are answered."""
        self._stopping = True

    def close(self) -> None:
        """Wait for queries in work; those waiting are cancelled."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _ready(self, _request: Request) -> Response:
        self._refuse_while_stopping()
        return Response("ready\n", media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _collections(self, _request: Request) -> Response:
        views = [
            CollectionView(name, m.generation, m.count, m.dimension, m.index_type, m.embedder)
            for name, m in ((name, opened.manifest) for name, opened in self._search.catalog.collections.items())
        ]
        return _json(msgspec.json.encode(views))

    async def _post_search(self, request: Request) -> Response:
        self._refuse_while_stopping()
        asked = _search_request(await _body(request))
        started = time.perf_counter()
        try:
            answer = await self._in_worker(lambda: self._search.answer(asked.collection, asked.query, asked.hits))
        finally:
            took = time.perf_counter() - started
            self._duration.observe(took)
            self._observe(took)
        return _json(msgspec.json.encode(answer))

    async def _get_chunk(self, request: Request) -> Response:
        self._refuse_while_stopping()
        collection, wanted = request.path_params["collection"], request.path_params["chunk"]
        chunk = await self._in_worker(lambda: self._search.chunk(collection, wanted))
        if chunk is None:
            raise _Refused(404, "ChunkMissing", f"no chunk {wanted!r} in {collection!r}")
        return _json(msgspec.json.encode(chunk))

    async def _in_worker(self, work: Callable[[], _Result]) -> _Result:
        if self._in_work >= WAITING_QUERIES:
            raise _Refused(503, "Busy", f"{WAITING_QUERIES} queries are in work; try again in a moment")
        self._in_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._in_work -= 1

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise _Refused(503, "Stopping", "this engine is stopping; ask another one")


_Endpoint = Callable[[Request], Awaitable[Response]]


def _typed(endpoint: _Endpoint) -> _Endpoint:
    """The endpoint with its typed errors as problem+json."""

    async def typed(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Refused as refused:
            return _problem(refused.status, refused.reason, refused.detail)
        except QueryInvalid as error:
            return _problem(400, "QueryInvalid", str(error))
        except CollectionMissing as error:
            return _problem(404, "CollectionMissing", str(error))
        except EngineError as error:
            return _problem(503, type(error).__name__, str(error))
        except ClientDisconnect:
            # Nobody reads this; raised further it would be logged as an error of ours.
            return _problem(400, "Disconnected", "the body ended early")

    return typed


async def _alive(_request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def _unrouted(_request: Request, error: Exception) -> Response:
    """No such path or method."""
    assert isinstance(error, HTTPException)
    reason = HTTPStatus(error.status_code).phrase.title().replace(" ", "")
    return _problem(error.status_code, reason, error.detail, error.headers)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(413, "TooLarge", f"a body has at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _search_request(body: bytes) -> SearchRequest:
    try:
        return msgspec.json.decode(body, type=SearchRequest)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise _Refused(400, "Invalid", f"the body is no search request: {error}") from None


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    problem = Problem(title="Search request refused", status=status, reason=reason, detail=detail)
    retriable = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(
        msgspec.json.encode(problem), status, {**retriable, **(headers or {})}, media_type="application/problem+json"
    )
