"""Covers the codes of a compact index: an empty one to fill, what FAISS is let to read of it, and what it costs.

It does not cover checking sha256s, which comes first (manifest.verify), filling (compact_build) nor searching
(compact).

A vector is rotated at random, then each place of what its centroid leaves over is kept in one or two bits (RaBitQ).
Unrotated, data whose first places say the most lose a third of their recall. Ids in the lists are positions: the
vectors of a list follow one another, so a file of rows in this order has candidates of one list side by side.
"""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.faiss_reader import deserialization_limits
from membudget_engine.index.manifest import Manifest

QUERY_BITS = {1: 4, 2: 2}
"""Of a query against the first bit of a code, by bits of a code. With two the first only sorts out: more found nothing
more and took longer."""

_HEADER = b"IxPT"
_ID_BYTES = 8
_ORDER_BYTES = 4
_FLOAT_BYTES = 4
_FACTOR_BYTES = 8
"""Of one bit: two floats that make an inner product of bits one of vectors."""
_MORE_FACTOR_BYTES = 12
"""And of the second: an error bound and two floats."""

_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CompactCodes:
    """An index whose ids are positions, and the position at which each list begins; the last is the count."""

    index: faiss.IndexPreTransform
    first: _Int64


def new_codes(
    rotation: faiss.LinearTransform, centroids: Vectors, bits: int
) -> tuple[faiss.IndexPreTransform, faiss.IndexIVFRaBitQ]:
    """An empty index as it is written, and the inverted lists in it, which take rotated vectors.

    Centroids are rotated already.
    """
    nlist, dimension = centroids.shape
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centroids)
    lists = faiss.IndexIVFRaBitQ(quantizer, dimension, nlist, faiss.METRIC_INNER_PRODUCT, True, bits)  # noqa: FBT003
    lists.is_trained = True
    lists.qb = QUERY_BITS[bits]
    index = faiss.IndexPreTransform(rotation, lists)
    index.is_trained = True
    return index, lists


def code_bytes(dimension: int, bits: int) -> int:
    """Of one vector: its bits, and the factors that come with them."""
    return -(-dimension // 8) * bits + _FACTOR_BYTES + (_MORE_FACTOR_BYTES if bits > 1 else 0)


def owned_bytes(manifest: Manifest) -> int:
    """Anonymous bytes of open codes: codes with ids and row numbers, centroids, and the rotation."""
    vector = manifest.dimension * _FLOAT_BYTES
    each = code_bytes(manifest.dimension, manifest.code_bits) + _ID_BYTES + _ORDER_BYTES
    return manifest.count * each + (manifest.nlist + manifest.dimension) * vector


def read_codes(file: Path, manifest: Manifest) -> CompactCodes:
    """The codes in anonymous memory, ready to be searched as the manifest says.

    Raises IndexInvalid for a type that is not allowed, a file that FAISS refuses, or one that differs from its
    manifest; OSError when it cannot be read.
    """
    with file.open("rb") as stream:
        header = stream.read(len(_HEADER))
    if header != _HEADER:
        raise IndexInvalid(f"{file} begins with {header!r}, which are no codes: rebuild it")
    # In a sound file nothing is larger than the file, and nothing repeats more often than it has vectors.
    with deserialization_limits(byte_count=file.stat().st_size, repetitions=max(manifest.count, manifest.nlist)):
        try:
            index = faiss.read_index(str(file), 0)
        except RuntimeError as error:
            raise IndexInvalid(f"{file}: FAISS refuses it ({error}); rebuild it") from error
    found, lists = _description(index)
    expected = (
        "IndexPreTransform", 1, "RandomRotationMatrix", manifest.dimension, manifest.dimension,
        manifest.count, faiss.METRIC_INNER_PRODUCT, "IndexIVFRaBitQ", manifest.dimension, manifest.count,
        faiss.METRIC_INNER_PRODUCT, manifest.nlist, manifest.code_bits,
        code_bytes(manifest.dimension, manifest.code_bits), "IndexFlatIP", manifest.nlist,
    )  # fmt: skip
    if found != expected or not isinstance(index, faiss.IndexPreTransform) or lists is None:
        raise IndexInvalid(f"{file} is {found}, its manifest says {expected}: rebuild it")
    lists.nprobe = manifest.nprobe
    lists.qb = QUERY_BITS[manifest.code_bits]
    return CompactCodes(index, _list_starts(file, lists))


def read_order(file: Path, manifest: Manifest) -> npt.NDArray[np.int32]:
    """The row of each position. Raises IndexInvalid when it is not every row once, OSError."""
    order = np.fromfile(file, dtype=np.int32)
    seen = np.zeros(manifest.count, dtype=np.bool_)
    if len(order) == manifest.count and order.min() >= 0 and order.max() < manifest.count:
        seen[order] = True
    if not seen.all():
        raise IndexInvalid(f"{file} does not name each of {manifest.count} rows once: rebuild it")
    return order


def _description(index: faiss.Index) -> tuple[tuple[object, ...], faiss.IndexIVFRaBitQ | None]:
    """What is compared with the manifest, and the inverted lists when it has them."""
    if not isinstance(index, faiss.IndexPreTransform) or index.chain.size() != 1:
        return (type(index).__name__,), None
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    lists = faiss.downcast_index(index.index)
    outside = type(index).__name__, 1, type(rotation).__name__, rotation.d_in, rotation.d_out
    inside = index.ntotal, index.metric_type, type(lists).__name__, lists.d, lists.ntotal, lists.metric_type
    if not isinstance(lists, faiss.IndexIVFRaBitQ):
        return (*outside, *inside), None
    quantizer = faiss.downcast_index(lists.quantizer)
    codes = lists.nlist, lists.rabitq.nb_bits, lists.code_size, type(quantizer).__name__, quantizer.ntotal
    return (*outside, *inside, *codes), lists


def _list_starts(file: Path, lists: faiss.IndexIVFRaBitQ) -> _Int64:
    """Raises IndexInvalid when an id is not the position of its code: it may lie outside the rows."""
    sizes = [lists.invlists.list_size(number) for number in range(lists.nlist)]
    first: _Int64 = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    for number, size in enumerate(sizes):
        if size:
            ids = faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)
            if not np.array_equal(ids, np.arange(first[number], first[number] + size, dtype=np.int64)):
                raise IndexInvalid(f"{file}: ids of list {number} are not its positions: rebuild it")
    return first
