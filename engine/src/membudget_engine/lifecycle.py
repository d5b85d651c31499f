"""One engine from start to end: open, serve, stop.

Covers: the order of start and stop, and what a signal does. Does not cover what is served. On SIGTERM or SIGINT:
no new connections, queries in work finish, then sockets, stores and index close, exit code 0.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

import uvicorn
from prometheus_client import CollectorRegistry

from membudget_contract.policy import Signal
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index_component import IndexComponent
from membudget_engine.metrics import EngineCollector
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi
from membudget_engine.settings import SWITCH_INTERVAL_SECONDS, EngineSettings
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.own_memory import OwnMemory

STOP_SECONDS = 10
"""Given to queries in work; Kubernetes gives 30 s for everything."""

log = logging.getLogger(__name__)


def serve(settings: EngineSettings) -> None:
    """Serve until a signal ends it.

    Raises:
        CollectionMissing: nothing to serve in the data folder.
        AlreadyServed: another engine holds the control socket.
        OSError: a folder or the port cannot be used.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    runtime = MemoryRuntime(settings.state_folder, os.environ)
    embedder = HashingEmbedder()
    before = OwnMemory().signal_bytes(Signal.UNRECLAIMABLE)
    collections = open_collections(settings.data_folder, embedder)
    after = OwnMemory().signal_bytes(Signal.UNRECLAIMABLE)
    grown = max(0, after - before) if after is not None and before is not None else 0
    indexes = [collection.index for collection in collections.values()]
    runtime.ledger.register(IndexComponent(indexes, grown, time.monotonic))
    cache = SemanticCache(runtime, embedder.dimension)
    search = Search(collections, embedder, cache)
    registry = CollectorRegistry()
    registry.register(EngineCollector(search, cache, runtime))
    api = SearchApi(search, registry)
    runtime.serve(settings.control_socket)
    try:
        _run_server(api, settings)
    finally:
        api.close()
        runtime.close()
        for collection in collections.values():
            collection.close()
    log.info("stopped")


def _run_server(api: SearchApi, settings: EngineSettings) -> None:
    # uvicorn raises the signal again when it is done: with these handlers the process ends by returning, code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    config = uvicorn.Config(
        api.application,
        host=settings.host,
        port=settings.port,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    log.info("serving on %s:%s, control socket %s", settings.host, settings.port, settings.control_socket)
    uvicorn.Server(config).run()
