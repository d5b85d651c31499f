"""The layout of an index for its number of vectors, and the index files themselves."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.errors import BuildFailed
from membudget_engine.index.faiss_writer import ListLayout, list_layout, training_rows, write_faiss_index
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE, VECTORS_FILE


@pytest.mark.parametrize(
    ("count", "layout"),
    [
        (1, ListLayout("Flat", 0, 0)),
        (9_999, ListLayout("Flat", 0, 0)),
        (10_000, ListLayout("IVFFlat", 100, 10)),
        (18_706, ListLayout("IVFFlat", 136, 10)),
        (1_000_000, ListLayout("IVFFlat", 1000, 10)),
        (9_000_000, ListLayout("IVFFlat", 1000, 10)),
    ],
)
def test_an_index_is_flat_below_ten_thousand_and_has_lists_above(count: int, layout: ListLayout) -> None:
    """R-E01: flat below 10,000 vectors, IVF above with nlist = min(sqrt(n), 1000)."""
    assert layout == list_layout(count)


@given(st.integers(10_000, 100_000_000))
def test_layout_and_training_keep_their_bounds(count: int) -> None:
    """R-E01: nprobe = max(1, min(10, nlist/10)), trained on at most 100,000 vectors, and on enough for FAISS."""
    layout = list_layout(count)
    rows = training_rows(count, layout.nlist)

    assert max(1, min(10, layout.nlist // 10)) == layout.nprobe
    assert 39 * layout.nlist <= rows <= min(count, 100_000)


def test_an_index_with_lists_holds_the_vectors_of_its_file_under_their_row_numbers(
    listed_generation: Generation,
) -> None:
    """R-E01: added in batches of 10,000; here two, so the second's ids go on where the first's ended."""
    manifest = listed_generation.manifest
    vectors = np.fromfile(listed_generation.directory / VECTORS_FILE, dtype=np.float32).reshape(-1, manifest.dimension)
    index = faiss.read_index(str(listed_generation.directory / INDEX_FILE))
    rows = np.array([0, 9_999, 10_000, 10_499])

    scores, found = index.search(vectors[rows], 1)

    assert (index.ntotal, len(vectors)) == (10_500, 10_500)
    np.testing.assert_array_equal(rows, found[:, 0])
    np.testing.assert_allclose(scores[:, 0], 1.0, rtol=1e-5)


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    """R-E01: a rebuild can be compared."""
    vectors = np.random.default_rng(1).standard_normal((10_000, 8), dtype=np.float32)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        vectors.tofile(folder / VECTORS_FILE)
        write_faiss_index(folder, count=10_000, dimension=8, threads=1)

    first, second = ((folder / INDEX_FILE).read_bytes() for folder in folders)

    assert first == second


def test_an_index_that_cannot_be_written_is_a_failed_build(tmp_path: Path) -> None:
    """R-E01: FAISS's RuntimeError names no file that a person knows."""
    np.zeros((3, 8), dtype=np.float32).tofile(tmp_path / VECTORS_FILE)
    (tmp_path / INDEX_FILE).mkdir()

    with pytest.raises(BuildFailed, match=INDEX_FILE):
        write_faiss_index(tmp_path, count=3, dimension=8, threads=1)
