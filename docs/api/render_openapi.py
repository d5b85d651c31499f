"""Writes the OpenAPI documents of sidecar and engine, from the tables that serve them: `make api-docs`.

Covers: the committed documents beside this script, which tests compare with what is served.
"""  # noqa: INP001

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from membudget_engine import http_document
from membudget_engine.catalog import Catalog
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.ingest_api import IngestApi
from membudget_engine.monitoring_api import MonitoringApi
from membudget_engine.rooms import Rooms
from membudget_engine.rooms_api import RoomsApi
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi
from membudget_engine.write_api import WriteApi
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_sidecar.servers import make_loop
from membudget_sidecar.serving.api import operations
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.openapi import document
from membudget_sidecar.settings import SidecarSettings

FOLDER = Path(__file__).parent
SIDECAR = "sidecar.openapi.json"
ENGINE = "engine.openapi.json"


def rendered() -> Mapping[str, bytes]:
    """The documents as they are committed, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        return {SIDECAR: _text(_of_sidecar(Path(folder))), ENGINE: _text(_of_engine(Path(folder)))}


def _of_sidecar(folder: Path) -> dict[str, Any]:
    settings = SidecarSettings(folder, folder, None)
    return document(operations(Served(make_loop(settings), None, settings)))


def _of_engine(folder: Path) -> dict[str, Any]:
    """Of one that only reads: it has every operation, and refuses those of a writer."""
    with ExitStack() as at_end:
        runtime = at_end.enter_context(closing(MemoryRuntime(folder / "state", {})))
        rooms = at_end.enter_context(closing(Rooms(runtime, HashingEmbedder(), {})))
        search = Search(Catalog({}), rooms.embedder, rooms.semantic)
        api = at_end.enter_context(closing(SearchApi(search, CollectorRegistry(), lambda _: None)))
        monitoring = at_end.enter_context(closing(MonitoringApi(runtime, rooms, api)))
        writes = at_end.enter_context(closing(WriteApi(None)))
        ingests = IngestApi(None, runtime.ledger, folder, api.refuse_while_stopping)
        at_end.enter_context(closing(ingests))
        for more in (RoomsApi(rooms, search.catalog, api), monitoring, writes, ingests):
            api.add(more.operations)
        return http_document.document(api.operations)


def _text(told: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_bytes(text)
