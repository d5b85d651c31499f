"""Covers letting FAISS map or load an index file that matches its manifest, and where each part of it lies in memory.

It does not cover checking the file's sha256, which comes first (manifest.verify), nor searching (mapped).
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.errors import IndexInvalid
from membudget_engine.index.faiss_layout import check_layout
from membudget_engine.index.manifest import IndexType, Manifest, Representation

ServedIndex = faiss.IndexFlatIP | faiss.IndexIVFFlat | faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer
ListedIndex = faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer

_Addresses = npt.NDArray[np.int64]

_NAMES: dict[IndexType, str] = {
    "Flat": "IndexFlatIP",
    "IVFFlat": "IndexIVFFlat",
    "Scalar": "IndexScalarQuantizer",
    "IVFScalar": "IndexIVFScalarQuantizer",
}
_KINDS: dict[Representation, int] = {"Float16": faiss.ScalarQuantizer.QT_fp16, "Int8": faiss.ScalarQuantizer.QT_8bit}

_FLAT_PART_BYTES = 256 * 1024
"""A flat index has no lists; it goes in parts of this size, so that a page-out stops near what was asked."""

_CODE_BYTES: dict[Representation, int] = {"Exact": 4, "Float16": 2, "Int8": 1}
"""Of one place of a vector."""
_FLOAT_BYTES = 4
_ID_BYTES = 8

_one_at_a_time = threading.Lock()
"""FAISS's limits on what a file may make it allocate belong to the process."""


def read_mapped(file: Path, manifest: Manifest) -> ServedIndex:
    """The index as FAISS maps it.

    Raises IndexInvalid for a type that is not allowed, a file that FAISS refuses, or one that differs from its
    manifest; OSError when it cannot be read.
    """
    return _read(file, manifest, faiss.IO_FLAG_MMAP_IFC)


def read_loaded(file: Path, manifest: Manifest) -> ServedIndex:
    """The index with all its vectors in anonymous memory. Raises as read_mapped."""
    return _read(file, manifest, 0)


def loaded_bytes(manifest: Manifest) -> int:
    """Anonymous bytes of a loaded index of this manifest: vectors, in lists their row ids too, and centroids."""
    vector = manifest.dimension * _CODE_BYTES[manifest.representation]
    ids = _ID_BYTES if manifest.nlist else 0
    return manifest.count * (vector + ids) + manifest.nlist * manifest.dimension * _FLOAT_BYTES


def _read(file: Path, manifest: Manifest, flags: int) -> ServedIndex:
    check_layout(file, manifest)
    # In a sound file nothing is larger than the file, and nothing repeats more often than it has vectors.
    with deserialization_limits(byte_count=file.stat().st_size, repetitions=manifest.count):
        try:
            index = faiss.read_index(str(file), flags)
        except RuntimeError as error:
            raise IndexInvalid(f"{file}: FAISS refuses it ({error}); rebuild it") from error
    return _checked(file, index, manifest)


def part_addresses(index: ServedIndex) -> tuple[_Addresses, _Addresses]:
    """Where each part begins and the address after its end: inverted lists that hold vectors by their number.

    A list's ids follow its vectors in the file, so both are one part. An empty list has the address 0 for both.
    """
    if not isinstance(index, ListedIndex):
        exact = isinstance(index, faiss.IndexFlatIP)
        first = int(index.get_xb() if exact else index.codes.data())
        end = first + index.ntotal * (index.d * _FLOAT_BYTES if exact else index.sq.code_size)
        starts = np.arange(first, end, _FLAT_PART_BYTES, dtype=np.int64)
        return starts, np.minimum(starts + _FLAT_PART_BYTES, end)
    lists = index.invlists
    starts = np.zeros(index.nlist, dtype=np.int64)
    ends = np.zeros(index.nlist, dtype=np.int64)
    for number in range(index.nlist):
        if size := lists.list_size(number):
            starts[number] = int(lists.get_codes(number))
            ends[number] = int(lists.get_ids(number)) + size * _ID_BYTES
    return starts, ends


@contextmanager
def deserialization_limits(*, byte_count: int, repetitions: int) -> Generator[None]:
    """What FAISS may allocate while it reads; afterwards as before, for whoever else reads in this process."""
    with _one_at_a_time:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(byte_count)
        faiss.set_deserialization_loop_limit(repetitions)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


def _checked(file: Path, index: faiss.Index, manifest: Manifest) -> ServedIndex:
    found: tuple[object, ...] = (type(index).__name__, index.d, index.ntotal, index.metric_type)
    shape = manifest.dimension, manifest.count, faiss.METRIC_INNER_PRODUCT
    expected: tuple[object, ...] = (_NAMES[manifest.index_type], *shape)
    if isinstance(index, ListedIndex):
        quantizer = faiss.downcast_index(index.quantizer)
        found = (*found, index.nlist, index.nprobe, type(quantizer).__name__, quantizer.d, quantizer.ntotal)
        expected = (*expected, manifest.nlist, manifest.nprobe, "IndexFlatIP", manifest.dimension, manifest.nlist)
    if isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer):
        code_bytes = manifest.dimension * _CODE_BYTES[manifest.representation]
        found = (*found, index.sq.qtype, index.sq.d, index.sq.code_size, index.sq.trained.size(), index.code_size)
        places = 2 * manifest.dimension if manifest.representation == "Int8" else 0
        expected = (*expected, _KINDS[manifest.representation], manifest.dimension, code_bytes, places, code_bytes)
    if found != expected or not isinstance(index, ServedIndex):
        raise IndexInvalid(f"{file} is {found}, its manifest says {expected}: rebuild it")
    return index
