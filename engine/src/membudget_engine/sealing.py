"""What goes into a new segment: the first rows of a collection, writes of its log, or what holds of older segments.

Covers: chunk store and vectors of the folder, rows in the same order in both. Does not cover the index over them
(`index.build`), nor which segments are made and when (`publishing`). In memory is a block of rows,
or what the log reads at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import BuildFailed
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.generations import SegmentFolder
from membudget_engine.index.manifest import VECTORS_FILE, verify_file
from membudget_engine.index.steady_file import SteadyFile
from membudget_engine.index.vector_file import FLOAT_BYTES, row_blocks
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter
from membudget_engine.stores.write_log import WriteLog


def write_batch(building: Path, chunks: Sequence[Chunk], vectors: Vectors) -> int:
    """The first rows of a collection; gives how many. Raises BuildFailed."""
    with _files(building) as (store, rows):
        store.add(chunks)
        rows.write(np.ascontiguousarray(vectors, dtype=np.float32).data)
    return len(chunks)


def write_logged(building: Path, written: WriteLog, after: int, through: int, given_up: Callable[[], bool]) -> int:
    """The chunks of the log's writes over the first number and up to the second; gives how many.

    Raises BuildFailed, also when given up.
    """
    count = 0
    with _files(building) as (store, rows):
        for _, write in written.after(after, through):
            _go_on(building, given_up)
            if write.chunk is not None:
                store.add([write.chunk])
            if write.vector is not None:
                rows.write(write.vector.data)
                count += 1
    return count


def write_merged(building: Path, former: Sequence[tuple[SegmentFolder, DeadRows]], given_up: Callable[[], bool]) -> int:
    """The rows of these segments that hold, in their order; gives how many.

    Their files are compared with their manifests first: damage that is copied would be sound by the new one.
    Raises FileDamaged, ChunkStoreInvalid, and as write_logged.
    """
    count = 0
    with _files(building) as (store, plain):
        rows = SteadyFile(plain)
        for segment, dead in former:
            live = dead.count - dead.dead
            for name in (CHUNKS_FILE, VECTORS_FILE):
                _go_on(building, given_up)
                verify_file(segment.directory, segment.manifest, name)
            vectors, dimension = segment.directory / VECTORS_FILE, segment.manifest.dimension
            if (
                store.copy(segment.directory / CHUNKS_FILE, dead.numbers()) != live
                or vectors.stat().st_size != dead.count * dimension * FLOAT_BYTES
            ):
                raise BuildFailed(f"{segment.directory} has not the {dead.count} rows of its manifest: rebuild it")
            for first, block in row_blocks(vectors, dead.count, dimension):
                _go_on(building, given_up)
                rows.write(np.ascontiguousarray(block[~dead.flags(first, len(block))]).data)
            count += live
    return count


def _go_on(building: Path, given_up: Callable[[], bool]) -> None:
    if given_up():
        raise BuildFailed(f"the engine stops: what {building} was to hold is where it was")


@contextmanager
def _files(building: Path) -> Generator[tuple[ChunkStoreWriter, BinaryIO]]:
    try:
        with ChunkStoreWriter(building / CHUNKS_FILE) as store, (building / VECTORS_FILE).open("wb") as vectors:
            yield store, vectors
            store.seal()
    except (sqlite3.Error, OSError) as error:
        raise BuildFailed(f"{building} could not be filled: {error}; is the volume full?") from error
