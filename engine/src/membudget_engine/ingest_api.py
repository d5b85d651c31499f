"""Ingestion over HTTP: a stream of records into a collection, taken as fast as they can be kept, resumed by its name.

Covers: the request, its bounds, and how far each upload is. Does not cover reading records (`ingest`), batches and what
is kept of an upload (`ingestion`) nor small writes (`write_api`). An engine that only reads answers 409 ReadOnly.

`PUT /v1/ingest/{collection}/{upload}`, as `curl -T pages.ndjson .../v1/ingest/docs/` sends it: the name's ending says
how the body is read. The same again goes on behind what was acknowledged; where the format allows it the body may begin
there, as Content-Range says.
"""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from membudget_contract.policy import CollectionName
from membudget_engine.errors import BuildFailed, ReadOnly, UploadDiffers, UploadMissing, UploadRunning, WriteInvalid
from membudget_engine.http_answers import Refused, json
from membudget_engine.http_operations import COLLECTION, Operation, Parameter
from membudget_engine.index.manifest import Representation
from membudget_engine.ingest.body_stream import BodyBounds, BodyStream
from membudget_engine.ingest.document_source import Keys
from membudget_engine.ingest.steps import FileSteps
from membudget_engine.ingest.stream_source import CUT_ANYWHERE, FILES, stream_records
from membudget_engine.ingestion import Ingestion, KeptUploads, Taking, Upload
from membudget_engine.writer import Writer
from membudget_runtime.ledger import Ledger

GIB: Final = 1024**3
BOUNDS: Final = BodyBounds(most_bytes=16 * GIB, idle_seconds=30.0, seconds=3600.0)
"""Of one request; what is more goes on in the next one."""

AT_ONCE: Final = 2
"""Uploads in work, a thread each; one more is refused with a retriable 503."""

UPLOAD: Final = {
    "type": "string",
    "pattern": rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}({'|'.join(re.escape(ending) for ending in FILES)})$",
}
_LIST: Final[dict[str, Any]] = {"type": "array", "items": {"type": "string"}}
_PARAMETERS: Final = (
    Parameter("key", "query", "FIELD=KEY: a document's KEY is the chunk's FIELD", _LIST),
    Parameter("only", "query", "FIELD=PATTERN: leave out documents that do not match", _LIST),
    Parameter(
        "representation",
        "query",
        "Of a collection that this upload makes.",
        {"type": "string", "enum": list(get_args(Representation)), "default": "Exact"},
    ),
    Parameter(
        "Content-Range",
        "header",
        "The body begins at this byte, which is where the upload stands (`bytes`): for .ndjson, .jsonl and .fvecs.",
        {"type": "string", "pattern": r"^bytes [0-9]{1,15}-[0-9]{1,15}/([0-9]{1,15}|\*)$"},
    ),
)
_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/(?:[0-9]{1,15}|\*)")

BUFFER_BYTES: Final = 64 * 1024
"""As much as the server hands over at once."""

MOST_PROBLEMS: Final = 100
"""Told of uploads that ended early; older ones are forgotten."""

State = Literal["Running", "Interrupted", "Complete"]


class UploadView(msgspec.Struct, frozen=True):
    """How far an upload is. `records` of it are acknowledged: they hold, and are found, whatever crashes."""

    collection: str
    upload: str
    state: State
    records: int
    filtered: int
    """Of those, left out by a filter."""
    bytes: int | None
    """Where the rest begins; null where it has to be sent whole again, and is passed over up to there."""
    problem: str | None = None
    """Why the last request ended early, as long as the engine that saw it runs."""


class IngestApi:
    """Endpoints of uploads; `writer` is None in an engine that only reads."""

    def __init__(
        self,
        writer: Writer | None,
        ledger: Ledger,
        data_folder: Path,
        refuse_while_stopping: Callable[[], None],
        bounds: BodyBounds = BOUNDS,
    ) -> None:
        """`refuse_while_stopping` raises from the moment on when the engine is to end."""
        self._writer = writer
        self._ledger = ledger
        self._data_folder = data_folder
        self._refuse_while_stopping = refuse_while_stopping
        self._bounds = bounds
        self._pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="ingest")
        self._turn = threading.Lock()
        self._running: dict[tuple[str, str], Upload] = {}
        self._problems: dict[tuple[str, str], str] = {}
        self._closing = False
        names = {"collection": COLLECTION, "upload": UPLOAD}
        path = "/v1/ingest/{collection}/{upload}"
        self.operations = (
            Operation(
                "PUT",
                path,
                self._take,
                "take records from a stream, and go on where it was interrupted",
                UploadView,
                takes="application/octet-stream",
                parameters=_PARAMETERS,
                refusals=(400, 404, 408, 409, 413, 429, 502, 503),
                names=names,
            ),
            Operation(
                "GET", path, self._progress, "how far an upload is", UploadView, refusals=(400, 404), names=names
            ),
        )

    def close(self) -> None:
        """Ends uploads at their next batch, and waits for that."""
        self._closing = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _take(self, request: Request) -> Response:
        self._refuse_while_stopping()
        if self._writer is None:
            raise ReadOnly("this engine only reads; write to the one that was started with --writer")
        collection, name = _names(request)
        keys, how = _asked(request)
        kept = KeptUploads(self._data_folder / collection)
        with self._turn:
            if (collection, name) in self._running:
                raise UploadRunning(f"{name} is being taken on another connection")
            if len(self._running) >= AT_ONCE:
                raise Refused(503, "Busy", f"{AT_ONCE} uploads are in work; try again in a moment")
            upload = self._running[collection, name] = kept.get(name)
            self._problems.pop((collection, name), None)
        try:
            if not how.sent_whole:
                _check_range(request, upload)
            done = await self._in_thread(self._writer, request, upload, kept, keys, how)
        except BaseException as error:
            self._note(collection, name, error)
            raise
        finally:
            with self._turn:
                self._running.pop((collection, name))
        return json(msgspec.json.encode(_view(done, "Complete")))

    async def _in_thread(
        self, writer: Writer, request: Request, upload: Upload, kept: KeptUploads, keys: Keys, how: Taking
    ) -> Upload:
        gone = threading.Event()

        def ended() -> bool:
            return self._closing or gone.is_set() or self._is_stopping()

        loop = asyncio.get_running_loop()
        pieces: AsyncIterator[bytes] = request.stream()
        body = io.BufferedReader(BodyStream(pieces, loop, self._bounds, ended), BUFFER_BYTES)
        position = 0 if how.sent_whole else upload.position
        records = stream_records(upload.name, body, keys, position)
        ingestion = Ingestion(writer, self._ledger, ended)

        def tell(now: Upload) -> None:
            if not gone.is_set():
                self._running[upload.collection, upload.name] = now

        try:
            return await loop.run_in_executor(self._pool, lambda: ingestion.take(upload, kept, records, how, tell))
        finally:
            gone.set()

    def _is_stopping(self) -> bool:
        try:
            self._refuse_while_stopping()
        except Refused:
            return True
        return False

    def _note(self, collection: str, name: str, error: BaseException) -> None:
        with self._turn:
            while len(self._problems) >= MOST_PROBLEMS:
                self._problems.pop(next(iter(self._problems)))
            self._problems[collection, name] = str(error) or "the connection ended early"

    async def _progress(self, request: Request) -> Response:
        collection, name = _names(request)
        running = self._running.get((collection, name))
        if running is not None:
            return json(msgspec.json.encode(_view(running, "Running")))
        upload = await asyncio.to_thread(KeptUploads(self._data_folder / collection).get, name)
        problem = self._problems.get((collection, name))
        if not upload.records and problem is None:
            raise UploadMissing(f"nothing of {name!r} was ingested into {collection!r}")
        return json(msgspec.json.encode(_view(upload, "Complete" if upload.complete else "Interrupted", problem)))


def _names(request: Request) -> tuple[str, str]:
    """Raises WriteInvalid: these become names of files."""
    collection, name = request.path_params["collection"], request.path_params["upload"]
    try:
        msgspec.convert(collection, CollectionName)
    except msgspec.ValidationError as error:
        raise WriteInvalid(f"{collection!r} is no name of a collection: {error}") from None
    if re.fullmatch(UPLOAD["pattern"], name) is None:
        raise WriteInvalid(f"{name!r} is no name of an upload: letters, digits, '.', '_', '-', and one of {FILES}")
    return collection, name


def _asked(request: Request) -> tuple[Keys, Taking]:
    """Raises Refused."""
    query = request.query_params
    unknown = sorted(set(query) - {parameter.name for parameter in _PARAMETERS if parameter.place == "query"})
    if unknown:
        raise Refused(400, "Invalid", f"no field {unknown[0][:40]!r} in the query here: key, only, representation")
    steps = FileSteps(query.getlist("key"), query.getlist("only"))
    try:
        representation = msgspec.convert(query.get("representation", "Exact"), Representation)
        whole = "content-range" not in request.headers
        return steps.document_keys(), Taking(steps.filters(), representation, sent_whole=whole)
    except (BuildFailed, msgspec.ValidationError) as error:
        raise Refused(400, "Invalid", str(error)) from None


def _check_range(request: Request, upload: Upload) -> None:
    """Raises Refused, UploadDiffers."""
    told = _RANGE.fullmatch(request.headers["content-range"])
    if told is None:
        raise Refused(400, "Invalid", "Content-Range is written as `bytes 100-199/200`")
    if not upload.name.endswith(CUT_ANYWHERE):
        raise Refused(400, "Invalid", f"{upload.name} cannot be cut: send it whole, it is passed over")
    if int(told[1]) != upload.bytes:
        raise UploadDiffers(f"{upload.name} stands at byte {upload.bytes}: begin there, or send it whole")


def _view(upload: Upload, state: State, problem: str | None = None) -> UploadView:
    return UploadView(upload.collection, upload.name, state, upload.records, upload.filtered, upload.bytes, problem)
