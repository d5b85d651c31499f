"""Sources are read as they are asked for, whatever the disk would read ahead."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.engine_process import wait_until
from engine.test_vector_source import write_fvecs
from loop_volume import METADATA_BYTES, make_image, mounted, mounted_to_read_far_ahead, require_loop_devices
from membudget_engine.ingest.document_source import DocumentSource, Keys
from membudget_engine.ingest.record import Source
from membudget_engine.ingest.vector_source import VectorSource
from membudget_engine.requested_file import BLOCK_BYTES, opened_by_request

MB = 1024 * 1024
DIMENSION = 1_024
ROWS = 24 * MB // (4 * DIMENSION)
READ_ROWS = 2 * MB // (4 * DIMENSION)


def _fvecs(folder: Path) -> Source:
    write_fvecs(folder / "rows.fvecs", np.ones((ROWS, DIMENSION), dtype=np.float32))
    return VectorSource(folder / "rows.fvecs")


def _npy(folder: Path) -> Source:
    np.save(folder / "rows.npy", np.ones((ROWS, DIMENSION), dtype=np.float32))
    return VectorSource(folder / "rows.npy")


def _lines(folder: Path) -> Source:
    with (folder / "rows.ndjson").open("w") as stream:
        for number in range(ROWS):
            line = json.dumps({"id": str(number), "source": ""})
            stream.write(f"{line[:-2]}{'x' * (4 * DIMENSION - len(line) - 1)}{line[-2:]}\n")
    return DocumentSource(folder / "rows.ndjson", Keys())


@pytest.mark.parametrize("written", [_fvecs, _npy, _lines])
def test_of_a_source_on_a_disk_that_reads_far_ahead_little_more_than_its_records_is_read(
    tmp_path: Path, publish: Callable[[str], None], written: Callable[[Path], Source]
) -> None:
    """R-E16: pages on their way cannot be reclaimed; by the count of a disk of its own that reads 8 MB ahead."""
    require_loop_devices()
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 48 * MB)
    with mounted(image, folder, "noatime", past_the_page_cache=True):
        source = written(folder)
    with mounted_to_read_far_ahead(image, folder) as bytes_read:
        before = bytes_read()
        records = source.records(0)
        assert len([*islice(records, READ_ROWS)]) == READ_ROWS
        read = bytes_read() - before
        del records
    publish(f"{written.__name__}: records of 2.0 MB on a disk that reads 8 MB ahead: {read / MB:.1f} MB read")
    assert 2 * MB <= read <= 2 * MB + 3 * BLOCK_BYTES + METADATA_BYTES


def test_while_a_block_is_used_the_next_one_is_read(tmp_path: Path) -> None:
    """R-E16: so that nobody waits for the disk at every block."""
    require_loop_devices()
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 16 * MB)
    with mounted(image, folder, "noatime", past_the_page_cache=True):
        (folder / "bytes").write_bytes(bytes(4 * MB))
    with mounted_to_read_far_ahead(image, folder) as bytes_read, opened_by_request(folder / "bytes") as stream:
        before = bytes_read()
        assert len(stream.read(BLOCK_BYTES)) == BLOCK_BYTES
        wait_until(lambda: bytes_read() - before >= 2 * BLOCK_BYTES)


@given(
    size=st.integers(0, 3 * BLOCK_BYTES),
    pieces=st.lists(st.integers(1, 2 * BLOCK_BYTES), max_size=5),
    start=st.floats(0, 1),
)
def test_every_byte_comes_in_order_from_any_place_on(
    tmp_path_factory: pytest.TempPathFactory, size: int, pieces: list[int], start: float
) -> None:
    """R-E16: as of any other stream."""
    file = tmp_path_factory.mktemp("requested") / "bytes"
    content = np.random.default_rng(size).bytes(size)
    file.write_bytes(content)
    first = int(start * size)
    with opened_by_request(file) as stream:
        stream.seek(first)
        read = [*map(stream.read, pieces), stream.read()]
    assert content[first:] == b"".join(read)
