"""One engine from start to end: open, serve, stop.

Covers: the order of start and stop. Does not cover what is served (`search_api`) nor how signals arrive
(`stop_signal`). When a signal came, in this order: new queries get a typed 503 and readiness is refused, for a
second connections are still accepted to be told so, queries in work finish, cached answers are persisted in what is
left of the grace period, sockets, stores and index close. The exit code is 0 when all of it was done.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry, disable_created_metrics

from membudget_contract.policy import Signal
from membudget_contract.profiles import INDEX, SEMANTIC_CACHE
from membudget_engine.caches.kept_answers import KeptAnswers
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import Embedder
from membudget_engine.http_embedder import chosen_embedder
from membudget_engine.index_reload import IndexReload
from membudget_engine.ingest_api import IngestApi
from membudget_engine.metrics import EngineCollector
from membudget_engine.monitoring_api import MonitoringApi
from membudget_engine.publishing import Publishing
from membudget_engine.query_room import QueryRoom
from membudget_engine.reload_signal import ReloadSignal
from membudget_engine.rooms import Rooms, source_trees
from membudget_engine.rooms_api import RoomsApi
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.settings import SWITCH_INTERVAL_SECONDS, EngineSettings
from membudget_engine.stop_signal import StopSignal
from membudget_engine.stores.chunk_store import ChunkStore
from membudget_engine.stores.sqlite_memory import SqliteMemory, sqlite_bytes
from membudget_engine.write_api import WriteApi
from membudget_engine.writer import Writer
from membudget_runtime.errors import AlreadyServed, PersistIncomplete
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.own_memory import OwnMemory

REFUSING_SECONDS: Final = 1.0
"""How long a stopping engine still accepts connections: a 503 that says try elsewhere, instead of a reset."""
REFUSING_SHARE: Final = 0.15
"""Of the grace period at most."""

STOP_SECONDS: Final = 10.0
"""Given to queries in work."""
STOP_SHARE: Final = 0.2
"""Of the grace period at most."""

CLOSING_SECONDS: Final = 0.3
CLOSING_SHARE: Final = 0.05
"""Of the grace period at least: to sync the last file, to close, to end the process."""

PENDING_CONNECTIONS: Final = 2048
"""Accepted by the kernel before the engine has looked at them."""

log = logging.getLogger(__name__)


def serve(settings: EngineSettings, stop: StopSignal, reload_signal: ReloadSignal) -> None:
    """Serve until a signal ends it.

    Raises:
        CollectionMissing: nothing to serve in the data folder.
        AlreadyServed: another engine holds the control socket or the state folder.
        OSError: a folder or the port cannot be used.
        PersistIncomplete: it stopped as it was asked to, but the next life will miss something.
        StopAsked: a signal came before anything was served.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    for folder in (settings.run_folder, settings.state_folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as at_end:
        at_end.enter_context(_sole_user(settings.state_folder))
        runtime = MemoryRuntime(settings.state_folder, os.environ)
        embedder = chosen_embedder(settings.embedding_server)
        catalog, indexes = _opened(settings, embedder, runtime, at_end)
        rooms = Rooms(runtime, embedder, source_trees(settings.sources, catalog.collections))
        at_end.callback(rooms.close)
        runtime.on_reload(INDEX, IndexReload(settings.data_folder, embedder, catalog, indexes, left=rooms.forget))
        writer = _writer(settings, rooms.embedder, indexes, runtime, rooms.forget, at_end)
        # Not before: answers are of what the generation and the log hold together.
        runtime.on_persist(SEMANTIC_CACHE, KeptAnswers(rooms.semantic, catalog))
        room = QueryRoom(runtime.ledger)
        search = Search(catalog, rooms.embedder, rooms.semantic, rooms.queries, rooms.responses, room)
        api = _api(search, rooms, runtime, writer and writer.publishing)
        monitoring = MonitoringApi(runtime, rooms, api)
        at_end.callback(monitoring.close)
        writes = WriteApi(writer)
        ingests = IngestApi(writer, runtime.ledger, settings.data_folder, api.refuse_while_stopping)
        for more in (monitoring, writes, ingests):
            api.add(more.operations)
        at_end.callback(runtime.close)
        at_its_turn = at_end.enter_context(ExitStack())
        # An exception between a socket and whoever closes it would leave its file; what follows is short.
        stop.wait_for_server()
        runtime.serve(settings.control_socket)
        at_end.callback(api.close)
        at_end.callback(writes.close)
        at_end.callback(ingests.close)
        reload_signal.follow(runtime.reload)
        at_end.callback(reload_signal.close)
        listener = at_end.enter_context(_listener(settings.host, settings.port))
        # Not before: an engine that cannot begin leaves alone what its former life wrote.
        at_its_turn.callback(_persist, runtime, stop, settings.grace_seconds)
        runtime.started()
        log.info("serving on %s:%s, control socket %s", *listener.getsockname()[:2], settings.control_socket)
        _Server(api, stop, settings.grace_seconds).run([listener])
    log.info("stopped")


def _persist(runtime: MemoryRuntime, stop: StopSignal, grace_seconds: float) -> None:
    asked_at = stop.asked_at if stop.asked else time.monotonic()
    latest = asked_at + grace_seconds - max(CLOSING_SECONDS, CLOSING_SHARE * grace_seconds)
    persisted = runtime.persist(latest - time.monotonic())
    if persisted.problem is not None:
        raise PersistIncomplete(f"stopped, {persisted.entries} entries were persisted and not all: {persisted.problem}")
    log.info("persisted %d entries, %d bytes", persisted.entries, persisted.written_bytes)


@contextmanager
def _sole_user(state_folder: Path) -> Generator[None]:
    """Holds the state folder: a second engine would empty the first one's spill folder before it met its socket."""
    descriptor = os.open(state_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(f"another process uses {state_folder}; one engine per state folder") from None
        yield
    finally:
        os.close(descriptor)


def _opened(
    settings: EngineSettings, embedder: Embedder, runtime: MemoryRuntime, at_end: ExitStack
) -> tuple[Catalog, ServedIndexes]:
    """The collections, their indexes in the ledger, with what opening them added to the heap."""
    memory = at_end.enter_context(contextlib.closing(OwnMemory()))
    before, before_in_sqlite = memory.signal_bytes(Signal.UNRECLAIMABLE), sqlite_bytes()
    catalog = Catalog(open_collections(settings.data_folder, embedder, to_write=settings.writer))
    at_end.callback(catalog.close)
    runtime.ledger.trim()
    after = memory.signal_bytes(Signal.UNRECLAIMABLE)
    # Codes of compact collections are counted exactly, and while they are open; so is what SQLite holds.
    counted = catalog.loaded_bytes() + sqlite_bytes() - before_in_sqlite
    grown = max(0, after - before - counted) if after is not None and before is not None else 0
    indexes = ServedIndexes(catalog, runtime.ledger, grown, time.monotonic)
    problem = runtime.register(indexes)
    if problem is not None:
        log.warning("%s", problem)
    sqlite = SqliteMemory(lambda: _chunk_stores(catalog))
    runtime.register(sqlite)
    at_end.callback(sqlite.close)
    return catalog, indexes


def _chunk_stores(catalog: Catalog) -> Iterator[ChunkStore]:
    for collection in catalog.collections.values():
        for segment in collection.segments:
            yield segment.chunks


def _writer(
    settings: EngineSettings,
    embedder: Embedder,
    indexes: ServedIndexes,
    runtime: MemoryRuntime,
    left: Callable[[str], object],
    at_end: ExitStack,
) -> Writer | None:
    if not settings.writer:
        return None
    writer = Writer(settings.data_folder, embedder, indexes, runtime.ledger, left)
    at_end.callback(writer.close)
    writer.start()
    return writer


def _api(search: Search, rooms: Rooms, runtime: MemoryRuntime, publishing: Publishing | None) -> SearchApi:
    # Else each histogram brings a gauge of its own birth along.
    disable_created_metrics()
    registry = CollectorRegistry()
    registry.register(EngineCollector(search, rooms.caches, runtime, rooms.embeddings, publishing))
    api = SearchApi(search, registry, runtime.observe_request)
    api.add(RoomsApi(rooms, search.catalog, api).operations)
    return api


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Now, not when uvicorn comes to it: from the log line on, clients are let in.
        listener.listen(PENDING_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
    return listener


class _Server(uvicorn.Server):
    """Looks ten times a second whether to stop."""

    def __init__(self, api: SearchApi, stop: StopSignal, grace_seconds: float) -> None:
        config = uvicorn.Config(
            api.application,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            access_log=False,
            log_config=None,
            backlog=PENDING_CONNECTIONS,
        )
        # uvicorn declares whole seconds; asyncio, which gets them, takes any.
        config.timeout_graceful_shutdown = min(STOP_SECONDS, STOP_SHARE * grace_seconds)  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(config)
        self._api = api
        self._stop = stop
        self._refusing_seconds = min(REFUSING_SECONDS, REFUSING_SHARE * grace_seconds)
        self._refusing_since: float | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """`StopSignal` has them; uvicorn would raise them again after serving."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Refuse queries from the first look after the signal on, end a second later."""
        if self._stop.asked and self._refusing_since is None:
            log.info("stopping: new queries are refused, those in work finish")
            self._api.stop_taking()
            self._refusing_since = time.monotonic()
        if self._refusing_since is not None:
            self.should_exit = time.monotonic() - self._refusing_since >= self._refusing_seconds
        return await super().on_tick(counter)
