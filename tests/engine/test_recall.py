"""How much of the truth an answer holds, on figures counted by hand and against a plain sort."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.index.recall import QUERIES, recall, recall_sample


def test_the_order_does_not_count_and_none_is_no_hit() -> None:
    """R-E04: four of six true neighbours."""
    found = np.array([[3, 1, 9], [7, -1, -1]])
    exact = np.array([[1, 2, 3], [7, 9, 8]])

    assert recall(found, exact) == pytest.approx(3 / 6)


def test_where_there_is_none_to_find_nothing_is_missed() -> None:
    """R-E04: a collection of one row."""
    assert recall(np.zeros((1, 0), dtype=np.int64), np.zeros((1, 0), dtype=np.int64)) == 1.0


@given(st.integers(1, 20), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_every_neighbour_found_is_one_and_none_is_zero(queries: int, hits: int, seed: int) -> None:
    """R-E04: whatever their order."""
    generator = np.random.default_rng(seed)
    exact = np.stack([generator.choice(100, hits, replace=False) for _ in range(queries)])

    assert recall(generator.permuted(exact, axis=1), exact) == 1.0
    assert recall(exact + 100, exact) == 0.0


@pytest.mark.parametrize("count", [1, 3, 11, 5_000, 9_001])
def test_the_sample_has_the_neighbours_that_a_plain_sort_finds(tmp_path: Path, count: int) -> None:
    """R-E04: block by block, the row itself left out; fewer than ten where there are not so many."""
    vectors = np.random.default_rng(7).standard_normal((count, 8), dtype=np.float32)
    vectors.tofile(tmp_path / "vectors.f32")

    sample = recall_sample(tmp_path / "vectors.f32", count, 8)

    assert len(sample.rows) == min(count, QUERIES)
    np.testing.assert_array_equal(vectors[sample.rows], sample.queries)
    likeness = sample.queries.astype(np.float64) @ vectors.T.astype(np.float64)
    likeness[np.arange(len(sample.rows)), sample.rows] = -np.inf
    expected = np.argsort(-likeness, axis=1, kind="stable")[:, : min(10, count - 1)]
    np.testing.assert_array_equal(expected, sample.neighbours)
