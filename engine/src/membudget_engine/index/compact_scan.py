"""Covers which lists of a compact index a query scans, and what the codes in them put first.

It does not cover reading codes from a file (compact_codes), the rows behind them (float_rows) nor how widely an index
looks (compact_probing decides, the manifest says).

A query between two clusters has more lists about as near as the nearest than one inside of a cluster has. So a margin
says how much less alike than the nearest eight on average a list may be: as many codes find more of the neighbours
than they do in a fixed number of lists (docs/decisions/0013).
"""

import math
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors

NEAREST = 8
"""Lists whose average the margin is from: a single nearest one varies more from query to query."""

QUERY_BITS = {1: 4, 2: 2}
"""Of a query against the first bit of a code, by bits of a code. With two the first only sorts out: more found nothing
more and took longer."""

_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probing:
    """How widely a query looks: the lists within a margin, but one at least and so many at most."""

    most: int
    margin: float | None
    """Inner products, for a query of length 1; None for as many lists as there may be."""

    def lists(self, likeness: Vectors, length: float) -> _Int64:
        """Which, best first, of those that are so alike to a query of this length. None where no likeness is known."""
        if self.margin is None:
            chosen = np.arange(len(likeness))
        else:
            # As plain floats: numpy takes four times as long for the mean of eight.
            eight = _nearest(likeness).tolist()
            least = min(sum(eight) / len(eight) - self.margin * length, max(eight))
            (chosen,) = (likeness >= least).nonzero()
        return chosen[(-likeness[chosen]).argsort(kind="stable")[: self.most]]


def margin_of(likeness: Vectors, lengths: Vectors, scanned: int) -> float:
    """The margin within which queries have so many lists in all; one row of likeness for each of them."""
    # A row of zeros is as far from all lists.
    at_least = np.maximum(lengths, np.finfo(np.float32).tiny)[:, np.newaxis]
    below = ((_nearest(likeness).mean(axis=1, keepdims=True) - likeness) / at_least).ravel()
    return float(np.partition(below, scanned - 1)[scanned - 1])


def _nearest(likeness: Vectors) -> Vectors:
    """Of the nearest lists, or of all where there are fewer, in no order; for one query or a row for each."""
    nearest = likeness.copy()
    if nearest.shape[-1] > NEAREST:
        nearest.partition(-NEAREST)
    return nearest[..., -NEAREST:]


class CodeScan:
    """Lists of codes as they are searched: one query at a time, from any thread."""

    def __init__(self, lists: faiss.IndexIVFRaBitQ, centroids: Vectors, probing: Probing, bits: int) -> None:
        """Centroids are of shape (lists, dimension), rotated. The owner of the lists' memory has to outlive this.

        Centred places of a query are compared by one count of bits, others by two: that is 6 % of the time of a scan.
        """
        self._lists = lists
        self.centroids = centroids
        self._probing = probing
        self._parameters = faiss.IVFRaBitQSearchParameters(nprobe=probing.most, qb=QUERY_BITS[bits], centered=True)

    def first(self, query: Vectors, wanted: int) -> tuple[Vectors, _Int64]:
        """Likeness by code and ids for a rotated query of shape (dimension,), best first; fewer where lists end."""
        likeness = self.centroids @ query
        chosen = self._probing.lists(likeness, math.sqrt(query @ query))
        # FAISS reads as many as there may be; -1 is no list.
        lists = np.empty(self._probing.most, dtype=np.int64)
        lists[: len(chosen)], lists[len(chosen) :] = chosen, -1
        likeness_of_lists = np.zeros(self._probing.most, dtype=np.float32)
        likeness_of_lists[: len(chosen)] = likeness[chosen]
        by_code = np.empty(wanted, dtype=np.float32)
        ids = np.empty(wanted, dtype=np.int64)
        self._lists.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            wanted,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(likeness_of_lists),
            faiss.swig_ptr(by_code),
            faiss.swig_ptr(ids),
            False,  # noqa: FBT003 - ids, not places in lists
            self._parameters,
        )
        if ids[-1] >= 0:
            return by_code, ids
        there = ids >= 0
        return by_code[there], ids[there]
