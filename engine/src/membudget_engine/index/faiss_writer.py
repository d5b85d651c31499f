"""Covers the making of a generation's FAISS index from its vectors file: type, training, writing list by list.

It does not cover where the vectors come from or publishing (build), nor reading (mapped). FAISS trains, finds the list
of each row and encodes; the file is written here, in FAISS's format, because its own lists grow in memory to the size
of the file. In memory are the rows to train on, then 16 bytes a row and a block of rows, whatever the collection has.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import BuildFailed
from membudget_engine.index.manifest import INDEX_FILE, VECTORS_FILE, IndexType, Representation
from membudget_engine.index.recall import COMPARED_ROWS, merged_best, recall, recall_sample
from membudget_engine.index.steady_file import SteadyFile
from membudget_engine.index.vector_file import FLOAT_BYTES, ScatteredRows, block_rows, nearest_lists, row_blocks

FLAT_BELOW = 10_000
"""Vectors: a full scan of 9,999 with 384 places takes 0.6 ms, finds everything, and needs no training."""

MAX_LISTS = 1_000
MAX_TRAINING_ROWS = 100_000
MAX_PROBES = 10

_TRAINING_ROWS_PER_LIST = 64
"""FAISS wants 39 to 256. Twice as many found no more of the true neighbours, and memory grows in proportion."""

_SEED = 20_261_120
"""Fixed: the same chunks give the same index."""

_COUNT_AT: Final = 8
"""Where every index file says how many vectors it has: after its type and its dimension."""
_LENGTH_BYTES: Final = 8
_NO_LISTS_BYTES: Final = 12
"""With which an index without vectors ends: that its lists are sparse, and that there are 0 of them."""

_Codes = npt.NDArray[np.uint8]
_Int64 = npt.NDArray[np.int64]
_ListedIndex = faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer
_ScalarIndex = faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer


@dataclass(frozen=True)
class ListLayout:
    """What the manifest says of an index: its type and lists, both figures 0 for Flat; the rest is for Compact."""

    index_type: IndexType
    nlist: int
    nprobe: int
    probe_margin: float | None = None
    code_bits: int = 0
    rerank: int = 0
    recall: float | None = None


def list_layout(count: int, representation: Representation = "Exact") -> ListLayout:
    """The layout for so many vectors: Flat below 10,000; else min(sqrt(n), 1000) lists, 1 to 10 of them probed."""
    exact = representation == "Exact"
    if count < FLAT_BELOW:
        return ListLayout("Flat" if exact else "Scalar", 0, 0)
    nlist = min(math.isqrt(count), MAX_LISTS)
    return ListLayout("IVFFlat" if exact else "IVFScalar", nlist, max(1, min(MAX_PROBES, nlist // 10)))


def training_rows(count: int, nlist: int) -> int:
    """How many vectors the lists' centroids are trained on."""
    return min(count, nlist * _TRAINING_ROWS_PER_LIST, MAX_TRAINING_ROWS)


def write_faiss_index(
    directory: Path,
    *,
    count: int,
    dimension: int,
    threads: int,
    representation: Representation = "Exact",
    most_training_rows: int = MAX_TRAINING_ROWS,
) -> ListLayout:
    """Writes `index.faiss` beside `vectors.f32` (count x dimension float32). Raises BuildFailed, OSError."""
    layout = list_layout(count, representation)
    file, vectors = directory / INDEX_FILE, directory / VECTORS_FILE
    faiss.omp_set_num_threads(threads)
    wanted = training_rows(count, layout.nlist or MAX_LISTS)
    index = _trained(vectors, count, dimension, layout, representation, min(wanted, most_training_rows))
    empty = faiss.serialize_index(index).tobytes()
    head = empty[:_COUNT_AT] + struct.pack("<q", count) + empty[_COUNT_AT + 8 :]
    nearest = nearest_lists(vectors, count, index.quantizer)[0] if isinstance(index, _ListedIndex) else None
    try:
        with file.open("wb") as plain:
            stream = SteadyFile(plain)
            if nearest is not None:
                _write_lists(stream, head, index, vectors, nearest)
            else:
                _write_flat(stream, head, index, vectors, count)
    except OSError as error:
        raise BuildFailed(f"{file} could not be written: {error}; is the volume full?") from error
    if layout.index_type == "Flat":
        return layout
    reached = _reached(index, vectors, count, nearest)
    return ListLayout(layout.index_type, layout.nlist, layout.nprobe, recall=reached)


def with_lists(empty: bytes, sizes: _Int64) -> bytes:
    """A serialized index without vectors, as it begins when its lists have these sizes.

    Codes and ids of one list after the other follow it in the file.
    """
    return empty[:-_NO_LISTS_BYTES] + b"full" + struct.pack("<Q", len(sizes)) + sizes.astype("<u8").tobytes()


def _trained(
    vectors: Path, count: int, dimension: int, layout: ListLayout, representation: Representation, rows: int
) -> faiss.Index:
    index = _empty_index(dimension, layout, representation)
    if isinstance(index, _ListedIndex):
        index.cp.seed = _SEED
        index.cp.min_points_per_centroid = 1  # else FAISS warns where little memory is granted to train
        index.nprobe = layout.nprobe
    if layout.nlist or representation == "Int8":
        index.train(_training_sample(vectors, count, dimension, rows))
    return index


def _empty_index(dimension: int, layout: ListLayout, representation: Representation) -> faiss.Index:
    metric = faiss.METRIC_INNER_PRODUCT
    if representation == "Exact":
        flat = faiss.IndexFlatIP(dimension)
        return faiss.IndexIVFFlat(flat, dimension, layout.nlist, metric) if layout.nlist else flat
    kind = faiss.ScalarQuantizer.QT_fp16 if representation == "Float16" else faiss.ScalarQuantizer.QT_8bit
    if not layout.nlist:
        return faiss.IndexScalarQuantizer(dimension, kind, metric)
    flat = faiss.IndexFlatIP(dimension)
    return faiss.IndexIVFScalarQuantizer(flat, dimension, layout.nlist, kind, metric, False)  # noqa: FBT003


def _training_sample(vectors: Path, count: int, dimension: int, rows: int) -> Vectors:
    """Rows drawn without repetition, in the order of the file, so that each page of it is read once."""
    drawn = np.random.default_rng(_SEED).choice(count, min(count, rows), replace=False)
    return ScatteredRows(vectors, count, dimension)[np.sort(drawn)]


def _write_flat(stream: SteadyFile, head: bytes, index: faiss.Index, vectors: Path, count: int) -> None:
    code_bytes = index.sq.code_size if isinstance(index, faiss.IndexScalarQuantizer) else index.d * FLOAT_BYTES
    # FAISS counts the vectors of a flat index in floats, codes in bytes.
    length = count * (index.d if isinstance(index, faiss.IndexFlatIP) else code_bytes)
    stream.write(head[:-_LENGTH_BYTES] + struct.pack("<Q", length))
    for _, block in row_blocks(vectors, count, index.d):
        stream.write(_encoded(index, block).data)


def _write_lists(stream: SteadyFile, head: bytes, index: faiss.Index, vectors: Path, nearest: _Int64) -> None:
    """Codes, then row numbers, of one list after the other."""
    assert isinstance(index, _ListedIndex)
    sizes = np.bincount(nearest, minlength=index.nlist)
    order = np.argsort(nearest, kind="stable")
    stream.write(with_lists(head, sizes))
    source = ScatteredRows(vectors, len(nearest), index.d)
    end = 0
    for size in sizes.tolist():
        rows = order[end : end + size]
        end += size
        stream.writelines(_encoded(index, source[block]).data for block in _blocks(rows, block_rows(index.d)))
        stream.write(rows.astype("<i8").data)


def _blocks(rows: _Int64, step: int) -> Iterator[_Int64]:
    return (rows[first : first + step] for first in range(0, len(rows), step))


def _encoded(index: faiss.Index, rows: Vectors) -> Vectors | _Codes:
    if isinstance(index, _ScalarIndex):
        return index.sq.compute_codes(np.ascontiguousarray(rows))
    return np.ascontiguousarray(rows)


def _reached(index: faiss.Index, vectors: Path, count: int, nearest: _Int64 | None) -> float:
    """The recall of an index of these codes and lists, by one pass over the vectors.

    Searching the file itself would read the probed lists of every query from wherever they lie: where memory is short,
    a hundred times the file.
    """
    sample = recall_sample(vectors, count, index.d)
    probed = np.ones((len(sample.queries), 1), dtype=np.bool_)
    if isinstance(index, _ListedIndex):
        _, lists = index.quantizer.search(sample.queries, index.nprobe)
        probed = np.zeros((len(sample.queries), index.nlist), dtype=np.bool_)
        np.put_along_axis(probed, lists, values=True, axis=1)
    scores = np.full(sample.neighbours.shape, -np.inf, dtype=np.float32)
    found = np.full(sample.neighbours.shape, -1, dtype=np.int64)
    for first, block in row_blocks(vectors, count, index.d, COMPARED_ROWS):
        ids = np.arange(first, first + len(block), dtype=np.int64)
        likeness = sample.queries @ _decoded(index, block).T
        unseen = ~probed[:, np.zeros_like(ids) if nearest is None else nearest[ids]]
        likeness[unseen | (sample.rows[:, None] == ids)] = -np.inf
        scores, found = merged_best(scores, found, likeness, ids)
    found[np.isneginf(scores)] = -1
    return recall(found, sample.neighbours)


def _decoded(index: faiss.Index, rows: Vectors) -> Vectors:
    if isinstance(index, _ScalarIndex):
        return index.sq.decode(index.sq.compute_codes(np.ascontiguousarray(rows)))
    return rows
