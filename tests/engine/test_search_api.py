"""The HTTP side of a real engine in a process of its own: every route, and every wrong thing a client can send."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from engine.asgi import ask_application
from engine.engine_process import EngineProcess, Reply, ask, search_body, status_bytes
from engine.page_cache import drop_from_page_cache
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.index.manifest import Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi, SearchRequest
from membudget_engine.settings import MAX_BODY_BYTES, MAX_HITS, WAITING_QUERIES, query_workers
from membudget_engine.stores.chunk_store import ChunkStore
from membudget_engine.stores.chunk_texts import TEXTS_FILE
from membudget_runtime.memory_runtime import MemoryRuntime

AGENTS = 20
QUERIES = 1_000
MB = 1024 * 1024
HEADER = b"POST /v1/search HTTP/1.1\r\nHost: engine\r\n"
KNOWN = b'{"collection": "small", "query": "open a stream reader"}'


def _problem(reply: Reply) -> tuple[int, str, str]:
    """Status by the line and by the body, and the reason."""
    problem = reply.json()
    assert reply.status == problem["status"]
    return reply.status, reply.content_type, problem["reason"]


def _raw(engine: EngineProcess, *parts: bytes) -> bytes:
    """What comes back for these bytes, until the other side has no more or closes."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5.0) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/collections"])
def test_every_route_without_a_body_answers(engine: EngineProcess, path: str) -> None:
    """R-E18: probes, metrics and the list of collections."""
    assert engine.ask("GET", path).status == 200


def test_collections_are_listed_with_what_they_were_made_of(engine: EngineProcess) -> None:
    """R-E18: collections."""
    (listed,) = engine.ask("GET", "/v1/collections").json()

    assert listed["count"] > 300
    assert listed["index_bytes"] > 384 * 4 * listed["count"]
    assert (listed | {"count": 0, "index_bytes": 0}) == {
        "name": "small",
        "generation": 1,
        "count": 0,
        "dimension": 384,
        "index_type": "Flat",
        "embedder": "hashing-384-v1",
        "representation": "Exact",
        "recall": None,
        "reduction": None,
        "index_bytes": 0,
        "memory_bytes": 0,
        "problems": [],
    }


def test_a_search_answers_with_sources_and_each_chunk_can_be_fetched(engine: EngineProcess) -> None:
    """R-E18: search, get."""
    answer = engine.search("JSONDecoder raw_decode document from string", hits=3).json()

    assert (answer["collection"], len(answer["hits"])) == ("small", 3)
    for hit in answer["hits"]:
        assert hit["chunk"]["source"]
        assert hit["chunk"] == engine.ask("GET", f"/v1/chunks/small/{hit['chunk']['id']}").json()


def test_an_answer_does_not_wait_for_the_clients_acknowledgement(engine: EngineProcess) -> None:
    """R-E18: on a socket without TCP_NODELAY each one would take 40 ms."""
    connection = engine.connect()
    seconds: list[float] = []
    for _ in range(21):
        started = time.perf_counter()
        assert ask(connection, "POST", "/v1/search", KNOWN).status == 200
        seconds.append(time.perf_counter() - started)
    connection.close()

    assert sorted(seconds)[10] < 0.02


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Invalid"),
        (b"\x00\xff\xfe garbage", "Invalid"),
        (b"[]", "Invalid"),
        (b'{"collection": "small"}', "QueryInvalid"),
        (b'{"collection": "small", "query": 5}', "Invalid"),
        (b'{"collection": "small", "query": "x", "colour": 1}', "Invalid"),
        (b'{"collection": "small", "query": NaN}', "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": NaN}', "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": 1e400}', "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": 2.5}', "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": 0}', "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": ' + b"9" * 10_000 + b"}", "Invalid"),
        (b'{"collection": "small", "query": "x", "hits": ' + str(MAX_HITS + 1).encode() + b"}", "QueryInvalid"),
        (b'{"collection": "small", "query": "\xff\xfe"}', "Invalid"),
        (b'{"collection": "small", "query": "\\ud800"}', "Invalid"),
        (b'\xef\xbb\xbf{"collection": "small", "query": "x"}', "Invalid"),
        (b'{"collection": "small", "query": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "Invalid"),
        (b'{"a": ' * 9_000 + b"1" + b"}" * 9_000, "Invalid"),
        (b'{"collection": "small", "query": "  "}', "QueryInvalid"),
        (search_body("x" * 4097), "QueryInvalid"),
    ],
)
def test_a_body_that_is_no_search_request_is_refused_with_a_reason(
    engine: EngineProcess, body: bytes, reason: str
) -> None:
    """R-E18: the client's mistake is a 400, and the next query is answered."""
    assert _problem(engine.ask("POST", "/v1/search", body)) == (400, "application/problem+json", reason)
    assert engine.ask("POST", "/v1/search", KNOWN).status == 200


def test_of_duplicate_keys_the_last_one_counts(engine: EngineProcess) -> None:
    """R-E18: one meaning, and no failure."""
    body = b'{"collection": "large", "query": "x", "collection": "small", "hits": 1, "hits": 2}'

    assert len(engine.ask("POST", "/v1/search", body).json()["hits"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (404, "NotFound")),
        ("GET", "/v1/search", (405, "MethodNotAllowed")),
        ("DELETE", "/v1/collections", (405, "MethodNotAllowed")),
        ("GET", "/v1/chunks/large/0123456789abcdef", (404, "CollectionMissing")),
        ("GET", "/v1/chunks/small/0123456789abcdef", (404, "ChunkMissing")),
        ("GET", "/v1/chunks/small/%00", (404, "ChunkMissing")),
        ("GET", "/v1/chunks/small/%ff%fe", (404, "ChunkMissing")),
        ("GET", "/v1/chunks/small/..", (404, "ChunkMissing")),
        ("GET", "/v1/chunks/small/%2e%2e%2f%2e%2e", (404, "NotFound")),
        ("GET", "/v1/chunks/small/x%27%20OR%201=1", (404, "ChunkMissing")),
    ],
)
def test_what_is_not_there_is_told_as_a_problem(
    engine: EngineProcess, method: str, path: str, expected: tuple[int, str]
) -> None:
    """R-E18: paths, methods, collections and chunks."""
    status, reason = expected

    assert _problem(engine.ask(method, path)) == (status, "application/problem+json", reason)


def test_an_unknown_collection_is_named_with_those_there_are(engine: EngineProcess) -> None:
    """R-E18: the answer says what to ask instead."""
    reply = engine.search("parse", collection="large")

    assert _problem(reply) == (404, "application/problem+json", "CollectionMissing")
    assert reply.json()["detail"] == "no collection 'large'; there are small"


def test_a_body_over_the_bound_is_refused_and_the_largest_one_read(engine: EngineProcess) -> None:
    """R-E18: with and without its length told."""
    largest = search_body("x").ljust(MAX_BODY_BYTES)
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"

    assert engine.ask("POST", "/v1/search", largest).status == 200
    assert _problem(engine.ask("POST", "/v1/search", largest + b" ")) == (413, "application/problem+json", "TooLarge")
    # The last byte is the one too many: closed with something unread, a connection is reset.
    chunked = _raw(
        engine,
        HEADER + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunk * (MAX_BODY_BYTES // 0x1000) + b"1\r\n \r\n",
    )
    assert chunked.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /v1/chunks/small/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000,
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(engine: EngineProcess, request_bytes: bytes) -> None:
    """R-E18: garbage on the port is never answered with a 5xx."""
    assert _raw(engine, request_bytes).startswith(b"HTTP/1.1 4")
    assert engine.ask("GET", "/healthz").status == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(engine: EngineProcess) -> None:
    """R-E18: nothing is logged as a failure of ours."""
    header = HEADER + b"Content-Length: 500\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", engine.port)) as connection:
            connection.sendall(header + KNOWN)

    assert engine.ask("POST", "/v1/search", KNOWN).status == 200
    assert "Traceback" not in engine.log


@pytest.mark.parametrize(
    ("at_work", "held", "expected"),
    [(WAITING_QUERIES, True, [200, 503]), (query_workers(), False, [200])],
    ids=["in memory, and a new one refused", "to be put together from the disk"],
)
@pytest.mark.usefixtures("page_cache_tells")
def test_a_known_answer_is_given_while_every_worker_is_at_something_long(
    small_data: Path, runtime: MemoryRuntime, at_work: int, expected: list[int], *, held: bool
) -> None:
    """R-E21: it waits behind no search."""
    embedder, ended = HashingEmbedder(), threading.Event()
    with (
        closing(Catalog(open_collections(small_data, embedder))) as catalog,
        closing(SearchApi(_asked(catalog, embedder, runtime), CollectorRegistry(), lambda _: None)) as api,
    ):
        if not held:
            (segment,) = catalog.collections["small"].segments
            drop_from_page_cache(segment.folder.directory / TEXTS_FILE)

        async def statuses() -> list[int]:
            ask = partial(ask_application, api, "POST", "/v1/search")
            working = [asyncio.create_task(api.in_worker(ended.wait)) for _ in range(at_work)]
            await asyncio.sleep(0)
            queries = (KNOWN, search_body("a new one", collection="small"))
            try:
                return [(await asyncio.wait_for(ask(query), 30.0))[0] for query in queries[: len(expected)]]
            finally:
                ended.set()
                await asyncio.gather(*working)

        assert expected == asyncio.run(statuses())


@pytest.mark.parametrize(("representation", "more"), [("Exact", False), ("Compact", True)])
def test_where_queries_wait_for_rows_one_more_is_at_work(
    tmp_path: Path,
    runtime: MemoryRuntime,
    make_chunks: Callable[[int], list[Chunk]],
    representation: Representation,
    *,
    more: bool,
) -> None:
    """R-E01: while one waits for the disk the processors have work; elsewhere a thread more only costs."""
    embedder = HashingEmbedder()
    build_collection(
        collection="small", chunks=make_chunks(100), embedder=embedder, target=tmp_path / "small", threads=1,
        progress=lambda _: None, representation=representation,
    )  # fmt: skip
    ended = threading.Event()

    with (
        closing(Catalog(open_collections(tmp_path, embedder))) as catalog,
        closing(SearchApi(_asked(catalog, embedder, runtime), CollectorRegistry(), lambda _: None)) as api,
    ):

        async def at_work() -> int:
            waiting = [asyncio.create_task(api.in_worker(ended.wait)) for _ in range(10)]
            await asyncio.sleep(0)
            threads = sum(thread.name.startswith("query") for thread in threading.enumerate())
            ended.set()
            await asyncio.gather(*waiting)
            return threads

        assert query_workers(waiting_for_rows=more) == asyncio.run(at_work())


def _asked(catalog: Catalog, embedder: HashingEmbedder, runtime: MemoryRuntime) -> Search:
    """A search that has answered KNOWN."""
    search = Search(catalog, embedder, SemanticCache(runtime, embedder.dimension))
    known = msgspec.json.decode(KNOWN, type=SearchRequest)
    search.answer(known.collection, known.query, known.hits)
    return search


def test_more_queries_than_may_wait_are_refused_and_can_be_tried_again(engine: EngineProcess) -> None:
    """R-E21: 503 with Retry-After, and only for those that were too many."""
    asked = 2 * WAITING_QUERIES
    with ExitStack() as connections:
        opened: list[socket.socket] = []
        for number in range(asked):
            query = search_body(f"burst {number} " * 100, hits=MAX_HITS)
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", engine.port), timeout=30.0))
            connection.sendall(HEADER + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(query) + query[:-1])
            opened.append(connection)
        for connection in opened:
            # The last byte of each: all of them arrive before many can be answered.
            connection.sendall(b"}")
        heads = [connection.makefile("rb").read().split(b"\r\n\r\n")[0] for connection in opened]

    refused = [head for head in heads if not head.startswith(b"HTTP/1.1 200 ")]
    assert 0 < len(refused) <= asked - WAITING_QUERIES
    assert all(head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in head for head in refused)
    assert engine.ask("POST", "/v1/search", KNOWN).status == 200


def test_twenty_agents_ask_a_thousand_questions_without_a_failure_within_150_mb(
    stdlib_data: Path, tmp_path: Path
) -> None:
    """R-E18: 20 and more agents at once, 1,000 queries within 150 MB of process memory, hits with their sources."""
    (generation,) = (stdlib_data / "stdlib").iterdir()
    store = ChunkStore(generation / "chunks.sqlite")
    chunks = store.get(range(0, store.count(), store.count() // QUERIES)[:QUERIES])
    store.close()
    bodies = [search_body(f"{each.name} {each.docstring[:60]}", collection="stdlib") for each in chunks]
    failures: list[Reply] = []
    answers: list[int] = []

    with EngineProcess(stdlib_data, tmp_path) as engine:
        engine.wait_until_serving()

        def agent(number: int) -> None:
            connection = engine.connect()
            for body in bodies[number::AGENTS]:
                reply = ask(connection, "POST", "/v1/search", body)
                failures.extend([reply] if reply.status != 200 else [])
                answers.append(sum(len(hit["chunk"]["source"]) > 0 for hit in reply.json()["hits"]))
            connection.close()

        agents = [threading.Thread(target=agent, args=(number,)) for number in range(AGENTS)]
        for each in agents:
            each.start()
        for each in agents:
            each.join()

        assert failures == []
        assert [5] * QUERIES == answers
        assert status_bytes(engine.process.pid, "VmHWM") < 150 * MB
        assert engine.terminate() == 0
        assert "ERROR" not in engine.log
