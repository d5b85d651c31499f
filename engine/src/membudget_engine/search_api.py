"""The search API over HTTP, for agents and probes.

Covers: routes, and a limit on waiting queries. Does not cover what a query does (`search`), bodies and errors
(`http_answers`), nor starting and stopping the server (`lifecycle`). The loop moves bytes and gives answers that memory
has; whatever reads a file or compares vectors runs in worker threads, what the caches know in one of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract import metric_names
from membudget_engine.catalog import anonymous_bytes
from membudget_engine.collection import Collection
from membudget_engine.http_answers import Refused, failed, json, message, unrouted
from membudget_engine.http_document import PATH, document
from membudget_engine.http_operations import COLLECTION, TEXT, Operation, routes
from membudget_engine.index.manifest import Reduced
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.search import Answer, AnsweredBy, Hit, Search
from membudget_engine.settings import WAITING_QUERIES, query_workers
from membudget_engine.write_problems import Problem

DEFAULT_HITS: Final = 5

QUERY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Buckets: a cached answer takes under half a millisecond, a query on a cold index up to seconds."""

_Result = TypeVar("_Result")


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/search."""

    collection: str
    query: str = ""
    vector: list[float] | None = None
    """In place of a query: for collections whose vectors were given, and for whoever embeds on his own."""
    hits: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_HITS


class SearchAnswer(msgspec.Struct, frozen=True):
    """The answer, as it is read: hits are best first."""

    collection: str
    answered_by: AnsweredBy
    hits: tuple[Hit, ...]


class CollectionView(msgspec.Struct, frozen=True):
    """One line of GET /v1/collections."""

    name: str
    generation: int
    count: int
    dimension: int
    index_type: str
    embedder: str
    representation: str
    recall: float | None
    """Of the true ten neighbours, as measured when it was built; null for an index that finds them all."""
    index_bytes: int
    """On disk, of what a query reads."""
    memory_bytes: int
    """Anonymous memory that is this collection's alone: codes, a loaded index, what was written, dead rows."""
    reduction: Reduced | None
    """How vectors came to have fewer places than the embedder gives them, and what it cost; null where they did not."""
    problems: tuple[Problem, ...]
    """Why writes to it are refused, or will be; none where nothing is wrong, and in an engine that only reads."""


class SearchApi:
    """The engine's HTTP side. `registry` holds what /metrics shows."""

    def __init__(self, search: Search, registry: CollectorRegistry, observe: Callable[[float], None]) -> None:
        """`observe` hears how long each query took, its wait for a worker too."""
        self._search = search
        self._observe = observe
        self._registry = registry
        served = search.catalog.collections.values()
        compact = any(one.manifest.representation == "Compact" for one in served)
        workers = query_workers(waiting_for_rows=compact)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="query")
        self._recall = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recall")
        """For what the caches know: it takes a tenth of a search, and waits behind none."""
        self._in_work = 0
        self._stopping = False
        duration = metric_names.ENGINE_QUERY_SECONDS
        self._duration = Histogram(duration.name, duration.help, buckets=QUERY_SECONDS, registry=registry)
        self.application = Starlette(exception_handlers={HTTPException: unrouted, Exception: failed})
        self.operations: tuple[Operation, ...] = ()
        self.add(self._own_operations())

    def add(self, operations: Iterable[Operation]) -> None:
        """Serve these as well, and what the document says of them."""
        self.operations = (*self.operations, *operations)
        self.application.router.routes[:] = [Route(PATH, self._document), *routes(self.operations)]

    def _own_operations(self) -> Iterator[Operation]:
        yield Operation("GET", "/healthz", _alive, "whether the process answers", TEXT)
        yield Operation("GET", "/readyz", self._ready, "whether it takes queries", TEXT, refusals=(503,))
        yield Operation("GET", "/metrics", self._metrics, "for Prometheus", TEXT)
        yield Operation(
            "GET", "/v1/collections", self._collections, "what is served", list[CollectionView], refusals=(503,)
        )
        yield Operation(
            "POST",
            "/v1/search",
            self._post_search,
            "the chunks nearest to a text or a vector",
            SearchAnswer,
            takes=SearchRequest,
            refusals=(400, 404, 413, 429, 502, 503),
        )
        yield Operation(
            "GET",
            "/v1/chunks/{collection}/{chunk}",
            self._get_chunk,
            "one chunk",
            Chunk,
            refusals=(404, 503),
            names={"collection": COLLECTION},
        )

    def stop_taking(self) -> None:
        """From now on the engine is not ready and refuses queries; those that had begun are answered."""
        self._stopping = True

    def close(self) -> None:
        """Wait for queries in work; those waiting are cancelled."""
        for pool in (self._recall, self._pool):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _document(self, _request: Request) -> Response:
        return json(msgspec.json.encode(document(self.operations)))

    async def _ready(self, _request: Request) -> Response:
        self.refuse_while_stopping()
        return Response("ready\n", media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _collections(self, _request: Request) -> Response:
        catalog = self._search.catalog
        views = [_view(name, opened, catalog.problems.of(name)) for name, opened in catalog.collections.items()]
        return json(msgspec.json.encode(views))

    async def _post_search(self, request: Request) -> Response:
        self.refuse_while_stopping()
        asked = await message(request, SearchRequest, "search request")
        started = time.perf_counter()
        try:
            answer = await self._answer(asked)
        finally:
            took = time.perf_counter() - started
            self._duration.observe(took)
            self._observe(took)
        return json(msgspec.json.encode(answer))

    async def _answer(self, asked: SearchRequest) -> Answer:
        search, vector = self._search, asked.vector
        if vector is not None:
            return await self.in_worker(lambda: search.nearest(asked.collection, vector, asked.hits))
        # Here: to change threads and back takes longer than a known answer does.
        known = search.known(asked.collection, asked.query, asked.hits)
        if isinstance(known, Answer):
            return known
        recalled = await self.in_worker(lambda: search.recalled(known), self._recall) if known.found else None
        return recalled or await self.in_worker(lambda: search.found(known))

    async def _get_chunk(self, request: Request) -> Response:
        self.refuse_while_stopping()
        collection, wanted = request.path_params["collection"], request.path_params["chunk"]
        body = await self.in_worker(lambda: self._search.chunk_body(collection, wanted))
        if body is None:
            raise Refused(404, "ChunkMissing", f"no chunk {wanted!r} in {collection!r}")
        return json(body)

    async def in_worker(self, work: Callable[[], _Result], pool: ThreadPoolExecutor | None = None) -> _Result:
        """The result of work in a thread, of the query workers or this pool. Raises Refused when too much waits."""
        if self._in_work >= WAITING_QUERIES:
            raise Refused(503, "Busy", f"{WAITING_QUERIES} queries are in work; try again in a moment")
        self._in_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool or self._pool, work)
        finally:
            self._in_work -= 1

    def refuse_while_stopping(self) -> None:
        """Raises Refused from `stop_taking` on."""
        if self._stopping:
            raise Refused(503, "Stopping", "this engine is stopping; ask another one")


def _view(name: str, opened: Collection, problems: tuple[Problem, ...]) -> CollectionView:
    manifest = opened.manifest
    return CollectionView(
        name=name,
        generation=manifest.generation,
        count=opened.count,
        dimension=manifest.dimension,
        index_type=manifest.index_type,
        embedder=manifest.embedder,
        representation=manifest.representation,
        recall=manifest.recall,
        index_bytes=manifest.index_bytes,
        memory_bytes=anonymous_bytes([opened]),
        reduction=manifest.reduction,
        problems=problems,
    )


async def _alive(_request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")
