"""Files of vectors: read as they were written, from any row, and refused where they are something else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_engine.embedder import Vectors
from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest.vector_source import ROWS_PER_BLOCK, VectorSource


def write_fvecs(file: Path, vectors: Vectors) -> None:
    """As the format has it: before each row its dimension."""
    rows = np.empty((len(vectors), vectors.shape[1] + 1), dtype="<f4")
    rows[:, 0] = np.full(len(vectors), vectors.shape[1], dtype="<i4").view("<f4")
    rows[:, 1:] = vectors
    rows.tofile(file)


def _vectors(rows: int, columns: int) -> Vectors:
    return np.random.default_rng(1).standard_normal((rows, columns), dtype=np.float32)


_KINDS = st.sampled_from(["f2", "f4", "f8", "fvecs"])
_COUNTS = st.sampled_from([1, 3, ROWS_PER_BLOCK, 2 * ROWS_PER_BLOCK + 5])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(_COUNTS, st.integers(1, 9), _KINDS, st.data())
def test_rows_come_back_from_any_row_on(
    tmp_path: Path, rows: int, columns: int, kind: str, data: st.DataObject
) -> None:
    """R-E16: numpy's float16 to float64 and fvecs; resumable at each row."""
    vectors = _vectors(rows, columns)
    file = tmp_path / ("rows.fvecs" if kind == "fvecs" else "rows.npy")
    if kind == "fvecs":
        write_fvecs(file, vectors)
    else:
        vectors = vectors.astype(kind).astype(np.float32)
        np.save(file, vectors.astype(kind))
    source = VectorSource(file)
    first = data.draw(st.integers(0, rows))

    records = [*source.records(first)]

    assert (source.extent.end, source.extent.dimension) == (rows, columns)
    assert [(str(row), row + 1) for row in range(first, rows)] == [
        (record.chunk.id, record.position) for record in records
    ]
    for row, record in enumerate(records, first):
        np.testing.assert_array_equal(vectors[row], record.vector)


def _torn(file: Path) -> None:
    np.save(file, _vectors(5, 4))
    file.write_bytes(file.read_bytes()[:-3])


def _pickled(file: Path) -> None:
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _hostile_header(file: Path) -> None:
    np.save(file, _vectors(5, 4))
    content = file.read_bytes().replace(b"(5, 4)", b"(9, 4)")
    file.write_bytes(content)


def _other_dimension(file: Path) -> None:
    write_fvecs(file, _vectors(5, 4))
    content = bytearray(file.read_bytes())
    content[20:24] = (3).to_bytes(4, "little")
    file.write_bytes(content)


def _infinite(file: Path) -> None:
    write_fvecs(file, np.full((2, 2), np.inf, dtype=np.float32))


def _array(values: Any) -> Callable[[Path], None]:
    return lambda file: np.save(file, values)


def _content(content: bytes) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        file.write_bytes(content)

    return make


_MAKERS: dict[str, Callable[[Path], None]] = {
    "torn.npy": _torn,
    "pickled.npy": _pickled,
    "header.npy": _hostile_header,
    "flat.npy": _array(np.zeros(5, dtype=np.float32)),
    "whole.npy": _array(np.zeros((5, 2), dtype=np.int64)),
    "columns.npy": _array(np.asfortranarray(_vectors(5, 4))),
    "none.npy": _array(np.zeros((0, 2), dtype=np.float32)),
    "large.npy": _array(np.full((2, 2), 1e300)),
    "empty.npy": _content(b""),
    "empty.fvecs": _content(b""),
    "torn.fvecs": _content(b"\x04\0\0\0" + b"x" * 15),
    "negative.fvecs": _content(b"\xff\xff\xff\xff"),
    "huge.fvecs": _content(b"\xff\xff\xff\x7f" * 4),
    "dimension.fvecs": _other_dimension,
    "infinite.fvecs": _infinite,
}


@pytest.mark.parametrize("name", _MAKERS)
def test_what_is_no_file_of_vectors_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    """R-E16, fault 116: nothing is unpickled, nothing larger than the file is believed."""
    file = tmp_path / name
    _MAKERS[name](file)

    with pytest.raises(SourceInvalid, match=name):
        list(VectorSource(file).records(0))
