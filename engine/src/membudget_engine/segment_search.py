"""One query over all segments of a generation, and one answer of them.

Covers: asking each segment without its dead rows, numbering rows through, and, where they are Compact, comparing the
best candidates of all segments once. Does not cover one segment (`segment`) nor what was written since (`overlay`).

Of Compact segments only codes are asked one by one. Comparing rows costs more than all else, a page each where it is
cold; the ten nearest are among the candidates of all, so the rows compared do not grow with the number of segments.
Lists are chosen segment by segment: centroids of segments of different sizes cannot be compared (docs/decisions/0021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import itemgetter

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.index.compact import Candidates, compared
from membudget_engine.index.compact_codes import RotatedQuery
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.effort import Effort, compared_rows
from membudget_engine.index.manifest import Manifest
from membudget_engine.segment import Segment

Found = tuple[float, int]
"""Score and row of one hit."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one query asks of every segment."""

    vector: Vectors
    """One, of shape (1, dimension)."""
    hits: int
    effort: Effort = Effort.FULL

    def compared_rows(self, manifest: Manifest) -> int:
        """Of a Compact segment or generation: so many of the best by code, no fewer than hits."""
        return max(self.hits, compared_rows(manifest, self.hits, self.effort))


def find_nearest(
    manifest: Manifest, segments: Sequence[Segment], dead: Sequence[DeadRows], question: Question
) -> list[Found]:
    """Scores and rows of those that hold and are nearest, best first.

    Segments are oldest first, as their manifest has them. Raises QueryInvalid, IndexClosed.
    """
    if manifest.representation == "Compact":
        return _compared_once(manifest, segments, dead, question)
    found: list[Found] = []
    first = 0
    for segment, its_dead in zip(segments, dead, strict=True):
        scores, rows = segment.find(question.vector, question.hits, its_dead, question.effort)
        found += [(score, first + row) for score, row in zip(scores.tolist(), rows.tolist(), strict=True) if row >= 0]
        first += its_dead.count
    found.sort(key=itemgetter(0), reverse=True)
    return found[: question.hits]


def _compared_once(
    manifest: Manifest, segments: Sequence[Segment], dead: Sequence[DeadRows], question: Question
) -> list[Found]:
    query = RotatedQuery(question.vector)
    candidates = [
        segment.candidates(query, question.compared_rows(segment.folder.manifest), its_dead)
        for segment, its_dead in zip(segments, dead, strict=True)
    ]
    if len(candidates) > 1:
        candidates = _first_by_code(candidates, question.compared_rows(manifest))
    scores, rows = compared(question.vector[0], candidates)
    first = accumulate((its_dead.count for its_dead in dead), initial=0)
    numbered = np.concatenate([begin + own for begin, own in zip(first, rows, strict=False)])
    best = np.argsort(-scores, kind="stable")[: question.hits]
    return list(zip(scores[best].tolist(), numbered[best].tolist(), strict=True))


def _first_by_code(candidates: Sequence[Candidates], most: int) -> list[Candidates]:
    """Those of all segments that are most alike by code, each with its segment."""
    likeness = np.concatenate([one.likeness for one in candidates])
    chosen = np.zeros(len(likeness), dtype=np.bool_)
    chosen[np.argsort(-likeness, kind="stable")[:most]] = True
    ends = [*accumulate((len(one.likeness) for one in candidates), initial=0)]
    return [one.only(chosen[begin:end]) for one, (begin, end) in zip(candidates, pairwise(ends), strict=True)]
