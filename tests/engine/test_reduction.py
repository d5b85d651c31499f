"""Vectors in fewer places and fewer bits: what is lost is measured, and the way back is stored with the way there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from membudget_engine.errors import BuildFailed, FileDamaged
from membudget_engine.index.manifest import REDUCTION_FILE, VECTORS_FILE
from membudget_engine.reduction.pca import Fit, Reduction, read_reduction, write_reduction
from membudget_engine.reduction.quantization import Float16, Int8, Quantization
from membudget_engine.reduction.reducing import reduce_vectors

FULL = 48
KEPT = 12
_Rows = npt.NDArray[np.float32]


def drawn(count: int, directions: int = KEPT - 1, seed: int = 1) -> _Rows:
    """Unit vectors around a common direction, which differ in so many others, and little noise."""
    chance = np.random.default_rng(seed)
    spread = chance.standard_normal((directions, FULL))
    rows = chance.standard_normal((count, directions)) @ spread + 3 + 0.02 * chance.standard_normal((count, FULL))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def fitted(vectors: _Rows, dimension: int = KEPT, batch: int = 100) -> Reduction:
    """In batches."""
    fit = Fit(vectors.shape[1])
    for first in range(0, len(vectors), batch):
        fit.add(vectors[first : first + batch])
    return fit.reduction(dimension)


def test_the_components_are_those_of_all_vectors_at_once() -> None:
    """R-E04: batches of a hundred find what a decomposition of the whole finds, whatever their size."""
    vectors = drawn(1000)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, values, expected = np.linalg.svd(centred, full_matrices=False)

    reduction = fitted(vectors)

    likeness = np.abs(np.sum(reduction.components * expected[:KEPT], axis=1))
    np.testing.assert_allclose(np.ones(KEPT), likeness, atol=1e-3)
    np.testing.assert_allclose(np.eye(KEPT), reduction.components @ reduction.components.T, atol=1e-5)
    assert reduction.explained == pytest.approx((values[:KEPT] ** 2).sum() / (values**2).sum(), abs=1e-4)
    np.testing.assert_allclose(reduction.components, fitted(vectors, batch=37).components, atol=1e-4)
    assert (FULL, KEPT) == (reduction.full_dimension, reduction.dimension)


def test_the_inverse_gives_what_the_components_hold() -> None:
    """R-E04: nearly all of a vector where few directions matter, and exactly it where none is left out."""
    vectors = drawn(500)

    few, all_of_them = fitted(vectors), fitted(vectors, FULL)

    np.testing.assert_allclose(vectors, few.restored(few.rows(vectors)), atol=0.03)
    np.testing.assert_allclose(vectors, all_of_them.restored(all_of_them.rows(vectors)), atol=1e-5)


def test_a_score_is_the_inner_product_with_what_the_inverse_gives() -> None:
    """R-E04: projected queries rank reduced rows as the restored ones would be, and score them the same."""
    vectors, query = drawn(300), drawn(1, seed=5)
    reduction = fitted(vectors)
    rows = reduction.rows(vectors)

    asked, raised = reduction.query(query)

    np.testing.assert_allclose(reduction.restored(rows) @ query[0], rows @ asked[0] + raised, atol=1e-5)


def test_the_file_gives_back_what_was_fitted(tmp_path: Path) -> None:
    """R-E04: bit by bit; a sample always makes the same file."""
    reduction, file = fitted(drawn(400)), tmp_path / "reduction"
    write_reduction(file, reduction)

    back = read_reduction(file)

    assert reduction.mean.tobytes() == back.mean.tobytes()
    assert reduction.components.tobytes() == back.components.tobytes()
    assert reduction.explained == back.explained
    write_reduction(tmp_path / "again", fitted(drawn(400)))
    assert file.read_bytes() == (tmp_path / "again").read_bytes()


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _longer(content: bytes) -> bytes:
    return content + b"x"


def _version(content: bytes) -> bytes:
    return content[:7] + b"2" + content[8:]


def _flipped(content: bytes) -> bytes:
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


def _huge(content: bytes) -> bytes:
    return content[:8] + b"\xff\xff\xff\x7f" + content[12:]


def _none(_content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("change", [_cut, _longer, _version, _flipped, _huge, _none])
def test_a_file_that_is_torn_or_foreign_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """R-E04: versioned and checksummed; a figure in its head allocates nothing."""
    file = tmp_path / "reduction"
    write_reduction(file, fitted(drawn(200)))
    file.write_bytes(change(file.read_bytes()))

    with pytest.raises(FileDamaged, match="rebuild the generation"):
        read_reduction(file)
    with pytest.raises(FileDamaged, match="cannot be read"):
        read_reduction(tmp_path / "missing")


def test_a_build_puts_reduced_vectors_in_the_place_of_whole_ones(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E04: a quarter of the bytes here, with the recall that it costs."""
    building = tmp_path / ".building-1"
    building.mkdir()
    vectors = drawn(12_000)
    (building / VECTORS_FILE).write_bytes(vectors.tobytes())

    reduced = reduce_vectors(building, 12_000, FULL, KEPT)

    rows = np.fromfile(building / VECTORS_FILE, dtype=np.float32).reshape(-1, KEPT)
    reduction = read_reduction(building / REDUCTION_FILE)
    np.testing.assert_allclose(reduction.rows(vectors), rows, atol=1e-5)
    assert FULL == reduced.full_dimension
    assert reduced.explained > 0.98
    assert 0.8 < reduced.recall <= 1.0
    assert {VECTORS_FILE, REDUCTION_FILE} == {file.name for file in building.iterdir()}
    publish(f"PCA of vectors that lie in 12 of 48 directions: recall@10 {reduced.recall:.3f} in a quarter of the bytes")


def test_a_reduction_that_loses_too_much_is_refused(tmp_path: Path) -> None:
    """R-E04: with the figure, and the vectors stay as they were."""
    building = tmp_path / "core" / ".building-1"
    building.mkdir(parents=True)
    vectors = drawn(2000, directions=40)
    (building / VECTORS_FILE).write_bytes(vectors.tobytes())

    with pytest.raises(BuildFailed, match=r"core: 4 of 48 dimensions find 0\.\d+ of the true neighbours"):
        reduce_vectors(building, 2000, FULL, 4)

    assert vectors.tobytes() == (building / VECTORS_FILE).read_bytes()
    assert [VECTORS_FILE] == [file.name for file in building.iterdir()]


@pytest.mark.parametrize("vectors", [np.zeros((50, FULL), dtype=np.float32), drawn(1), drawn(3)])
def test_a_sample_without_much_in_it_fits_all_the_same(vectors: _Rows) -> None:
    """R-E04: equal vectors, one, or fewer than components."""
    reduction = fitted(vectors)

    assert np.isfinite(reduction.components).all()
    np.testing.assert_allclose(vectors, reduction.restored(reduction.rows(vectors)), atol=1e-5)


@given(
    npst.arrays(np.float32, st.integers(1, 64), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([(Float16(), 5e-4), (Int8(), 0.5 / 127 + 1e-6)]),
)
@example(np.array([1e-45], dtype=np.float32), (Int8(), 0.5 / 127 + 1e-6))
@example(np.array([1.9e-43, 1e-45], dtype=np.float32), (Int8(), 0.5 / 127 + 1e-6))
def test_quantization_and_its_inverse_lose_no_more_than_a_step(vector: _Rows, form: tuple[Quantization, float]) -> None:
    """R-E04: of float16 eleven bits stay, of int8 a 127th of the largest place; the parameters are in the bytes."""
    quantization, off_by = form

    stored = quantization.encoded(vector)

    assert quantization.row_bytes(len(vector)) == len(stored)
    back = quantization.decoded(stored)
    assert float(np.abs(vector - back).max()) <= off_by * max(1e-6, float(np.abs(vector).max())) + 1e-7
    assert stored == quantization.encoded(back)
