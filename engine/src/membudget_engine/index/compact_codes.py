"""Covers the codes of a compact index: an empty one to fill, what FAISS is let to read of it, and what it costs.

It does not cover checking sha256s, which comes first (manifest.verify), filling (compact_build), searching codes
(compact_scan) nor rows (compact).

A vector is rotated at random, then each place of what its centroid leaves over is kept in one or two bits (RaBitQ).
Unrotated, data whose first places say the most lose a third of their recall. Ids in the lists are positions: the
vectors of a list follow one another, so a file of rows in this order has candidates of one list side by side.

Codes are scanned a list here and a list there, so what a scan waits for is memory. The file is read into one piece of
huge pages, and FAISS searches it where it lies: a fifth of the time of a scan was spent on finding small pages. It is
moved to where centroids begin on a cache line: numpy copies what is not aligned before it multiplies.
"""

import contextlib
import ctypes
import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.compact_scan import QUERY_BITS, CodeScan, Probing
from membudget_engine.index.faiss_reader import deserialization_limits
from membudget_engine.index.faiss_writer import with_lists
from membudget_engine.index.manifest import CODES_FILE, Manifest
from membudget_engine.index.page_advice import MADV_NORMAL, advise, file_mapping_at

_SIZE_BYTES = 8
"""Of the size of a list, and of an id."""
_ORDER_BYTES = 4
_FLOAT_BYTES = 4
_FACTOR_BYTES = 8
"""Of one bit: two floats that make an inner product of bits one of vectors."""
_MORE_FACTOR_BYTES = 12
"""And of the second: an error bound and two floats."""

_HUGE_PAGE_BYTES = 2 * 1024 * 1024
_CACHE_LINE_BYTES = 64
_READ_BYTES = 16 * 1024 * 1024

_Bytes = npt.NDArray[np.uint8]
_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CompactCodes:
    """Lists whose ids are positions, and the position at which each list begins; the last is the count."""

    index: faiss.IndexPreTransform
    """What the rotation and the lists are parts of."""
    rotation: Vectors
    """Its matrix, which FAISS holds."""
    rotation_digest: bytes
    """The same where the rotation is."""
    scan: CodeScan
    first: _Int64
    memory: _Bytes
    """What the index is a view of."""


class _Head(NamedTuple):
    """How a file of codes begins: all before the codes of the first list."""

    content: _Bytes
    fixed: _Int64
    """Places of what is neither a float nor the size of a list."""
    centroids_at: int


class RotatedQuery:
    """Vectors under the rotation of each of the codes they are asked of.

    The builder's rotation depends on the dimension alone, so segments share one and a query is rotated once: each has
    a matrix of its own, and to read it costs more than to search a small segment.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self._rotated: dict[bytes, Vectors] = {}

    def under(self, codes: CompactCodes) -> Vectors:
        """As the lists of these codes take them."""
        rotated = self._rotated.get(codes.rotation_digest)
        if rotated is None:
            rotated = self._rotated[codes.rotation_digest] = self.vectors @ codes.rotation.T
        return rotated


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
    """Anonymous bytes of open codes: their file, of which FAISS copies the rotation, and row numbers."""
    rotation = manifest.dimension * manifest.dimension * _FLOAT_BYTES
    return manifest.files[CODES_FILE].bytes + rotation + manifest.count * _ORDER_BYTES


def read_codes(file: Path, manifest: Manifest) -> CompactCodes:
    """The codes in anonymous memory, ready to be searched as the manifest says.

    Raises IndexInvalid for a type that is not allowed, a file that FAISS refuses, or one that differs from its
    manifest; OSError when it cannot be read.
    """
    room = _in_huge_pages(file)
    # Not before: what a head takes for a moment comes on top of the disk's read-ahead while the file is read.
    head = _head(manifest)
    _check_layout(file, room[:-_CACHE_LINE_BYTES], manifest, head)
    memory = _aligned(room, head.centroids_at)
    # In a sound file nothing is larger than the file, and nothing repeats more often than it has vectors.
    with deserialization_limits(byte_count=len(memory), repetitions=max(manifest.count, manifest.nlist)):
        try:
            index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(memory), len(memory)), 0)
        except RuntimeError as error:
            raise IndexInvalid(f"{file}: FAISS refuses it ({error}); rebuild it") from error
    lists = _lists(index)
    assert isinstance(index, faiss.IndexPreTransform)
    values = faiss.downcast_VectorTransform(index.chain.at(0)).A
    rotation = faiss.rev_swig_ptr(values.data(), values.size()).reshape(lists.d, lists.d)
    digest = hashlib.blake2b(rotation.data, digest_size=16).digest()
    centroids = memory[head.centroids_at :][: manifest.nlist * lists.d * _FLOAT_BYTES].view(np.float32)
    if not np.isfinite(centroids).all():
        raise IndexInvalid(f"{file} has centroids that are no numbers, to which no list is near: rebuild it")
    probing = Probing(manifest.nprobe, manifest.probe_margin)
    scan = CodeScan(lists, centroids.reshape(manifest.nlist, lists.d), probing, manifest.code_bits)
    return CompactCodes(index, rotation, digest, scan, _list_starts(file, lists), memory)


def _check_layout(file: Path, memory: _Bytes, manifest: Manifest, head: _Head) -> None:
    """Raises IndexInvalid when any byte but those of floats, codes and ids is another than the builder writes.

    Of a mapped file FAISS reads beyond the end where sizes lie (faiss_layout); nothing promises better of memory.
    """
    begin = len(head.content)
    expected = begin + manifest.count * (code_bytes(manifest.dimension, manifest.code_bits) + _SIZE_BYTES)
    if len(memory) != expected or not np.array_equal(memory[head.fixed], head.content[head.fixed]):
        raise IndexInvalid(f"{file} is no file of codes as its manifest says, of {expected} bytes: rebuild it")
    sizes = np.frombuffer(memory[begin - manifest.nlist * _SIZE_BYTES : begin].tobytes(), dtype="<u8")
    if int(sizes.max()) > manifest.count or int(sizes.sum()) != manifest.count:
        raise IndexInvalid(f"{file} has lists of other than {manifest.count} vectors: rebuild it")


def _head(manifest: Manifest) -> _Head:
    zeros, ones = _head_of(manifest, 0x00), _head_of(manifest, 0xFF)
    floats = zeros != ones
    behind_centroids = len(floats) - int(floats[::-1].argmax())
    fixed = np.flatnonzero(~floats[: -manifest.nlist * _SIZE_BYTES])
    return _Head(zeros, fixed, behind_centroids - manifest.nlist * manifest.dimension * _FLOAT_BYTES)


def _head_of(manifest: Manifest, filling: int) -> _Bytes:
    """With each byte of a float filled so, and lists of no vector."""
    dimension = manifest.dimension
    rotation = faiss.RandomRotationMatrix(dimension, dimension)
    filled = np.frombuffer(bytes((filling,)) * (dimension * dimension * _FLOAT_BYTES), dtype=np.float32)
    faiss.copy_array_to_vector(filled, rotation.A)
    rotation.is_trained = True
    each = np.frombuffer(bytes((filling,)) * (manifest.nlist * dimension * _FLOAT_BYTES), dtype=np.float32)
    index, lists = new_codes(rotation, each.reshape(manifest.nlist, dimension), manifest.code_bits)
    index.ntotal = lists.ntotal = manifest.count
    sizes = np.zeros(manifest.nlist, dtype=np.int64)
    return np.frombuffer(with_lists(faiss.serialize_index(index).tobytes(), sizes), dtype=np.uint8)


def _lists(index: faiss.Index) -> faiss.IndexIVFRaBitQ:
    assert isinstance(index, faiss.IndexPreTransform)
    lists = faiss.downcast_index(index.index)
    assert isinstance(lists, faiss.IndexIVFRaBitQ)
    return lists


def _in_huge_pages(file: Path) -> _Bytes:
    """The file's bytes in anonymous memory, once: they leave the page cache, where rows need the room.

    Behind them is a cache line of nothing.
    """
    with file.open("rb", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        whole = size // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        most = size + _HUGE_PAGE_BYTES + _CACHE_LINE_BYTES
        memory = mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = -np.frombuffer(memory, dtype=np.uint8).ctypes.data % _HUGE_PAGE_BYTES
        # The rest is less than a huge page and stays in small ones: no byte more than the file is taken. A kernel that
        # was built without huge pages refuses, and all of them are small.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE, start, whole)
        held = memoryview(memory)[start : start + size + _CACHE_LINE_BYTES]
        done = 0
        while done < size and (read := stream.readinto(held[done : min(done + _READ_BYTES, size)])):
            done += read
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if done < size:
        raise IndexInvalid(f"{file} ended {size - done} bytes early while it was read: rebuild it")
    return np.frombuffer(held, dtype=np.uint8)


def _aligned(room: _Bytes, at: int) -> _Bytes:
    """The same bytes, moved so far that the one at this place begins a cache line."""
    start = int(room.ctypes.data)
    move = -(start + at) % _CACHE_LINE_BYTES
    ctypes.memmove(start + move, start, len(room) - _CACHE_LINE_BYTES)
    return room[move : move + len(room) - _CACHE_LINE_BYTES]


def map_codes(file: Path) -> tuple[faiss.Index, faiss.IndexIVFRaBitQ]:
    """The index of a file that this process wrote, mapped: to be measured where memory is short. And its lists."""
    index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    lists = _lists(index)
    centroids = faiss.downcast_index(lists.quantizer)
    assert isinstance(centroids, faiss.IndexFlatIP)
    mapping = file_mapping_at(int(centroids.get_xb()))
    if mapping is not None:
        # FAISS asks for MADV_RANDOM: a read for each page, where whole lists are scanned.
        advise(mapping.range, MADV_NORMAL)
    return index, lists


def read_order(file: Path, manifest: Manifest) -> npt.NDArray[np.int32]:
    """The row of each position. Raises IndexInvalid when it is not every row once, OSError."""
    order = np.fromfile(file, dtype=np.int32)
    seen = np.zeros(manifest.count, dtype=np.bool_)
    if len(order) == manifest.count and order.min() >= 0 and order.max() < manifest.count:
        seen[order] = True
    if not seen.all():
        raise IndexInvalid(f"{file} does not name each of {manifest.count} rows once: rebuild it")
    return order


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
