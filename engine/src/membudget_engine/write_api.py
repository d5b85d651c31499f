"""Writes over HTTP: upsert, delete, and sealing on request.

Covers: their bodies, and a thread of their own, so that writes wait for a disk and queries do not. Does not cover what
a write is (`writer`) nor streams of
them (`ingest_api`) nor queries (`search_api`). An engine that only reads answers 409 ReadOnly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from membudget_engine.embedder import Vectors
from membudget_engine.errors import ReadOnly, WriteInvalid
from membudget_engine.http_answers import Refused, json, message
from membudget_engine.http_operations import COLLECTION, Operation
from membudget_engine.index.manifest import Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.writer import Writer

MAX_WRITE_BYTES: Final = 1024 * 1024
WAITING_WRITES: Final = 8
"""In work or waiting, of a megabyte each at most; one more is refused with a retriable 503."""

_Result = TypeVar("_Result")


class WriteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/chunks/{collection}."""

    chunks: list[Chunk]
    vectors: list[list[float]] | None = None
    """One for each chunk; without them the chunks are embedded."""
    representation: Representation = "Exact"
    """Of a collection that this write makes; one that is there keeps its own."""


class Written(msgspec.Struct, frozen=True):
    """The answer: from now on it holds, whatever crashes."""

    collection: str
    written: int
    count: int
    """Chunks in the collection."""


class Deleted(msgspec.Struct, frozen=True):
    """The answer: from now on no query finds it."""

    collection: str
    deleted: int


class Sealed(msgspec.Struct, frozen=True):
    """The answer to sealing on request."""

    collection: str
    sealed: bool
    """False when nothing was written since the last time."""


class WriteApi:
    """Endpoints of writes; `writer` is None in an engine that only reads."""

    def __init__(self, writer: Writer | None) -> None:
        self._writer = writer
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._in_work = 0
        named = {"collection": COLLECTION}
        self.operations = (
            Operation(
                "POST",
                "/v1/chunks/{collection}",
                self._upsert,
                "write chunks, in place of those with their ids; the first write makes the collection",
                Written,
                takes=WriteRequest,
                refusals=(400, 404, 409, 413, 429, 502, 503),
                names=named,
            ),
            Operation(
                "DELETE",
                "/v1/chunks/{collection}/{chunk}",
                self._delete,
                "delete one chunk",
                Deleted,
                refusals=(404, 409, 503),
                names=named,
            ),
            Operation(
                "POST",
                "/v1/collections/{collection}/seal",
                self._seal,
                "put what was written into a generation now",
                Sealed,
                refusals=(404, 409, 413, 429, 503),
                names=named,
            ),
        )

    def close(self) -> None:
        """Wait for the write in work; those waiting were not acknowledged, and are not done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _upsert(self, request: Request) -> Response:
        writer, name = self._open_writer(), request.path_params["collection"]
        asked = await message(request, WriteRequest, "write", MAX_WRITE_BYTES)
        vectors = None if asked.vectors is None else _array(asked.vectors)
        count = await self._in_turn(lambda: writer.upsert(name, asked.chunks, vectors, asked.representation))
        return json(msgspec.json.encode(Written(name, len(asked.chunks), count)))

    async def _delete(self, request: Request) -> Response:
        writer, name, chunk = self._open_writer(), request.path_params["collection"], request.path_params["chunk"]
        deleted = await self._in_turn(lambda: writer.delete(name, [chunk]))
        return json(msgspec.json.encode(Deleted(name, deleted)))

    async def _seal(self, request: Request) -> Response:
        writer, name = self._open_writer(), request.path_params["collection"]
        # Not in turn: it may take minutes, and writes go on meanwhile.
        sealed = await asyncio.to_thread(writer.seal, name)
        return json(msgspec.json.encode(Sealed(name, sealed)))

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise ReadOnly("this engine only reads; write to the one that was started with --writer")
        return self._writer

    async def _in_turn(self, work: Callable[[], _Result]) -> _Result:
        if self._in_work >= WAITING_WRITES:
            raise Refused(503, "Busy", f"{WAITING_WRITES} writes are in work; try again in a moment")
        self._in_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._in_work -= 1


def _array(vectors: list[list[float]]) -> Vectors:
    if len({len(vector) for vector in vectors}) > 1:
        raise WriteInvalid("all vectors of a write have one dimension")
    return np.asarray(vectors, dtype=np.float32)
