"""Writes to collections while they are served: upsert, delete, and sealing what was written into a new generation.

Covers: the order in which a write becomes durable, found and acknowledged; memory set aside for both steps. Does not
cover the log (`stores.write_log`), what queries see of it (`overlay`), building (`index.build`), HTTP (`search_api`).

A write is admitted, committed to the log with a sync, shown to queries, then acknowledged. A seal writes a generation
of the former one's rows that hold and of the writes up to a number, publishes it, and serves it with what came since.
The log forgets only what the fallback generation has as well: whichever of the two opens after a crash, log and
generation together are every acknowledged write.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from membudget_contract.policy import CollectionName
from membudget_contract.profiles import INDEX
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, embedder_problem, open_generation
from membudget_engine.embedder import GIVEN, Embedder, Vectors
from membudget_engine.errors import (
    CollectionMissing,
    EngineError,
    ReadOnly,
    SealPending,
    WriteInvalid,
    WriteLogInvalid,
)
from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.index.build import Plan, build_bytes, publish_next, sole_builder, training_rows_of
from membudget_engine.index.generations import (
    Generation,
    fallback_manifest,
    find_newest_generation,
    generation_directories,
    is_newest,
)
from membudget_engine.index.manifest import Manifest, Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.overlay import Overlay
from membudget_engine.sealing import write_batch, write_sealed
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.stores.write_log import LOG_FILE, Write, WriteLog
from membudget_runtime.errors import NoRoom, RuntimeMemoryError, ValueTooLarge
from membudget_runtime.ledger import Ledger

DELTA_BYTES: Final = 8 * 1024 * 1024
"""Of one collection: 4,000 vectors of 384 places, which a query scans in 0.6 ms."""
SEAL_FROM_SHARE: Final = 0.5
"""Of those bytes; the other half takes the writes that come while a seal runs."""
SEAL_FROM_MASKED: Final = 0.2
"""Of a generation's rows: every masked one is a row read in vain."""
SEAL_FROM_MASKED_ROWS: Final = 1_000
"""And so many at least: a small generation is searched whole anyway."""
RETRY_SECONDS: Final = 1.0
LEAST_TRAINING_ROWS: Final = 1_000
"""FAISS trains no list on less than one row, and there are 1,000 lists at most."""
WRITING_THREADS: Final = 1

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """A collection that nobody but this engine writes to."""

    folder: Path
    log: WriteLog
    at_end: ExitStack
    writing: threading.Lock = field(default_factory=threading.Lock)
    sealing: threading.Lock = field(default_factory=threading.Lock)
    problem: str | None = None
    """Why the last seal did not come about."""


class Writer:
    """The writes of one engine. Every method may be called from any thread."""

    def __init__(
        self,
        data_folder: Path,
        embedder: Embedder,
        indexes: ServedIndexes,
        ledger: Ledger,
        left: Callable[[str], object],
    ) -> None:
        """`left` hears the name of each collection whose generation changed."""
        self._data_folder = data_folder
        self._embedder = embedder
        self._catalog: Catalog = indexes.catalog
        self._indexes = indexes
        self._ledger = ledger
        self._left = left
        self._held: dict[str, _Held] = {}
        self._holding = threading.RLock()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._seal_when_due, name="seal", daemon=True)

    def start(self) -> None:
        """Take over every collection that is served, and seal in the background from now on.

        One that cannot be taken over is told, and served as it was sealed; writes to it are refused with the reason.
        """
        for name in list(self._catalog.collections):
            try:
                self._take(name)
            except (EngineError, OSError) as error:
                log.error("%s is served without what was written since its generation: %s", name, error)  # noqa: TRY400
        self._thread.start()
        self._wake.set()

    def upsert(
        self,
        name: str,
        chunks: Sequence[Chunk],
        vectors: Vectors | None = None,
        representation: Representation = "Exact",
    ) -> int:
        """Makes these chunks hold, in place of those with their ids; they survive a crash once this returns.

        A collection that is not there is made of them, in this representation. Without vectors they are embedded.
        Gives how many there are now in the collection.

        Raises:
            WriteInvalid, ReadOnly, WriteFailed, WriteLogInvalid: nothing was written.
            SealPending, NoRoom: likewise, and it may be tried again.
            BuildFailed: likewise, and there is no collection.
        """
        if not chunks or not all(chunk.id for chunk in chunks):
            raise WriteInvalid("a write has one chunk at least, and every chunk an id")
        once = {chunk.id: place for place, chunk in enumerate(chunks)}
        kept = sorted(once.values())
        embedded = self._embedded(chunks) if vectors is None else vectors
        chunks, embedded = [chunks[place] for place in kept], _checked(embedded, len(chunks))[kept]
        with self._holding:
            if self._missing(name):
                self._make(name, chunks, embedded, representation, given=vectors is not None)
                return self._count(name)
        held = self._take(name)
        with held.writing, self._catalog.use(name) as opened:
            self._check_fits(opened.manifest, embedded, given=vectors is not None)
            self._admit(name, held, opened, len(chunks))
            self._write(held, opened, list(map(Write, (chunk.id for chunk in chunks), chunks, embedded)))
            count = opened.count
        passed(Failpoint.APPLIED)
        self._wake_when_due(name)
        return count

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Makes these ids no more found; how many of them were there. It needs no room in memory.

        Raises CollectionMissing, ReadOnly, WriteFailed, WriteLogInvalid: nothing was deleted.
        """
        held = self._take(name)
        with held.writing, self._catalog.use(name) as opened:
            there = [chunk_id for chunk_id in dict.fromkeys(ids) if opened.chunk(chunk_id) is not None]
            if there:
                self._write(held, opened, [Write(chunk_id) for chunk_id in there])
        passed(Failpoint.APPLIED)
        self._wake_when_due(name)
        return len(there)

    def seal(self, name: str) -> bool:
        """Seals now what was written; False when nothing was, or nothing would be left.

        Raises:
            NoRoom, ValueTooLarge: with the bytes that building takes; everything stays as it is.
            BuildFailed, OSError and what opening a generation raises: likewise.
        """
        held = self._take(name)
        with held.sealing, self._catalog.use(name) as opened:
            overlay = opened.overlay
            assert overlay is not None
            with held.writing:
                through, masked, count = overlay.sequence, overlay.masked.copy(), opened.count
            if not through or not count:
                return False
            manifest = opened.manifest
            plan = Plan(
                name, manifest.embedder, manifest.dimension, WRITING_THREADS, manifest.representation, sealed=through
            )
            former = opened.generation
            with self._room_to_build(name, plan, count) as granted:
                passed(Failpoint.SEAL_BEGUN)
                generation = publish_next(
                    held.folder,
                    granted,
                    lambda building: write_sealed(
                        building, former, np.flatnonzero(masked).tolist(), held.log, through, lambda: self._ended
                    ),
                )
            self._serve_sealed(held, opened, generation)
        return True

    def close(self) -> None:
        """Ends: a seal under way is given up, what was written is in the log."""
        self._ended = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._holding:
            for held in self._held.values():
                held.at_end.close()
            self._held.clear()

    def _missing(self, name: str) -> bool:
        return name not in self._catalog.collections

    def _count(self, name: str) -> int:
        with self._catalog.use(name) as opened:
            return opened.count

    def _take(self, name: str) -> _Held:
        """The collection as held by this engine, taken over first where it is not; raises ReadOnly when it cannot."""
        held = self._held.get(name)
        if held is not None:
            return held
        with self._holding, ExitStack() as on_failure:
            if name in self._held:
                return self._held[name]
            if self._missing(name):
                raise CollectionMissing(f"no collection {name!r}")
            folder = self._data_folder / name
            on_failure.enter_context(sole_builder(folder))
            with self._indexes.changing:
                opened = self._newest(folder, name)
                written = WriteLog(folder, opened.manifest.dimension, opened.manifest.sealed)
                on_failure.callback(written.close)
                self._catalog.lay_over(name, _restored(opened, written))
            held = self._held[name] = _Held(folder, written, on_failure.pop_all())
            return held

    def _newest(self, folder: Path, name: str) -> Collection:
        """What is served, brought to what was published before this engine held the folder."""
        opened = self._catalog.collections[name]
        found = opened.generation if is_newest(folder, opened.manifest) else find_newest_generation(folder).found
        if found is None or found.manifest == opened.manifest:
            return opened
        problem = embedder_problem(found.manifest, self._embedder)
        if problem is not None:
            raise ReadOnly(f"{name} has a newer generation that was {problem}")
        newer = open_generation(name, found)
        before = self._catalog.exchange(newer)
        if before is not None:
            self._catalog.retire(before)
            self._left(name)
        return newer

    def _make(
        self, name: str, chunks: Sequence[Chunk], vectors: Vectors, representation: Representation, *, given: bool
    ) -> None:
        """A collection of its first write: no generation is empty, and a published one is as durable as the log."""
        try:
            msgspec.convert(name, CollectionName)
        except msgspec.ValidationError as error:
            raise WriteInvalid(f"{name!r} is no name of a collection: {error}") from None
        folder = self._data_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if generation_directories(folder) or (folder / LOG_FILE).exists():
            raise ReadOnly(f"{name} has generations and none is served; this engine's log says why")
        embedder = f"{GIVEN}{vectors.shape[1]}" if given else self._embedder.name
        plan = Plan(name, embedder, vectors.shape[1], WRITING_THREADS, representation)
        with sole_builder(folder), self._room_to_build(name, plan, len(chunks)) as granted:
            generation = publish_next(folder, granted, lambda building: write_batch(building, chunks, vectors))
        with self._indexes.changing:
            self._catalog.exchange(open_generation(name, generation))
        self._take(name)
        self._indexes.settle()

    def _embedded(self, chunks: Sequence[Chunk]) -> Vectors:
        return self._embedder.embed([chunk.searchable_text() for chunk in chunks])

    def _check_fits(self, manifest: Manifest, vectors: Vectors, *, given: bool) -> None:
        if given != manifest.embedder.startswith(GIVEN):
            how = "vectors" if given else "text"
            raise WriteInvalid(f"{manifest.collection} was made with {manifest.embedder}: it takes no {how}")
        if vectors.shape[1] != manifest.dimension:
            raise WriteInvalid(f"vectors of {manifest.dimension} places are asked for, not of {vectors.shape[1]}")

    def _admit(self, name: str, held: _Held, opened: Collection, rows: int) -> None:
        """Allocates what the delta needs for so many rows more; the collection's write lock is held."""
        overlay = opened.overlay
        assert overlay is not None
        growth = overlay.delta.growth_bytes(rows)
        if overlay.delta.owned_bytes + growth > DELTA_BYTES:
            self._wake.set()
            held_bytes = overlay.delta.owned_bytes
            if growth > DELTA_BYTES:
                raise WriteInvalid(f"{rows} chunks take {growth} bytes, {DELTA_BYTES} is the most at once")
            waiting = held.problem or "they are being sealed"
            raise SealPending(f"{name}: {held_bytes} of {DELTA_BYTES} bytes hold unsealed writes: {waiting}")
        with self._ledger.reserve(INDEX, growth, self._ledger.bounds.ranking.priority(name)):
            overlay.delta.grow(rows)

    def _write(self, held: _Held, opened: Collection, writes: Sequence[Write]) -> None:
        """The collection's write lock is held."""
        overlay = opened.overlay
        assert overlay is not None
        rows = [opened.chunks.row_of(write.id) for write in writes]
        passed(Failpoint.BEFORE_COMMIT)
        numbers = held.log.append(writes)
        passed(Failpoint.AFTER_COMMIT)
        for write, number, row in zip(writes, numbers, rows, strict=True):
            overlay.apply(write, number, row)

    @contextmanager
    def _room_to_build(self, name: str, plan: Plan, count: int) -> Generator[Plan]:
        """The plan with as many rows to train on as there is room for.

        Raises NoRoom or ValueTooLarge, with the bytes of the least that would do.
        """
        rows = training_rows_of(plan, count)
        priority = self._ledger.bounds.ranking.priority(name)
        while True:
            granted = replace(plan, training_rows=rows)
            byte_count = build_bytes(granted, count)
            try:
                self._ledger.set_aside(INDEX, byte_count, priority)
                break
            except (NoRoom, ValueTooLarge):
                if rows <= LEAST_TRAINING_ROWS:
                    raise
                rows = max(LEAST_TRAINING_ROWS, rows // 2)
        try:
            yield granted
        finally:
            self._ledger.return_reserved(INDEX, byte_count)
            self._ledger.trim()

    def _serve_sealed(self, held: _Held, former: Collection, generation: Generation) -> None:
        overlay = former.overlay
        assert overlay is not None
        manifest = generation.manifest
        opened = open_generation(former.name, generation)
        with self._indexes.changing, held.writing:
            newer = overlay.delta.written_after(manifest.sealed)
            sealed = Overlay(manifest.count, manifest.dimension, held.log, newer)
            for number, write in held.log.after(manifest.sealed):
                sealed.mask(opened.chunks.row_of(write.id))
                sealed.sequence = number
            before = self._catalog.exchange(replace(opened, overlay=sealed))
        passed(Failpoint.EXCHANGED)
        if before is not None:
            self._catalog.retire(before)
        self._left(former.name)
        fallback = fallback_manifest(held.folder, manifest.generation)
        if fallback is not None:
            held.log.purge(fallback.sealed)
        passed(Failpoint.PURGED)
        self._indexes.settle()
        log.info("%s: writes up to %d are in generation %d", former.name, manifest.sealed, manifest.generation)

    def _wake_when_due(self, name: str) -> None:
        if self._is_due(name):
            self._wake.set()

    def _is_due(self, name: str) -> bool:
        opened = self._catalog.collections.get(name)
        overlay = None if opened is None else opened.overlay
        if opened is None or overlay is None:
            return False
        full = overlay.delta.owned_bytes > SEAL_FROM_SHARE * DELTA_BYTES
        return full or overlay.masked_rows > max(SEAL_FROM_MASKED_ROWS, SEAL_FROM_MASKED * opened.manifest.count)

    def _seal_when_due(self) -> None:
        retry = False
        while True:
            self._wake.wait(RETRY_SECONDS if retry else None)
            self._wake.clear()
            if self._ended:
                return
            due = [name for name in list(self._held) if self._is_due(name)]
            sealed = [self._sealed_or_told(name) for name in due]
            retry = not all(sealed)

    def _sealed_or_told(self, name: str) -> bool:
        held = self._held[name]
        try:
            self.seal(name)
        except (EngineError, RuntimeMemoryError, OSError) as error:
            if not self._ended and held.problem != str(error):
                log.warning("%s: what was written is not sealed yet: %s", name, error)
            held.problem = str(error)
            return False
        held.problem = None
        return True


def _checked(vectors: Vectors, rows: int) -> Vectors:
    if vectors.ndim != 2 or len(vectors) != rows or not vectors.shape[1]:  # noqa: PLR2004  rows of places
        raise WriteInvalid(f"{rows} chunks need as many vectors of one dimension, not an array of {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise WriteInvalid("a vector has NaN or infinity, which no query can find")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _restored(opened: Collection, written: WriteLog) -> Overlay:
    """Everything in the log that the generation lacks."""
    manifest = opened.manifest
    if written.new and manifest.sealed:
        log.warning("%s: its log is not here: what was written and not sealed is not either", opened.name)
    if written.sequence < manifest.sealed:
        raise WriteLogInvalid(
            f"{opened.name}: its log ends with {written.sequence}, its generation has {manifest.sealed}: "
            "the log is older than the generation; restore it, or move it away"
        )
    overlay = Overlay(manifest.count, manifest.dimension, written)
    for number, write in written.after(manifest.sealed):
        overlay.apply(write, number, opened.chunks.row_of(write.id))
    return overlay
