"""Conversations over HTTP: byte by byte as they are encoded, and by the loop itself."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from engine.asgi import ask_application
from membudget_contract.decoding import decode_json
from membudget_engine.caches.conversation import Session, Turn
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.rooms import Rooms
from membudget_engine.rooms_api import RoomsApi
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi
from membudget_engine.settings import WAITING_QUERIES
from membudget_runtime.memory_runtime import MemoryRuntime

QUESTION, ANSWER = Turn("user", 'where is "},{" read?'), Turn("assistant", "in conversation.py")


def test_a_conversation_goes_on_while_every_worker_is_at_something_long(
    small_data: Path, runtime: MemoryRuntime
) -> None:
    """R-E07, R-E21: it is started, gone on with, read and ended in memory; a file is read by a worker, and waits."""
    embedder, ended = HashingEmbedder(), threading.Event()
    with (
        closing(Rooms(runtime, embedder, {})) as rooms,
        closing(Catalog(open_collections(small_data, embedder))) as catalog,
        closing(SearchApi(Search(catalog, embedder, rooms.semantic), CollectorRegistry(), lambda _: None)) as api,
    ):
        api.add(RoomsApi(rooms, catalog, api).operations)

        async def answers() -> list[tuple[int, bytes]]:
            at_work = [asyncio.create_task(api.in_worker(ended.wait)) for _ in range(WAITING_QUERIES)]
            await asyncio.sleep(0)
            try:
                started = await ask_application(api, "POST", "/v1/sessions")
                path = f"/v1/sessions/{decode_json(started[1], Session).id}"
                turns = [
                    await ask_application(api, "POST", f"{path}/turns", msgspec.json.encode(turn))
                    for turn in (QUESTION, ANSWER)
                ]
                others = [await ask_application(api, method, path) for method in ("GET", "DELETE", "GET")]
                return [started, *turns, *others, await ask_application(api, "GET", "/v1/files/small/any.py")]
            finally:
                ended.set()
                await asyncio.gather(*at_work)

        *answered, missing, file = asyncio.run(answers())

    session = decode_json(answered[0][1], Session)
    encoded = [msgspec.json.encode(Session(session.id, turns)) for turns in ((), (QUESTION,), (QUESTION, ANSWER))]
    assert answered == [(201, encoded[0]), (200, encoded[1]), (200, encoded[2]), (200, encoded[2]), (204, b"")]
    assert (missing[0], file[0]) == (404, 503)
