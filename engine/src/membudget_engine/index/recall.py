"""Covers how much of the truth an index finds: the exact neighbours of some rows, and the share of them in an answer.

It does not cover which index is asked (compact_build). The rows asked about are rows of the collection itself, drawn
with a fixed seed, and a row is not counted among its own neighbours.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.index.vector_file import ScatteredRows, row_blocks

HITS = 10
QUERIES = 400
"""Tells recall within 0.005 or so, one standard error at .95 of 4,000 neighbours."""

_SEED = 20_261_121
COMPARED_ROWS = 512
"""At once: 0.8 MB of scores."""

_RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecallSample:
    """Queries, the row that each of them is, and its true neighbours, best first."""

    queries: Vectors
    rows: _RowIds
    neighbours: _RowIds


def recall(found: _RowIds, exact: _RowIds) -> float:
    """The share of the exact neighbours among those found, query by query; 1 where there is none to find.

    The order does not count, -1 is no row.
    """
    if not exact.size:
        return 1.0
    hits = sum(len(np.intersect1d(one[one >= 0], other)) for one, other in zip(found, exact, strict=True))
    return hits / exact.size


def recall_sample(vectors: Path, count: int, dimension: int) -> RecallSample:
    """Exact neighbours of up to 400 rows, 10 each or all there are; reads the whole file once, 512 rows at a time."""
    rows = np.sort(np.random.default_rng(_SEED).choice(count, min(count, QUERIES), replace=False))
    queries = ScatteredRows(vectors, count, dimension)[rows]
    return RecallSample(queries, rows, nearest_rows(vectors, count, dimension, queries, rows))


def nearest_rows(vectors: Path, count: int, dimension: int, queries: Vectors, rows: _RowIds) -> _RowIds:
    """The ten rows with the largest inner products, or all there are, best first; none is the query's own row."""
    hits = min(HITS, count - 1)
    scores = np.full((len(rows), hits), -np.inf, dtype=np.float32)
    neighbours = np.full((len(rows), hits), -1, dtype=np.int64)
    for first, block in row_blocks(vectors, count, dimension, COMPARED_ROWS):
        ids = np.arange(first, first + len(block), dtype=np.int64)
        likeness = queries @ block.T
        likeness[rows[:, None] == ids] = -np.inf
        scores, neighbours = merged_best(scores, neighbours, likeness, ids)
    return neighbours


def merged_best(scores: Vectors, rows: _RowIds, likeness: Vectors, ids: _RowIds) -> tuple[Vectors, _RowIds]:
    """The best so far and a block of others, merged."""
    wanted = scores.shape[1]
    if wanted < likeness.shape[1]:
        # The block's own best only: sorting all of it would take ten times the block.
        ahead = np.sort(np.argpartition(-likeness, wanted, axis=1)[:, :wanted], axis=1)
        likeness, ids = np.take_along_axis(likeness, ahead, axis=1), ids[ahead]
    all_scores = np.concatenate((scores, likeness), axis=1)
    all_rows = np.concatenate((rows, np.broadcast_to(ids, likeness.shape)), axis=1)
    best = np.argsort(-all_scores, axis=1, kind="stable")[:, :wanted]
    return np.take_along_axis(all_scores, best, axis=1), np.take_along_axis(all_rows, best, axis=1)
