"""How a build reads a file of vectors: all of it, in order, and no more at once than it asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop_volume import METADATA_BYTES, make_image, mounted, mounted_to_read_far_ahead, require_loop_devices
from membudget_engine.errors import FileDamaged
from membudget_engine.index.vector_file import block_rows, moved_to_means, row_blocks

MB = 1024 * 1024
DIMENSION = 1_024


@given(count=st.integers(1, 40), dimension=st.integers(1, 5), most_rows=st.integers(1, 50))
def test_every_row_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, dimension: int, most_rows: int
) -> None:
    """R-E16: whatever the blocks."""
    file = tmp_path_factory.mktemp("rows") / "vectors.f32"
    rows = np.arange(count * dimension, dtype=np.float32).reshape(count, dimension)
    rows.tofile(file)
    blocks = [(first, np.array(block)) for first, block in row_blocks(file, count, dimension, most_rows)]
    assert list(range(0, count, most_rows)) == [first for first, _ in blocks]
    assert rows.tolist() == np.concatenate([block for _, block in blocks]).tolist()


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    """R-E18: with what to do."""
    file = tmp_path / "vectors.f32"
    np.zeros((4, 3), dtype=np.float32).tofile(file)
    with pytest.raises(FileDamaged, match="ends before row 5: rebuild the generation"):
        list(row_blocks(file, 5, 3))


def test_a_disk_that_reads_far_ahead_brings_in_the_block_asked_for_and_the_next(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E16: pages on their way cannot be reclaimed; by the count of a disk of its own that reads 8 MB ahead."""
    require_loop_devices()
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 96 * MB)
    rows = 40 * MB // (DIMENSION * 4)
    with mounted(image, folder, "noatime", past_the_page_cache=True):
        np.ones((rows, DIMENSION), dtype=np.float32).tofile(folder / "vectors.f32")
    with mounted_to_read_far_ahead(image, folder) as bytes_read:
        before = bytes_read()
        blocks = row_blocks(folder / "vectors.f32", rows, DIMENSION)
        _, block = next(blocks)
        assert (block_rows(DIMENSION), float(block.size)) == (len(block), float(block.sum()))
        read = bytes_read() - before
        del block
        blocks.close()
    publish(f"a block of 2.0 MB on a disk that reads 8 MB ahead: {read / MB:.1f} MB read, the next one included")
    assert 2 * MB <= read <= 2 * 2 * MB + METADATA_BYTES


@pytest.mark.parametrize("count", [1, 2_500])
def test_a_centroid_moves_to_the_mean_of_all_its_rows_and_one_of_no_rows_stays(tmp_path: Path, count: int) -> None:
    """R-E01: of the whole file, of which a block is read at a time."""
    dimension = 256
    assert block_rows(dimension) < 2_500
    generator = np.random.default_rng(count)
    rows = generator.standard_normal((count, dimension), dtype=np.float32)
    rows[:, 0] = 30
    rows.tofile(tmp_path / "vectors.f32")
    centroids = generator.standard_normal((7, dimension), dtype=np.float32)
    centroids[6] = np.eye(1, dimension) * -1
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    nearest = np.argmax(rows @ centroids.T, axis=1)
    assert 6 not in nearest

    expected = centroids.astype(np.float64)
    for number in set(nearest.tolist()):
        mean = rows[nearest == number].mean(axis=0, dtype=np.float64)
        expected[number] = mean / np.linalg.norm(mean)

    np.testing.assert_allclose(
        moved_to_means(tmp_path / "vectors.f32", count, centroids), expected, rtol=1e-4, atol=1e-6
    )
