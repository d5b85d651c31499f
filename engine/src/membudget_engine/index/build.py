"""Covers building a generation of a collection: chunks in, a published folder of store, vectors and index out.

It does not cover training and filling the FAISS index (faiss_writer), folder names (generations) or opening (mapped).

The invariant is that a folder named `generation-*` is complete and on the disk. The order that keeps it: everything is
written into `.building-<pid>`, each file is synced, the manifest comes last, the folder is synced, then renamed, then
the collection's folder is synced. Interrupted anywhere, the last generation stays the newest. In memory are at most a
batch of chunks, the rows to train on, and the index with its
lists growing: 74 MB above the 48 MB of the bare process for 18,706 vectors of 384 (28.7 MB), by VmHWM.
"""

import fcntl
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from membudget_engine.embedder import Embedder, Vectors
from membudget_engine.errors import BuildFailed, BuildInProgress
from membudget_engine.index.compact_build import write_compact_index
from membudget_engine.index.faiss_writer import ListLayout, write_faiss_index
from membudget_engine.index.generations import (
    BUILDING_PREFIX,
    Generation,
    generation_directories,
    generation_directory,
    remove_leftovers,
    remove_old_generations,
)
from membudget_engine.index.manifest import (
    CODES_FILE,
    INDEX_FILE,
    ORDER_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    FileEntry,
    Manifest,
    Representation,
    entry_of,
    write_manifest,
)
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter

_CHUNKS_PER_BATCH = 500
"""About 1 MB of chunks, and 8 MB in the embedder while it works."""

_WRITERS: dict[Representation, tuple[Callable[..., ListLayout], tuple[str, ...]]] = {
    "Exact": (write_faiss_index, (INDEX_FILE,)),
    "Compact": (write_compact_index, (CODES_FILE, ROWS_FILE, ORDER_FILE)),
}
"""What writes the index of a representation, and the files it consists of."""


def build_collection(
    *,
    collection: str,
    chunks: Iterable[Chunk],
    embedder: Embedder,
    target: Path,
    threads: int,
    progress: Callable[[int], None],
    representation: Representation = "Exact",
) -> Generation:
    """Builds and publishes the next generation of a collection in its folder `target`, which is made when missing.

    `progress` gets the number of chunks stored so far, after each batch. `threads` are FAISS's, for this process from
    then on. Raises BuildInProgress, BuildFailed (no chunks, or vectors of a wrong shape), ChunkStoreInvalid (an id
    twice) or OSError; then nothing was published and nothing is left behind.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _sole_builder(target):
        remove_leftovers(target)
        number = max((number for number, _ in generation_directories(target)), default=0) + 1
        building = target / f"{BUILDING_PREFIX}{os.getpid()}"
        building.mkdir()
        try:
            count = _write_chunks(building, chunks, embedder, progress)
            write_index, index_files = _WRITERS[representation]
            lists = write_index(building, count=count, dimension=embedder.dimension, threads=threads)
            files = {name: _synced_entry(building / name) for name in (CHUNKS_FILE, VECTORS_FILE, *index_files)}
            manifest = Manifest(
                collection=collection,
                generation=number,
                count=count,
                dimension=embedder.dimension,
                index_type=lists.index_type,
                nlist=lists.nlist,
                nprobe=lists.nprobe,
                representation=representation,
                code_bits=lists.code_bits,
                rerank=lists.rerank,
                recall=lists.recall,
                embedder=embedder.name,
                created=datetime.now(UTC),
                files=files,
            )
            published = _publish(building, manifest, generation_directory(target, number))
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        remove_old_generations(target, number)
    return Generation(published, manifest)


@contextmanager
def _sole_builder(target: Path) -> Generator[None]:
    """Holds the build lock of a collection: the kernel frees it when the builder dies, unlike a file with its pid.

    A pid says nothing on a shared volume, where every container has a process 1.
    """
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuildInProgress(f"another process builds in {target}: wait for it, or end it") from error
        yield
    finally:
        os.close(descriptor)


def _write_chunks(building: Path, chunks: Iterable[Chunk], embedder: Embedder, progress: Callable[[int], None]) -> int:
    """Fills the chunk store and the vectors file in the same order; gives how many."""
    count = 0
    remaining = iter(chunks)
    try:
        with ChunkStoreWriter(building / CHUNKS_FILE) as store, (building / VECTORS_FILE).open("wb") as vectors:
            while batch := list(itertools.islice(remaining, _CHUNKS_PER_BATCH)):
                store.add(batch)
                vectors.write(_embedded(batch, embedder).data)
                count += len(batch)
                progress(count)
            store.seal()
    except sqlite3.Error as error:
        raise BuildFailed(f"{building / CHUNKS_FILE}: {error}; is the volume full?") from error
    if count == 0:
        raise BuildFailed(f"no chunks for {building.parent}: an empty generation would hide the last good one")
    return count


def _embedded(batch: list[Chunk], embedder: Embedder) -> Vectors:
    vectors = np.ascontiguousarray(embedder.embed([chunk.searchable_text() for chunk in batch]), dtype=np.float32)
    expected = (len(batch), embedder.dimension)
    if vectors.shape != expected:
        raise BuildFailed(f"embedder {embedder.name} gave vectors of shape {vectors.shape}, not {expected}")
    if not np.isfinite(vectors).all():
        raise BuildFailed(f"embedder {embedder.name} gave vectors with NaN or infinity, which no query can find")
    return vectors


def _publish(building: Path, manifest: Manifest, directory: Path) -> Path:
    _sync(write_manifest(building, manifest))
    _sync(building)
    building.rename(directory)
    _sync(directory.parent)
    return directory


def _synced_entry(file: Path) -> FileEntry:
    _sync(file)
    return entry_of(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
