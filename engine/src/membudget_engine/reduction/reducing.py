"""The vectors of a generation in fewer places, while it is built, and what that costs.

Covers: a sample to fit on, the file of vectors written anew, and the share of true neighbours that is still found. Does
not cover the components (`pca`) nor the index over them (`index.build`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from membudget_engine.errors import BuildFailed
from membudget_engine.index.manifest import REDUCTION_FILE, VECTORS_FILE, Reduced
from membudget_engine.index.recall import nearest_rows, recall, recall_sample
from membudget_engine.index.vector_file import ScatteredRows, row_blocks
from membudget_engine.reduction.pca import Fit, Reduction, write_reduction

DEFAULT_DIMENSION: Final = 256
MOST_FITTED: Final = 10_000
BATCH_ROWS: Final = 100

LEAST_RECALL: Final = 0.8
"""Of the true ten neighbours of whole vectors. Below it what is saved is not worth what is not found."""

_SEED: Final = 20_261_121
_SQUARES: Final = 5
"""Of the dimension, in float64, at most at once: products, covariance, its eigenvectors and what finds them."""


def fitting_bytes(full_dimension: int) -> int:
    """Anonymous bytes at most while a reduction is fitted."""
    return _SQUARES * full_dimension**2 * np.dtype(np.float64).itemsize


def reduce_vectors(building: Path, count: int, full_dimension: int, dimension: int) -> Reduced:
    """Puts vectors of so many places into the place of the building folder's, and beside them what they came by.

    Raises:
        BuildFailed: too few of the true neighbours would be found; the vectors are as they were.
        OSError: likewise.
    """
    vectors = building / VECTORS_FILE
    reduction = _fitted(vectors, count, full_dimension, dimension)
    sample = recall_sample(vectors, count, full_dimension)
    aside = vectors.with_name(f"{VECTORS_FILE}.reduced")
    with aside.open("wb") as stream:
        for _, block in row_blocks(vectors, count, full_dimension, BATCH_ROWS):
            stream.write(reduction.rows(block).data)
    asked = np.ascontiguousarray(sample.queries @ reduction.components.T)
    found = nearest_rows(aside, count, dimension, asked, sample.rows)
    share = recall(found, sample.neighbours)
    if share < LEAST_RECALL:
        aside.unlink()
        raise BuildFailed(
            f"{building.parent.name}: {dimension} of {full_dimension} dimensions find {share:.3f} of the true "
            f"neighbours, {LEAST_RECALL} is the least: keep more dimensions, or build it unreduced"
        )
    aside.rename(vectors)
    write_reduction(building / REDUCTION_FILE, reduction)
    return Reduced(full_dimension=full_dimension, recall=share, explained=reduction.explained)


def _fitted(vectors: Path, count: int, full_dimension: int, dimension: int) -> Reduction:
    fit = Fit(full_dimension)
    source = ScatteredRows(vectors, count, full_dimension)
    for batch in _sample(count):
        fit.add(source[batch])
    return fit.reduction(dimension)


def _sample(count: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Up to 10,000 rows, the same for the same count, in the order of the file, a hundred at a time."""
    chosen = np.random.default_rng(_SEED).choice(count, min(count, MOST_FITTED), replace=False)
    rows = np.sort(chosen)
    for first in range(0, len(rows), BATCH_ROWS):
        yield rows[first : first + BATCH_ROWS]
