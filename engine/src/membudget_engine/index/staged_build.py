"""Covers building a generation from a source that may be larger than memory, so that an interruption costs one batch.

It does not cover reading the source (ingest) nor the index and publishing (build). Rows are staged in `.ingesting`
beside the generations: vectors are synced, then the chunk store commits, then `progress.json` is put in place of the
last one. Whoever finds it cuts both files back to what it says and reads on from its position, if the source is still
the same. First he compares all rows with its digest: a generation of damaged ones would hide the last good one. A batch
ends by its bytes; its chunks and vectors, and what is embedded of it, are all that is in memory.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec
import numpy as np

from membudget_contract.decoding import decode_json
from membudget_engine.embedder import GIVEN, Embedder, Vectors
from membudget_engine.errors import BuildFailed, SourceInvalid
from membudget_engine.index.build import Plan, build_bytes, publish_next, sole_builder, training_rows_of
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import VECTORS_FILE, Representation
from membudget_engine.index.vector_file import FLOAT_BYTES
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.record import Record, Source, Step, chained_digest, through
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter
from membudget_engine.stores.write_log import LOG_FILE

STAGING_FOLDER: Final = ".ingesting"
PROGRESS_FILE: Final = "progress.json"

BATCH_SHARE: Final = 8
"""One in so many bytes of the bound is a batch: it is there as records, as one array, and in SQLite's statement."""
LARGEST_BATCH: Final = 4 * 1024 * 1024
LEAST_TRAINING_ROWS: Final = 1_000

_RECORD_BYTES: Final = 1_500
"""Of one beside its text and vector: objects and their places."""


_Count = Annotated[int, msgspec.Meta(ge=0)]
_Digest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")]


class Progress(msgspec.Struct, frozen=True):
    """How far a source was staged, and in all so far."""

    source: str
    """Its identity, and what is done to it: another one begins anew."""
    digest: _Digest
    """Of all staged rows, chained; empty before the first."""
    rows: _Count = 0
    position: _Count = 0
    filtered: _Count = 0


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What is to be made of a source."""

    collection: str
    source: Source
    target: Path
    embedder: Embedder
    threads: int
    memory_bytes: int
    """Anonymous memory at most, beside that of a bare process."""
    representation: Representation = "Exact"
    reduce_to: int | None = None
    steps: tuple[Step, ...] = ()
    step_names: tuple[str, ...] = ()
    """Their identity, since functions have none across processes."""


def ingest(ingestion: Ingestion, progress: Callable[[Progress], None]) -> Generation:
    """Stages all of the source and publishes it as the collection's next generation; `progress` hears of each batch.

    Raises:
        BuildFailed: nothing to store, not enough memory (with the figure), or a full volume.
        ChunkStoreInvalid: an id twice, or what was staged is damaged.
        SourceInvalid, BuildInProgress, OSError: likewise nothing was published.
    """
    ingestion.target.mkdir(parents=True, exist_ok=True)
    with sole_builder(ingestion.target):
        if (ingestion.target / LOG_FILE).exists():
            raise BuildFailed(f"{ingestion.target} holds writes of a writer: write to that, or remove it first")
        staging = ingestion.target / STAGING_FOLDER
        staging.mkdir(exist_ok=True)
        rows = _staged(ingestion, staging, progress)
        plan = _bounded(ingestion, rows)

        def fill(building: Path) -> int:
            for name in (CHUNKS_FILE, VECTORS_FILE):
                # Linked: should the index fail, what was staged is still there.
                os.link(staging / name, building / name)
            return rows

        generation = publish_next(ingestion.target, plan, fill)
        shutil.rmtree(staging)
    return generation


def _staged(ingestion: Ingestion, staging: Path, progress: Callable[[Progress], None]) -> int:
    done = _found_progress(ingestion, staging)
    dimension = _dimension(ingestion)
    vectors_file = staging / VECTORS_FILE
    try:
        with ChunkStoreWriter(staging / CHUNKS_FILE, rows=done.rows) as store, vectors_file.open("a+b") as vectors:
            _check_staged(staging, done, store, vectors, dimension)
            vectors.truncate(done.rows * dimension * FLOAT_BYTES)
            for batch, filtered, position in _batches(ingestion, done.position, dimension):
                rows = _vectors(batch, ingestion.embedder, dimension)
                vectors.write(rows.data)
                _sync(vectors)
                store.add(record.chunk for record in batch)
                store.commit()
                digest = _chained(done.digest, zip((record.chunk for record in batch), rows, strict=True))
                now = Progress(done.source, digest, done.rows + len(batch), position, done.filtered + filtered)
                _put_progress(staging, now)
                done = now
                progress(done)
            if not done.rows:
                raise BuildFailed(f"no chunks for {ingestion.target}: an empty generation would hide the last good one")
            store.seal()
    except sqlite3.Error as error:
        raise BuildFailed(f"{staging / CHUNKS_FILE}: {error}; is the volume full?") from error
    return done.rows


def _check_staged(staging: Path, done: Progress, store: ChunkStoreWriter, vectors: BinaryIO, dimension: int) -> None:
    """Compares every row with the digest. Raises BuildFailed where they differ, ChunkStoreInvalid."""
    if not done.rows:
        return
    vectors.seek(0)
    rows = iter(partial(vectors.read, dimension * FLOAT_BYTES), b"")
    if _chained("", zip(store.chunks(), rows, strict=False)) != done.digest:
        raise BuildFailed(f"{staging} has other rows than were staged: it is damaged; remove it, and build again")


def _chained(digest: str, rows: Iterable[tuple[Chunk, bytes | Vectors]]) -> str:
    chained = bytes.fromhex(digest)
    for chunk, vector in rows:
        chained = chained_digest(chained, chunk, bytes(vector))
    return chained.hex()


def _put_progress(staging: Path, now: Progress) -> None:
    """Puts the new progress in place of the last one, in one step that holds once this returns."""
    aside = staging / f"{PROGRESS_FILE}.part"
    with aside.open("wb") as stream:
        stream.write(msgspec.json.encode(now))
        _sync(stream)
    aside.rename(staging / PROGRESS_FILE)


def _found_progress(ingestion: Ingestion, staging: Path) -> Progress:
    """Where to go on; the folder is emptied when what is there is of another source."""
    identity = " ".join((ingestion.source.extent.identity, ingestion.embedder.name, *ingestion.step_names))
    try:
        found = decode_json((staging / PROGRESS_FILE).read_bytes(), Progress)
    except (OSError, msgspec.DecodeError):
        found = Progress("", "")
    if found.source == identity:
        return found
    for file in staging.iterdir():
        file.unlink()
    return Progress(identity, "")


def _dimension(ingestion: Ingestion) -> int:
    given = ingestion.source.extent.dimension
    return ingestion.embedder.dimension if given is None else given


def _bounded(ingestion: Ingestion, rows: int) -> Plan:
    """The plan, trained on as many rows as the bound allows. Raises BuildFailed with the bytes that would be needed."""
    given = ingestion.source.extent.dimension
    embedder = ingestion.embedder.name if given is None else f"{GIVEN}{given}"
    plan = Plan(
        ingestion.collection,
        embedder,
        _dimension(ingestion),
        ingestion.threads,
        ingestion.representation,
        reduce_to=ingestion.reduce_to,
    )
    training = training_rows_of(plan, rows)
    while True:
        plan = replace(plan, training_rows=training)
        needed = build_bytes(plan, rows)
        if needed <= ingestion.memory_bytes:
            return plan
        if training <= LEAST_TRAINING_ROWS:
            raise BuildFailed(
                f"an index of {rows} vectors takes {needed} bytes to build, {ingestion.memory_bytes} may be used"
            )
        training = max(LEAST_TRAINING_ROWS, training // 2)


def _batches(ingestion: Ingestion, position: int, dimension: int) -> Iterable[tuple[Sequence[Record], int, int]]:
    """Records that passed all steps, how many did not, and the position behind them."""
    most_bytes = min(LARGEST_BATCH, ingestion.memory_bytes // BATCH_SHARE)
    batch, filtered, held = list[Record](), 0, 0
    for record, behind in through(ingestion.steps, ingestion.source.records(position)):
        position = behind
        if record is None:
            filtered += 1
            continue
        batch.append(record)
        held += _RECORD_BYTES + 4 * dimension + len(record.chunk.source) + len(record.chunk.docstring)
        if held >= most_bytes:
            yield batch, filtered, position
            batch, filtered, held = [], 0, 0
    if batch or filtered:
        yield batch, filtered, position


def _vectors(batch: Sequence[Record], embedder: Embedder, dimension: int) -> Vectors:
    given = [record.vector for record in batch if record.vector is not None]
    if not batch:
        return np.zeros((0, dimension), dtype=np.float32)
    if given and len(given) != len(batch):
        raise SourceInvalid("some documents have a vector and some have none: all or none")
    if given and {len(vector) for vector in given} != {dimension}:
        raise SourceInvalid(f"not every vector has {dimension} places, as the first one")
    vectors = np.stack(given) if given else embedder.embed([record.chunk.searchable_text() for record in batch])
    if vectors.shape != (len(batch), dimension):
        raise SourceInvalid(f"vectors have the shape {vectors.shape}, not ({len(batch)}, {dimension})")
    if not np.isfinite(vectors).all():
        raise SourceInvalid("a vector has NaN or infinity, which no query can find")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
