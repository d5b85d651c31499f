"""Covers building a generation of a collection: chunks in, a published folder of store, vectors and index out.

It does not cover training and filling the FAISS index (faiss_writer), the rename (publication), folder names
(generations) or opening (mapped).

The invariant is that a folder named `generation-*` is complete and on the disk. The order that keeps it: everything is
written into `.building-<pid>`, each file is synced, the manifest comes last, the folder is synced, then renamed, then
the collection's folder is synced. Interrupted anywhere, the last generation stays the newest. In memory are at most a
batch of chunks, then the rows to train on, then what `build_bytes` says.
"""

import fcntl
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from membudget_engine.embedder import Embedder, Vectors
from membudget_engine.errors import BuildFailed, BuildInProgress
from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.index.compact_build import ROWS_PER_LIST, list_count, write_compact_index
from membudget_engine.index.faiss_writer import (
    MAX_TRAINING_ROWS,
    ListLayout,
    list_layout,
    training_rows,
    write_faiss_index,
)
from membudget_engine.index.generations import Generation, generation_directory, remove_leftovers
from membudget_engine.index.manifest import (
    CODES_FILE,
    INDEX_FILE,
    ORDER_FILE,
    REDUCTION_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    Manifest,
    Reduced,
    Representation,
)
from membudget_engine.index.publication import building_folder, next_number, publish, synced_entry
from membudget_engine.index.vector_file import FLOAT_BYTES, block_rows
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.reduction.reducing import fitting_bytes, reduce_vectors
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter
from membudget_engine.stores.chunk_texts import TEXTS_FILE, write_texts
from membudget_engine.stores.write_log import LOG_FILE

_CHUNKS_PER_BATCH = 500
"""About 1 MB of chunks, and 8 MB in the embedder while it works."""

_STORE_BYTES = 4 * 1024 * 1024
"""SQLite's pages, a batch of chunks, and what recall is measured on."""
_ORDER_BYTES = 8
_QUERIES_BYTES = 8 * 1024 * 1024

_WRITERS: dict[Representation, tuple[Callable[..., ListLayout], tuple[str, ...]]] = {
    "Exact": (write_faiss_index, (INDEX_FILE,)),
    "Float16": (partial(write_faiss_index, representation="Float16"), (INDEX_FILE,)),
    "Int8": (partial(write_faiss_index, representation="Int8"), (INDEX_FILE,)),
    "Compact": (write_compact_index, (CODES_FILE, ROWS_FILE, ORDER_FILE)),
}
"""What writes the index of a representation, and the files it consists of."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next generation of a collection is to be. `threads` are FAISS's, for this process from then on."""

    collection: str
    embedder: str
    dimension: int
    threads: int
    representation: Representation = "Exact"
    training_rows: int = MAX_TRAINING_ROWS
    """At most so many, where memory to train on is short."""
    sealed: int = 0
    """As the manifest's."""
    reduce_to: int | None = None
    """Places of a vector, where it has more: the reduction is fitted on what is built."""
    reduction: tuple[Path, Reduced] | None = None
    """The collection's, by which its vectors were reduced already."""


def training_rows_of(plan: Plan, count: int) -> int:
    """What the index of so many vectors would be trained on, with room for it."""
    if plan.representation == "Compact":
        return min(count, list_count(count) * ROWS_PER_LIST)
    layout = list_layout(count, plan.representation)
    if layout.nlist:
        return training_rows(count, layout.nlist)
    return min(count, MAX_TRAINING_ROWS) if plan.representation == "Int8" else 0


def build_bytes(plan: Plan, count: int) -> int:
    """Anonymous bytes at most while the index of so many vectors is built, without what a bare process has.

    First the rows to train on, twice while FAISS assigns them; then for each row its list and its place in the order.
    Measured against RssAnon in `tests/engine/test_staged_build.py`.
    """
    if plan.reduce_to is not None and plan.reduce_to < plan.dimension:
        reduced = replace(plan, dimension=plan.reduce_to, reduce_to=None)
        return max(fitting_bytes(plan.dimension) + _STORE_BYTES, build_bytes(reduced, count))
    vector = plan.dimension * FLOAT_BYTES
    training = 2 * min(count, plan.training_rows) * vector
    filling = 3 * block_rows(plan.dimension) * vector + count * 2 * _ORDER_BYTES
    lists = list_layout(count, plan.representation).nlist * vector
    if plan.representation == "Compact":
        # The rotation, and 400 queries at once that recall is measured with.
        lists = (list_count(count) + plan.dimension) * vector + _QUERIES_BYTES
    return max(training, filling) + lists + _STORE_BYTES


def build_collection(  # noqa: PLR0913  each is a decision of the caller
    *,
    collection: str,
    chunks: Iterable[Chunk],
    embedder: Embedder,
    target: Path,
    threads: int,
    progress: Callable[[int], None],
    representation: Representation = "Exact",
    reduce_to: int | None = None,
) -> Generation:
    """Builds and publishes the next generation of a collection in its folder `target`, which is made when missing.

    `progress` gets the number of chunks stored so far, after each batch. `threads` are FAISS's, for this process from
    then on. Raises BuildInProgress, BuildFailed (no chunks, vectors of a wrong shape, or a log of writes that the new
    generation would contradict), ChunkStoreInvalid (an id twice) or OSError; then nothing was published and nothing is
    left behind.
    """
    target.mkdir(parents=True, exist_ok=True)
    plan = Plan(collection, embedder.name, embedder.dimension, threads, representation, reduce_to=reduce_to)
    with sole_builder(target):
        if (target / LOG_FILE).exists():
            raise BuildFailed(f"{target} holds writes of a writer: write to that, or remove the collection first")
        return publish_next(target, plan, lambda building: _write_chunks(building, chunks, embedder, progress))


def publish_next(target: Path, plan: Plan, fill: Callable[[Path], int]) -> Generation:
    """Publishes, as a generation of one segment, what `fill` writes into a folder: chunk store and vectors file.

    `fill` gives how many rows, one at least. For the holder of the collection's build lock. Raises as build_collection,
    and what `fill` raises.
    """
    remove_leftovers(target)
    number = next_number(target)
    building = building_folder(target)
    try:
        manifest = write_segment(building, plan, number, fill)
        assert manifest is not None
        return publish(building, manifest, generation_directory(target, number))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def write_segment(folder: Path, plan: Plan, number: int, fill: Callable[[Path], int]) -> Manifest | None:
    """Writes a segment's files into a folder, synced: what `fill` writes, and the index over it.

    Gives its manifest; None where `fill` found no row. Raises BuildFailed, ChunkStoreInvalid, OSError, and what `fill`
    raises.
    """
    count = fill(folder)
    if not count:
        return None
    passed(Failpoint.CHUNKS_SEALED)
    dimension, reduced = _reduced(folder, plan, count)
    write_index, index_files = _WRITERS[plan.representation]
    lists = write_index(
        folder,
        count=count,
        dimension=dimension,
        threads=plan.threads,
        most_training_rows=plan.training_rows,
    )
    _write_texts(folder, count)
    names = (CHUNKS_FILE, TEXTS_FILE, VECTORS_FILE, *index_files, *(() if reduced is None else (REDUCTION_FILE,)))
    files = {name: synced_entry(folder / name) for name in names}
    passed(Failpoint.INDEX_WRITTEN)
    return Manifest(
        collection=plan.collection,
        generation=number,
        count=count,
        dimension=dimension,
        index_type=lists.index_type,
        nlist=lists.nlist,
        nprobe=lists.nprobe,
        probe_margin=lists.probe_margin,
        representation=plan.representation,
        code_bits=lists.code_bits,
        rerank=lists.rerank,
        recall=lists.recall,
        sealed=plan.sealed,
        embedder=plan.embedder,
        reduction=reduced,
        created=datetime.now(UTC),
        files=files,
    )


def _write_texts(folder: Path, count: int) -> None:
    file = folder / TEXTS_FILE
    try:
        write_texts(folder / CHUNKS_FILE, file, count)
    except OSError as error:
        raise BuildFailed(f"{file} could not be written: {error}; is the volume full?") from error


def _reduced(folder: Path, plan: Plan, count: int) -> tuple[int, Reduced | None]:
    """The dimension of the vectors from here on, and how they came by it. Raises BuildFailed, OSError."""
    if plan.reduction is not None:
        file, reduced = plan.reduction
        os.link(file, folder / REDUCTION_FILE)
        return plan.dimension, reduced
    if plan.reduce_to is None or plan.reduce_to >= plan.dimension:
        return plan.dimension, None
    return plan.reduce_to, reduce_vectors(folder, count, plan.dimension, plan.reduce_to)


@contextmanager
def sole_builder(target: Path) -> Generator[None]:
    """Holds the build lock of a collection, or raises BuildInProgress.

    The kernel frees it when the builder dies, unlike a file with its pid: on a shared volume, where every container
    has a process 1, a pid says nothing.
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
