"""Records into a collection while it is served, batch by batch: what a batch wrote is acknowledged and kept, at once.

Covers: how large a batch may be, waiting for room, what is kept of an upload, and going on with it. Does not cover
reading records (`ingest`), writing them (`writer`) nor HTTP (`ingest_api`).

A batch is a write like any other, and then the upload's file says how far it came. Whoever sends the same again is
passed over what was acknowledged, by a digest that is chained from record to record: another beginning is refused.
What was written and not yet acknowledged when a process died is written again, under the same ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np

from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_contract.plan import Message
from membudget_contract.policy import Priority
from membudget_contract.profiles import WORKING
from membudget_engine.embedder import Vectors
from membudget_engine.errors import BodyEnded, SealPending, SourceInvalid, UploadDiffers, WriteFailed
from membudget_engine.index.manifest import Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.record import Record, Step, chained_digest, through
from membudget_engine.ingest.stream_source import MAX_STREAMED_BYTES, bytes_before
from membudget_engine.writer import Writer
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import Ledger

LARGEST_BATCH: Final = 1024 * 1024
LEAST_BATCH: Final = 64 * 1024
BATCH_COPIES: Final = 4
"""A batch, and the record that ends it, are there as records, as one array, and in SQLite's statement."""

PATIENCE_SECONDS: Final = 60.0
"""For room, and for a seal that makes it; then the upload is refused, and may be sent again."""
LOOK_SECONDS: Final = 0.1
BATCH_SECONDS: Final = 1.0
"""A slow stream is acknowledged as it comes."""

UPLOADS_FOLDER: Final = ".uploads"
MOST_KEPT: Final = 100
"""Of one collection; the ones longest unused are forgotten."""

_RECORD_BYTES: Final = 1_500
"""Of one beside its text and vector: objects and their places."""

_Result = TypeVar("_Result")


class Upload(Message, frozen=True):
    """How far an upload came, in records; kept in a file of the collection's folder."""

    collection: str
    name: str
    records: int = 0
    filtered: int = 0
    """Of those, left out by a filter."""
    position: int = 0
    """As the source counts."""
    bytes: int | None = 0
    """Where the rest begins; None for a source that can only be sent whole."""
    digest: str = ""
    """Chained over all of these records."""
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Taking:
    """How an upload is taken this time."""

    steps: Sequence[Step] = ()
    representation: Representation = "Exact"
    """Of a collection that it makes."""
    sent_whole: bool = True
    """Else what comes begins behind what was acknowledged."""


class KeptUploads:
    """The uploads of one collection, on disk."""

    def __init__(self, collection: Path) -> None:
        self._collection = collection
        self._folder = collection / UPLOADS_FOLDER

    def get(self, name: str) -> Upload:
        """As it was acknowledged last; one that nothing is kept of, or whose file is damaged, begins anew."""
        try:
            kept = read_kept(self._folder / name, Upload)
        except KeptFileInvalid:
            kept = None
        return Upload(collection=self._collection.name, name=name) if kept is None else kept

    def put(self, upload: Upload) -> None:
        """From now on this holds, whatever crashes; kept only where something was written. Raises WriteFailed."""
        if not self._collection.is_dir():
            return
        try:
            self._folder.mkdir(exist_ok=True)
            if not (self._folder / upload.name).exists():
                self._forget_oldest()
            write_kept(self._folder / upload.name, upload)
        except OSError as error:
            raise WriteFailed(f"{self._folder}: {error.strerror}; is the volume full or read-only?") from error

    def _forget_oldest(self) -> None:
        kept = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        for file in kept[: max(0, len(kept) + 1 - MOST_KEPT)]:
            file.unlink()


@dataclass(slots=True)
class _Batch:
    """Records that were read at once."""

    began: float
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    vectors: list[Vectors] = field(default_factory=list[Vectors])
    records: int = 0
    bytes: int = 0
    ended: bool = False
    problem: SourceInvalid | None = None

    def add(self, record: Record | None) -> None:
        """One more; None was left out by a filter."""
        self.records += 1
        if record is None:
            return
        self.chunks.append(record.chunk)
        if record.vector is not None:
            self.vectors.append(record.vector)
            self.bytes += record.vector.nbytes
        self.bytes += _RECORD_BYTES + len(record.chunk.source) + len(record.chunk.docstring)

    def array(self) -> Vectors | None:
        """All vectors, or None where none was given. Raises SourceInvalid."""
        if not self.vectors:
            return None
        if len(self.vectors) != len(self.chunks) or len({len(vector) for vector in self.vectors}) != 1:
            raise SourceInvalid("some records have a vector of another dimension, or none: all alike, or none")
        return np.stack(self.vectors)


class _Chain:
    """A digest of all records so far, and the last of them."""

    def __init__(self, digest: bytes = b"") -> None:
        self.digest = digest
        self.last: Record | None = None

    def over(self, records: Iterator[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            vector = b"" if record.vector is None else record.vector.tobytes()
            self.digest = chained_digest(self.digest, record.chunk, vector)
            self.last = record
            yield record


class Ingestion:
    """What every upload of an engine shares. Thread-safe."""

    def __init__(
        self, writer: Writer, ledger: Ledger, ended: Callable[[], bool], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """`ended` says whether to give up."""
        self._writer = writer
        self._ledger = ledger
        self._ended = ended
        self._patience_seconds = patience_seconds

    def take(
        self, upload: Upload, kept: KeptUploads, records: Iterator[Record], how: Taking, tell: Callable[[Upload], None]
    ) -> Upload:
        """Everything behind what the upload has; gives it as it is then. `tell` hears of each batch, once it is kept.

        Raises:
            SourceInvalid: a record is not what the source's name says; those before it are acknowledged.
            UploadDiffers: what is acknowledged already is not what was sent; nothing was written.
            NoRoom, ValueTooLarge, SealPending, BodyEnded, WriteFailed: try again; what was told is acknowledged.
            Whatever else a write and reading the source raise: likewise.
        """
        chain = _Chain(b"" if how.sent_whole else bytes.fromhex(upload.digest))
        chained = chain.over(records)
        if how.sent_whole:
            _pass_over(upload, chain, chained)
        stepped = through(how.steps, chained)
        while True:
            with self._room() as most_bytes:
                batch = _read(stepped, most_bytes)
                if batch.chunks:
                    write = partial(self._writer.upsert, upload.collection, batch.chunks, batch.array())
                    self._patiently(partial(write, how.representation))
            upload = _acknowledged(upload, batch, chain)
            kept.put(upload)
            tell(upload)
            if batch.problem is not None:
                raise batch.problem
            if batch.ended:
                return upload

    @contextmanager
    def _room(self) -> Generator[int]:
        """Bytes that a batch may have, set aside until the block ends: fewer when there is less room."""
        most_bytes = self._patiently(self._set_aside)
        try:
            yield most_bytes
        finally:
            self._ledger.return_reserved(WORKING, _room_bytes(most_bytes))

    def _set_aside(self) -> int:
        most_bytes = LARGEST_BATCH
        while True:
            try:
                self._ledger.set_aside(WORKING, _room_bytes(most_bytes), Priority.LOW, momentary=True)
            except (NoRoom, ValueTooLarge):
                if most_bytes <= LEAST_BATCH:
                    raise
                most_bytes //= 2
            else:
                return most_bytes

    def _patiently(self, work: Callable[[], _Result]) -> _Result:
        """What the work gives, once there is room for it: meanwhile nothing more is read, and the peer waits."""
        latest = time.monotonic() + self._patience_seconds
        while True:
            try:
                return work()
            except (NoRoom, SealPending):
                if self._ended():
                    raise BodyEnded("this engine is stopping; send the same again, to go on") from None
                if time.monotonic() > latest:
                    raise
            time.sleep(LOOK_SECONDS)


def _room_bytes(most_bytes: int) -> int:
    return BATCH_COPIES * (most_bytes + MAX_STREAMED_BYTES)


def _pass_over(upload: Upload, chain: _Chain, records: Iterator[Record]) -> None:
    came = sum(1 for _ in islice(records, upload.records))
    if came < upload.records:
        raise UploadDiffers(f"{upload.name} has {came} records, {upload.records} of it were acknowledged")
    if chain.digest.hex() != upload.digest:
        raise UploadDiffers(
            f"the first {upload.records} records are not those that were acknowledged as {upload.name}: "
            "send what differs under another name"
        )


def _read(records: Iterator[tuple[Record | None, int]], most_bytes: int) -> _Batch:
    """Up to so many bytes, or what comes within a second. A record that is none ends it, and is told."""
    batch = _Batch(began=time.monotonic())
    try:
        for record, _ in records:
            batch.add(record)
            if batch.bytes >= most_bytes or time.monotonic() - batch.began > BATCH_SECONDS:
                return batch
    except SourceInvalid as problem:
        batch.problem = problem
        return batch
    batch.ended = True
    return batch


def _acknowledged(upload: Upload, batch: _Batch, chain: _Chain) -> Upload:
    now = msgspec.structs.replace(
        upload,
        records=upload.records + batch.records,
        filtered=upload.filtered + batch.records - len(batch.chunks),
        digest=chain.digest.hex(),
        complete=batch.ended,
    )
    if not batch.records or chain.last is None:
        return now
    last = chain.last
    return msgspec.structs.replace(now, position=last.position, bytes=bytes_before(upload.name, last))
