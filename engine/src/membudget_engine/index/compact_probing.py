"""Covers how widely a compact index looks: the narrowest look that finds enough, by the collection's own rows.

It does not cover the look itself (compact_scan), codes and rows being written (compact_build) nor the truth that is
compared with (recall).
"""

from collections.abc import Callable, Sequence
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

_HALVINGS: Final = 3
"""Of the step in which it becomes enough: the rest of a step would be scanned in vain by every query."""

_MOST_OF_AVERAGE: Final = 2
"""So many times the lists of the average query are the most for any."""

_Tried = tuple[Probing, float]
"""And the recall that it reached."""


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


def narrowest(written: WrittenIndex, sample: RecallSample) -> _Tried:
    """The narrowest probing that finds what is wanted, or all lists. Raises OSError."""
    queries = written.rotation.apply(sample.queries)
    likeness, lengths = queries @ written.centroids.T, np.linalg.norm(queries, axis=1)
    index, lists = map_codes(written.codes)

    def tried(scanned: int) -> _Tried:
        probing = _probing(likeness, lengths, scanned)
        scan = CodeScan(lists, written.centroids, probing, written.bits)
        return probing, _reached(scan, queries, written, sample)

    found = enough(tried, [step * len(queries) for step in probe_steps(likeness.shape[1])])
    del index  # which the lists are parts of
    return found


def enough(tried: Callable[[int], _Tried], steps: Sequence[int]) -> _Tried:
    """The first of steps that look wider and wider, or what lies between it and the one before; else the last."""
    too_narrow, wide = 0, steps[0]
    found = tried(wide)
    for step in steps[1:]:
        if found[1] >= RECALL_WANTED:
            break
        too_narrow, wide = wide, step
        found = tried(wide)
    for _ in range(_HALVINGS if too_narrow and found[1] >= RECALL_WANTED else 0):
        between = (too_narrow + wide) // 2
        narrower = tried(between)
        if narrower[1] >= RECALL_WANTED:
            wide, found = between, narrower
        else:
            too_narrow = between
    return found


def _probing(likeness: Vectors, lengths: Vectors, scanned: int) -> Probing:
    """With which these queries scan so many lists in all, or a few more."""
    queries, nlist = likeness.shape
    if scanned >= queries * nlist:
        return Probing(nlist, None)
    most = min(nlist, -(-_MOST_OF_AVERAGE * scanned // queries))
    return Probing(most, margin_of(likeness, lengths, scanned))


def _reached(scan: CodeScan, queries: Vectors, written: WrittenIndex, sample: RecallSample) -> float:
    order, wanted = written.order, sample.neighbours.shape[1]
    found = np.full(sample.neighbours.shape, -1, dtype=np.int64)
    for query, rotated, own, its_rows in zip(sample.queries, queries, sample.rows, found, strict=True):
        _, positions = scan.first(rotated, min(written.rerank + 1, len(order)))
        others = positions[order[positions] != own]
        best = others[np.argsort(-written.rows.likeness(query, others), kind="stable")[:wanted]]
        its_rows[: len(best)] = order[best]
    return recall(found, sample.neighbours)
