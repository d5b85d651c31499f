"""Writes to collections while they are served: upsert and delete.

Covers: the order in which a write becomes durable, found and acknowledged; memory set aside for it. Does not cover the
log (`stores.write_log`), what queries see of it (`overlay`), taking collections over (`held_collections`), publishing
generations (`publishing`, `due_publishing`), HTTP (`write_api`).

A write is admitted, committed to the log with a sync, shown to queries, then acknowledged. A seal publishes the writes
up to a number as a generation, and serves it with what came since. The log forgets only what the fallback generation
has as well: whichever of the two opens after a crash, log and generation together are every acknowledged write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from membudget_contract.policy import CollectionName
from membudget_contract.profiles import INDEX
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, open_generation
from membudget_engine.due_publishing import DELTA_BYTES, DuePublishing
from membudget_engine.embedder import GIVEN, Embedder, Vectors
from membudget_engine.errors import EngineError, ReadOnly, SealPending, WriteInvalid
from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.held_collections import Held, HeldCollections
from membudget_engine.index.build import Plan, publish_next, sole_builder
from membudget_engine.index.delta import block_bytes
from membudget_engine.index.generations import generation_directories
from membudget_engine.index.manifest import Manifest, Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.overlay import Overlay
from membudget_engine.publishing import SEAL, WRITING_THREADS, Publishing
from membudget_engine.sealing import write_batch
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.stores.write_log import LOG_FILE, Write
from membudget_engine.write_problems import Concern
from membudget_runtime.ledger import Ledger

log = logging.getLogger(__name__)


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
        self.held = HeldCollections(data_folder, embedder, indexes, left)
        self.publishing = Publishing(indexes, ledger, left, lambda: self._due.ended)
        self._due = DuePublishing(self._catalog, self.held, self.publishing)

    def start(self) -> None:
        """Take over every collection that is served, and seal in the background from now on.

        One that cannot be taken over is told, and served as it was sealed; writes to it are refused with the reason.
        """
        for name in list(self._catalog.collections):
            try:
                self.held.take(name)
            except (EngineError, OSError) as error:
                log.error("%s is served without what was written since its generation: %s", name, error)  # noqa: TRY400
        self._due.start()

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
        with self.held.holding:
            if self.held.missing(name):
                self._make(name, chunks, embedded, representation, given=vectors is not None)
                return self._count(name)
        held = self.held.take(name)
        with held.writing, self._catalog.use(name) as opened:
            self._check_fits(opened.manifest, embedded, given=vectors is not None)
            self._admit(name, held, opened, len(chunks))
            rows = opened.kept_rows(embedded)
            self._write(held, opened, list(map(Write, (chunk.id for chunk in chunks), chunks, rows)))
            count = opened.count
        passed(Failpoint.APPLIED)
        self._due.wake_when_due(name)
        return count

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Makes these ids no more found; how many of them were there. It needs no room in memory.

        Raises CollectionMissing, ReadOnly, WriteFailed, WriteLogInvalid: nothing was deleted.
        """
        held = self.held.take(name)
        with held.writing, self._catalog.use(name) as opened:
            there = [chunk_id for chunk_id in dict.fromkeys(ids) if opened.chunk(chunk_id) is not None]
            if there:
                self._write(held, opened, [Write(chunk_id) for chunk_id in there])
        passed(Failpoint.APPLIED)
        self._due.wake_when_due(name)
        return len(there)

    def seal(self, name: str) -> bool:
        """Seals now what was written; False when nothing was, or nothing would be left. Raises as `Publishing.seal`."""
        sealed = self.publishing.seal(self.held.take(name))
        self._due.wake()
        return sealed

    def compact(self, name: str) -> bool:
        """Makes one segment of all, now, without dead rows; False when that is so. Raises as `Publishing.compact`."""
        return self.publishing.compact(self.held.take(name), lambda rows, _: range(len(rows)))

    def close(self) -> None:
        """Ends: a seal or compaction under way is given up, what was written is in the log."""
        self._due.close()
        self.held.close()

    def _count(self, name: str) -> int:
        with self._catalog.use(name) as opened:
            return opened.count

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
        with sole_builder(folder), self.publishing.room_to_build(name, plan, len(chunks)) as granted:
            generation = publish_next(folder, granted, lambda building: write_batch(building, chunks, vectors))
        self.publishing.count(SEAL, generation, None)
        with self._indexes.changing:
            self._catalog.exchange(open_generation(name, generation))
        self.held.take(name)
        self._indexes.settle()

    def _embedded(self, chunks: Sequence[Chunk]) -> Vectors:
        return self._embedder.embed([chunk.searchable_text() for chunk in chunks])

    def _check_fits(self, manifest: Manifest, vectors: Vectors, *, given: bool) -> None:
        if given != manifest.embedder.startswith(GIVEN):
            how = "vectors" if given else "text"
            raise WriteInvalid(f"{manifest.collection} was made with {manifest.embedder}: it takes no {how}")
        if vectors.shape[1] != manifest.full_dimension:
            raise WriteInvalid(f"vectors of {manifest.full_dimension} places are asked for, not of {vectors.shape[1]}")

    def _admit(self, name: str, held: Held, opened: Collection, rows: int) -> None:
        """Allocates what the delta needs for so many rows more; the collection's write lock is held."""
        overlay = opened.overlay
        assert overlay is not None
        growth = overlay.delta.growth_bytes(rows)
        most_bytes = self._most_delta_bytes(opened, overlay, rows)
        if overlay.delta.owned_bytes + growth > most_bytes:
            held_bytes = overlay.delta.owned_bytes
            if growth > DELTA_BYTES:
                raise WriteInvalid(f"{rows} chunks take {growth} bytes, {DELTA_BYTES} is the most at once")
            held.refusing = True
            self._due.wake()
            waiting = self._catalog.problems.reason(name, Concern.SEALING) or "they are being sealed"
            raise SealPending(f"{name}: {held_bytes} of {most_bytes} bytes hold unsealed writes: {waiting}")
        with self._ledger.reserve(INDEX, growth, self._ledger.bounds.ranking.priority(name)):
            overlay.delta.grow(rows)

    def _most_delta_bytes(self, opened: Collection, overlay: Overlay, rows: int) -> int:
        """What unsealed writes may hold: beyond it no room would be left to seal them, and they would wait for ever."""
        ceiling = self._ledger.ceiling(INDEX)
        if ceiling is None:
            return DELTA_BYTES
        writes = max(0, overlay.sequence - opened.manifest.sealed) + rows
        others = self._indexes.owned_bytes() - overlay.delta.owned_bytes
        left = ceiling - others - self.publishing.least_seal_bytes(opened, writes)
        # A block at least: where even that cannot be sealed, the seal says so with its figure.
        return min(DELTA_BYTES, max(left, block_bytes(opened.manifest.dimension)))

    def _write(self, held: Held, opened: Collection, writes: Sequence[Write]) -> None:
        """The collection's write lock is held."""
        overlay = opened.overlay
        assert overlay is not None
        rows = opened.chunks.rows_of(write.id for write in writes)
        passed(Failpoint.BEFORE_COMMIT)
        numbers = held.log.append(writes)
        passed(Failpoint.AFTER_COMMIT)
        for write, number in zip(writes, numbers, strict=True):
            overlay.apply(write, number, rows.get(write.id))


def _checked(vectors: Vectors, rows: int) -> Vectors:
    if vectors.ndim != 2 or len(vectors) != rows or not vectors.shape[1]:  # noqa: PLR2004  rows of places
        raise WriteInvalid(f"{rows} chunks need as many vectors of one dimension, not an array of {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise WriteInvalid("a vector has NaN or infinity, which no query can find")
    return np.ascontiguousarray(vectors, dtype=np.float32)
