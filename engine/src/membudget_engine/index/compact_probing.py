"""Covers how widely a compact index looks: the narrowest look that finds enough, by the collection's own rows.

It does not cover the look itself (compact_scan), codes and rows being written (compact_build) nor the truth that is
compared with (recall).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.index.compact_codes import map_codes
from membudget_engine.index.compact_scan import CodeScan, Probing, margin_of
from membudget_engine.index.float_rows import FloatRows
from membudget_engine.index.recall import RecallSample, recall

RECALL_WANTED: Final = 0.955
"""Of the true ten neighbours, in the sample that the margin is chosen by."""

_MOST_OF_AVERAGE: Final = 2
"""So many times the lists of the average query are the most for any."""


@dataclass(frozen=True)
class WrittenIndex:
    """A compact index that nobody serves yet."""

    codes: Path
    rows: FloatRows
    order: npt.NDArray[np.int64]
    rotation: faiss.LinearTransform
    centroids: Vectors
    """Rotated."""
    bits: int
    rerank: int


def probe_steps(nlist: int) -> list[int]:
    """How many lists the average query may look into, from a 32nd up to all, each an eighth more or so."""
    shares = (32, 28, 25, 22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    return sorted({-(-nlist // share) for share in shares})


def narrowest(written: WrittenIndex, sample: RecallSample) -> tuple[Probing, float]:
    """The first step of probing that finds what is wanted, or all lists, and the recall it reached. Raises OSError."""
    queries = written.rotation.apply(sample.queries)
    index, lists = map_codes(written.codes)
    probing, reached = Probing(len(written.centroids), None), 0.0
    for probing in _probings(queries @ written.centroids.T, np.linalg.norm(queries, axis=1)):
        scan = CodeScan(lists, written.centroids, probing, written.bits)
        reached = _reached(scan, queries, written, sample)
        if reached >= RECALL_WANTED:
            break
    del index  # which the lists are parts of
    return probing, reached


def _probings(likeness: Vectors, lengths: Vectors) -> Iterator[Probing]:
    nlist = likeness.shape[1]
    for step in probe_steps(nlist):
        if step == nlist:
            yield Probing(nlist, None)
        else:
            yield Probing(min(nlist, _MOST_OF_AVERAGE * step), margin_of(likeness, lengths, step))


def _reached(scan: CodeScan, queries: Vectors, written: WrittenIndex, sample: RecallSample) -> float:
    order, wanted = written.order, sample.neighbours.shape[1]
    found = np.full(sample.neighbours.shape, -1, dtype=np.int64)
    for query, rotated, own, its_rows in zip(sample.queries, queries, sample.rows, found, strict=True):
        _, positions = scan.first(rotated, min(written.rerank + 1, len(order)))
        others = positions[order[positions] != own]
        best = others[np.argsort(-written.rows.likeness(query, others), kind="stable")[:wanted]]
        its_rows[: len(best)] = order[best]
    return recall(found, sample.neighbours)
