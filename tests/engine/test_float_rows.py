"""Float16 rows in a mapping: every value of the format, sizes that do not fit, and what a prefetch brings in."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.engine_process import wait_until
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.float_rows import FloatRows, prefetch
from membudget_engine.index.page_advice import PAGE_BYTES, resident_bytes
from page_cache import pages_in_memory


def test_every_finite_float16_comes_back_as_it_is(tmp_path: Path) -> None:
    """R-E01: nothing is lost after the rounding to float16, subnormal numbers included."""
    bits = np.arange(65536, dtype=np.uint16).view(np.float16)
    values = np.resize(bits[np.isfinite(bits)], (496, 128))
    values.tofile(tmp_path / "rows.f16")
    rows = FloatRows(tmp_path / "rows.f16", 496, 128)

    for place in range(128):
        likeness = rows.likeness(np.eye(128, dtype=np.float32)[place], np.arange(496))
        np.testing.assert_array_equal(values[:, place].astype(np.float32), likeness)


@pytest.mark.parametrize("size", [0, 1, 1023, 1025])
def test_a_file_of_another_size_is_refused_before_it_is_mapped(tmp_path: Path, size: int) -> None:
    """R-E01: a missing page would be SIGBUS."""
    (tmp_path / "rows.f16").write_bytes(bytes(size))

    with pytest.raises(IndexInvalid, match="1024"):
        FloatRows(tmp_path / "rows.f16", 8, 64)


def test_a_row_beyond_the_last_is_an_error_and_no_memory_of_others(tmp_path: Path) -> None:
    """R-E01: numbers come from a file."""
    (tmp_path / "rows.f16").write_bytes(bytes(1024))
    rows = FloatRows(tmp_path / "rows.f16", 8, 64)

    with pytest.raises(IndexError):
        rows.likeness(np.ones(64, dtype=np.float32), np.array([8]))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_prefetch_brings_the_pages_of_its_rows_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    """R-E01: read-ahead around a row would push out rows that are needed; also where the kernel takes one at a time."""
    file = tmp_path / "rows.f16"
    np.ones((10_000, 384), dtype=np.float16).tofile(file)
    subprocess.run(["sync", str(file)], check=True)
    rows = FloatRows(file, 10_000, 384)
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not pages_in_memory(file).any()
    if one_by_one:
        monkeypatch.setattr("membudget_engine.index.row_prefetch._PROCESS_MADVISE", 100_000)
    # 768 bytes each: row 5 lies on two pages, 4,000 and 4,001 share theirs.
    wanted = np.array([5, 4_000, 4_001, 9_999])

    expected = {byte // PAGE_BYTES for row in wanted.tolist() for byte in (row * 768, row * 768 + 767)}

    prefetch([(rows, wanted)])
    wait_until(lambda: len(expected) <= int(pages_in_memory(file).sum()))
    assert set(np.flatnonzero(pages_in_memory(file)).tolist()) == expected

    rows.likeness(np.ones(384, dtype=np.float32), wanted)
    assert resident_bytes(rows.range) == len(expected) * PAGE_BYTES
