"""Covers the making of a compact index from a generation's vectors file: codes, rows in their order, and the order.

It does not cover where the vectors come from or publishing (build), how many lists a query is to look into
(compact_probing), nor reading (compact). In memory are the rows to train on, twice while FAISS assigns them, then 16
bytes a row and a block of rows; codes are written list by list.
"""

import math
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import BuildFailed
from membudget_engine.index.compact_codes import new_codes
from membudget_engine.index.compact_probing import WrittenIndex, narrowest
from membudget_engine.index.faiss_writer import MAX_TRAINING_ROWS, ListLayout, with_lists
from membudget_engine.index.float_rows import FloatRows
from membudget_engine.index.manifest import CODES_FILE, ORDER_FILE, ROWS_FILE, VECTORS_FILE
from membudget_engine.index.recall import recall_sample
from membudget_engine.index.steady_file import SteadyFile
from membudget_engine.index.vector_file import ScatteredRows, block_rows, moved_to_means, nearest_lists

MAX_LISTS = 1_000
ROWS_PER_LIST = 64
"""Enough to train on, and no list is left with a handful."""

TWO_BITS_UP_TO = 500_000
"""Vectors: two bits need a rerank of 22 rows where one bit needs 60, and twice the memory."""

_RERANK = {1: 60, 2: 22}
_PASSES = 2
"""Of all rows, after the sample that centroids are trained on. Lists become more even, and those that a query probes
hold a tenth fewer codes at the same recall."""
_SEED = 20_261_120
"""Fixed: the same chunks give the same index."""

_LARGEST_FLOAT16 = 65_504.0

_Int64 = npt.NDArray[np.int64]


def list_count(count: int) -> int:
    """Inverted lists for so many vectors: sqrt(n), of 64 vectors at least, and at most 1,000."""
    return max(1, min(math.isqrt(count), count // ROWS_PER_LIST, MAX_LISTS))


def code_bits(count: int) -> int:
    """Bits of each place of a code, where so many vectors have codes."""
    return 2 if count <= TWO_BITS_UP_TO else 1


def write_compact_index(
    directory: Path, *, count: int, dimension: int, threads: int, most_training_rows: int = MAX_TRAINING_ROWS
) -> ListLayout:
    """Writes codes, rows and order beside `vectors.f32` (count x dimension float32).

    Raises BuildFailed for a value that no float16 can hold, OSError.
    """
    faiss.omp_set_num_threads(threads)
    vectors = directory / VECTORS_FILE
    centroids = _centroids(vectors, count, dimension, most_training_rows)
    for _ in range(_PASSES):
        centroids = moved_to_means(vectors, count, centroids)
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centroids)
    assigned, likeness = nearest_lists(vectors, count, quantizer)
    # Those most like their centroid first: they are among the candidates of most queries, so pages of rows are either
    # asked for often, and stay cached, or seldom.
    order = np.lexsort((-likeness, assigned))
    del likeness
    order.astype(np.int32).tofile(directory / ORDER_FILE)
    bits = code_bits(count)
    rotation = faiss.RandomRotationMatrix(dimension, dimension)
    rotation.init(_SEED)
    rotated = rotation.apply(centroids)
    index, lists = new_codes(rotation, rotated, bits)
    try:
        _write_lists(directory, index, lists, np.bincount(assigned, minlength=lists.nlist), order)
    except OSError as error:
        raise BuildFailed(f"{directory / CODES_FILE} could not be written: {error}; is the volume full?") from error
    rows = FloatRows(directory / ROWS_FILE, count, dimension)
    written = WrittenIndex(directory / CODES_FILE, rows, order, rotation, rotated, bits, _RERANK[bits])
    probing, reached = narrowest(written, recall_sample(vectors, count, dimension))
    return ListLayout("IVFRaBitQ", len(centroids), probing.most, probing.margin, bits, _RERANK[bits], reached)


def _centroids(vectors: Path, count: int, dimension: int, most_rows: int) -> Vectors:
    nlist = list_count(count)
    picked = np.random.default_rng(_SEED).choice(count, min(count, nlist * ROWS_PER_LIST, most_rows), replace=False)
    sample = ScatteredRows(vectors, count, dimension)[np.sort(picked)]
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, nlist, faiss.METRIC_INNER_PRODUCT)
    lists.cp.seed = _SEED
    lists.cp.min_points_per_centroid = 1  # else FAISS warns of a small collection, on which nothing depends
    lists.train(sample)
    return lists.quantizer.reconstruct_n(0, nlist)


def _write_lists(
    directory: Path, index: faiss.IndexPreTransform, lists: faiss.IndexIVFRaBitQ, sizes: _Int64, order: _Int64
) -> None:
    """Codes with their ids into one file, rows into another, both list by list.

    FAISS's own lists would grow in memory to the size of the file, and by doubling.
    """
    source = ScatteredRows(directory / VECTORS_FILE, len(order), lists.d)
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    index.ntotal = lists.ntotal = len(order)
    with (directory / CODES_FILE).open("wb") as codes_file, (directory / ROWS_FILE).open("wb") as rows_file:
        codes, rows = SteadyFile(codes_file), SteadyFile(rows_file)
        codes.write(with_lists(faiss.serialize_index(index).tobytes(), sizes))
        end = 0
        for number, size in enumerate(sizes.tolist()):
            first, end = end, end + size
            for place in range(first, end, block_rows(lists.d)):
                block = source[order[place : min(place + block_rows(lists.d), end)]]
                rows.write(_as_float16(block).data)
                codes.write(_codes(lists, rotation.apply(block), number).data)
            codes.write(np.arange(first, end, dtype="<i8").data)


def _as_float16(block: Vectors) -> npt.NDArray[np.float16]:
    if max(block.max(), -block.min()) > _LARGEST_FLOAT16:
        raise BuildFailed(f"{VECTORS_FILE} has values over {_LARGEST_FLOAT16}, which no float16 can hold")
    return block.astype(np.float16)


def _codes(lists: faiss.IndexIVFRaBitQ, rotated: Vectors, number: int) -> npt.NDArray[np.uint8]:
    """Of rows of one list, relative to its centroid."""
    codes = np.empty((len(rotated), lists.code_size), dtype=np.uint8)
    its_list = np.full(len(rotated), number, dtype=np.int64)
    lists.encode_vectors(
        len(rotated),
        faiss.swig_ptr(rotated),
        faiss.swig_ptr(its_list),
        faiss.swig_ptr(codes),
        False,  # noqa: FBT003
    )
    return codes
