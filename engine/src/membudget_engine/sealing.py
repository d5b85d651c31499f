"""What goes into a generation that a writer seals: the former one's rows that hold, then the writes since.

Covers: chunk store and vectors of the building folder, rows in the same order in both. Does not cover the index over
them nor publishing (`index.build`), nor when (`writer`). In memory are a block of rows or some hundred writes.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import BuildFailed
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import VECTORS_FILE
from membudget_engine.index.steady_file import SteadyFile
from membudget_engine.index.vector_file import block_rows, mapped_rows
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter
from membudget_engine.stores.write_log import WriteLog

_WRITES_AT_ONCE: Final = 256


def write_batch(building: Path, chunks: Sequence[Chunk], vectors: Vectors) -> int:
    """The first rows of a collection; gives how many. Raises BuildFailed, OSError."""
    with _files(building) as (store, rows):
        store.add(chunks)
        rows.write(np.ascontiguousarray(vectors, dtype=np.float32).data)
    return len(chunks)


def write_sealed(
    building: Path,
    former: Generation,
    dropped: Sequence[int],
    written: WriteLog,
    through: int,
    given_up: Callable[[], bool],
) -> int:
    """All rows of the next generation; gives how many. Raises BuildFailed, also when given up, OSError."""
    manifest = former.manifest
    with _files(building) as (store, plain):
        rows = SteadyFile(plain)
        store.copy(former.directory / CHUNKS_FILE, dropped)
        masked = np.zeros(manifest.count, dtype=np.bool_)
        masked[list(dropped)] = True
        vectors = former.directory / VECTORS_FILE
        step = block_rows(manifest.dimension)
        for first in range(0, manifest.count, step):
            _go_on(building, given_up)
            block = mapped_rows(vectors, first, min(step, manifest.count - first), manifest.dimension)
            rows.write(np.ascontiguousarray(block[~masked[first : first + len(block)]]).data)
        count = manifest.count - len(dropped)
        logged = iter(written.after(manifest.sealed, through))
        while batch := [one.write for one in itertools.islice(logged, _WRITES_AT_ONCE)]:
            _go_on(building, given_up)
            store.add(write.chunk for write in batch if write.chunk is not None)
            live = [write.vector for write in batch if write.vector is not None]
            rows.writelines(vector.data for vector in live)
            count += len(live)
    if not count:
        raise BuildFailed(f"nothing is left for {building.parent}: an empty generation cannot be")
    return count


def _go_on(building: Path, given_up: Callable[[], bool]) -> None:
    if given_up():
        raise BuildFailed(f"the engine stops: the writes for {building.parent} stay in their log")


@contextmanager
def _files(building: Path) -> Generator[tuple[ChunkStoreWriter, BinaryIO]]:
    try:
        with ChunkStoreWriter(building / CHUNKS_FILE) as store, (building / VECTORS_FILE).open("wb") as vectors:
            yield store, vectors
            store.seal()
    except sqlite3.Error as error:
        raise BuildFailed(f"{building / CHUNKS_FILE}: {error}; is the volume full?") from error
