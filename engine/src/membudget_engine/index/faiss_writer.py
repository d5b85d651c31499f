"""Covers the making of a generation's FAISS index from its vectors file: type, training, filling, writing.

It does not cover where the vectors come from or publishing (build), nor reading (mapped). Vectors are mapped from
their file a batch at a time; what stays in memory is the index.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import BuildFailed
from membudget_engine.index.manifest import INDEX_FILE, VECTORS_FILE, IndexType

FLAT_BELOW = 10_000
"""Vectors: a full scan of 9,999 with 384 places takes 0.6 ms, finds everything, and needs no training."""

MAX_LISTS = 1_000
MAX_TRAINING_ROWS = 100_000
MAX_PROBES = 10
ROWS_PER_BATCH = 10_000

_TRAINING_ROWS_PER_LIST = 64
"""FAISS wants 39 to 256. Twice as many found no more of the true neighbours, and memory grows in proportion."""

_SEED = 20_261_120
"""Fixed: the same chunks give the same index."""


@dataclass(frozen=True)
class ListLayout:
    """What the manifest says of an index: its type and lists, both figures 0 for Flat; the rest is for Compact."""

    index_type: IndexType
    nlist: int
    nprobe: int
    code_bits: int = 0
    rerank: int = 0
    recall: float | None = None


def list_layout(count: int) -> ListLayout:
    """The layout for so many vectors: Flat below 10,000; else min(sqrt(n), 1000) lists, 1 to 10 of them probed."""
    if count < FLAT_BELOW:
        return ListLayout("Flat", 0, 0)
    nlist = min(math.isqrt(count), MAX_LISTS)
    return ListLayout("IVFFlat", nlist, max(1, min(MAX_PROBES, nlist // 10)))


def training_rows(count: int, nlist: int) -> int:
    """How many vectors the lists' centroids are trained on."""
    return min(count, nlist * _TRAINING_ROWS_PER_LIST, MAX_TRAINING_ROWS)


def write_faiss_index(directory: Path, *, count: int, dimension: int, threads: int) -> ListLayout:
    """Writes `index.faiss` beside `vectors.f32` (count x dimension float32). Raises BuildFailed, OSError."""
    layout = list_layout(count)
    file = directory / INDEX_FILE
    faiss.omp_set_num_threads(threads)
    index: faiss.Index = faiss.IndexFlatIP(dimension)
    vectors = directory / VECTORS_FILE
    if layout.index_type == "IVFFlat":
        index = _trained(index, _training_sample(vectors, count, dimension, layout.nlist), layout)
    for first in range(0, count, ROWS_PER_BATCH):
        index.add(_mapped_rows(vectors, first, min(ROWS_PER_BATCH, count - first), dimension))
    try:
        faiss.write_index(index, str(file))
    except RuntimeError as error:
        raise BuildFailed(f"{file} could not be written: {error}; is the volume full?") from error
    return layout


def _trained(quantizer: faiss.Index, sample: Vectors, layout: ListLayout) -> faiss.IndexIVFFlat:
    index = faiss.IndexIVFFlat(quantizer, quantizer.d, layout.nlist, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.nprobe = layout.nprobe
    index.train(sample)
    return index


def _training_sample(vectors: Path, count: int, dimension: int, nlist: int) -> Vectors:
    """Rows drawn without repetition, in the order of the file, so that each page of it is read once."""
    rows = np.random.default_rng(_SEED).choice(count, training_rows(count, nlist), replace=False)
    return _mapped_rows(vectors, 0, count, dimension)[np.sort(rows)]


def _mapped_rows(vectors: Path, first: int, rows: int, dimension: int) -> Vectors:
    # Mapped anew for each batch: pages of batches that are done leave the resident set with their mapping.
    offset = first * dimension * np.dtype(np.float32).itemsize
    return np.memmap(vectors, dtype=np.float32, mode="r", offset=offset, shape=(rows, dimension))
