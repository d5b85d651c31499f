"""One query over several segments: which rows it reads, what it finds, and what it is admitted for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compact_folder import clustered_vectors
from engine.written import notes
from membudget_engine.embedder import Vectors
from membudget_engine.index.build import Plan, write_segment
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.compact_codes import RotatedQuery, read_codes
from membudget_engine.index.compact_scan import QUERY_BITS
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.effort import Effort, compared_rows, query_bytes
from membudget_engine.index.generations import SegmentFolder
from membudget_engine.index.manifest import CODES_FILE, ROWS_FILE, VECTORS_FILE, Manifest, Representation
from membudget_engine.index.recall import recall
from membudget_engine.segment import Segment
from membudget_engine.segment_search import Found, Question, find_nearest
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter
from page_cache import pages_in_memory

DIMENSION = 512
"""A row of float16 takes 1 kB, so that rows read are about pages read."""
ROWS = 240


@dataclass(frozen=True)
class _Open:
    """The segments of one generation, and the vectors of their rows, numbered through."""

    manifest: Manifest
    segments: tuple[Segment, ...]
    vectors: Vectors

    def find(self, query: Vectors, hits: int, dead: Sequence[DeadRows] = ()) -> list[Found]:
        own = dead or [DeadRows(segment.folder.manifest.count) for segment in self.segments]
        return find_nearest(self.manifest, self.segments, own, Question(query[None], hits))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Representation, int], _Open]:
    """Makes and opens so many segments of 240 rows each."""

    def make(representation: Representation, number: int) -> _Open:
        vectors = clustered_vectors(number * ROWS, DIMENSION, seed=1)
        folders = [
            _written(tmp_path / str(place), representation, place + 1, own)
            for place, own in enumerate(np.split(vectors, number))
        ]
        manifests = tuple(folder.manifest for folder in folders)
        whole = msgspec.structs.replace(
            manifests[0], count=len(vectors), generation=number, segments=manifests, files={}
        )
        return _Open(whole, tuple(Segment.open(folder) for folder in folders), vectors)

    return make


def _written(directory: Path, representation: Representation, number: int, vectors: Vectors) -> SegmentFolder:
    def fill(building: Path) -> int:
        with ChunkStoreWriter(building / CHUNKS_FILE) as store:
            store.add(notes(range(len(vectors)), "row"))
            store.seal()
        vectors.tofile(building / VECTORS_FILE)
        return len(vectors)

    directory.mkdir()
    manifest = write_segment(directory, Plan("core", "clustered", DIMENSION, 1, representation), number, fill)
    assert manifest is not None
    # All lists are probed: what is missed, the codes or the number of rows compared missed.
    return SegmentFolder(directory, msgspec.structs.replace(manifest, nprobe=manifest.nlist, probe_margin=None))


def test_a_query_reads_no_more_rows_of_eight_segments_than_of_three(
    opened: Callable[[Representation, int], _Open], publish: Callable[[str], None]
) -> None:
    """R-E01: rows are read where codes of all segments say so; each segment's own best would be 200 rows."""
    eight = opened("Compact", 8)
    indexes = [segment.index for segment in eight.segments if isinstance(segment.index, CompactIndex)]
    files = [segment.folder.directory / ROWS_FILE for segment in eight.segments]
    for index, file in zip(indexes, files, strict=True):
        index.page_out(index.mapped_bytes())
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not any(pages_in_memory(file).any() for file in files)

    eight.find(clustered_vectors(1, DIMENSION, seed=2)[0], 10)

    pages = sum(int(pages_in_memory(file).sum()) for file in files)
    each = eight.segments[0].folder.manifest.rerank
    publish(f"Eight Compact segments of {ROWS} rows: a query reads {pages} pages of rows, at most {8 * each} before")
    assert 0 < pages <= 3 * each


def test_what_eight_segments_find_is_what_comparing_each_of_them_found(
    opened: Callable[[Representation, int], _Open], publish: Callable[[str], None]
) -> None:
    """R-E04: against exact truth, and against an answer for which each segment compared its own 25 rows."""
    eight = opened("Compact", 8)
    queries = clustered_vectors(200, DIMENSION, seed=2)
    truth = np.argsort(-(queries @ eight.vectors.T), axis=1, kind="stable")[:, :10]

    once = np.array([[row for _, row in eight.find(query, 10)] for query in queries])
    parts = [segment.index.search(queries, 10) for segment in eight.segments]
    scores = np.concatenate([scores for scores, _ in parts], axis=1)
    rows = np.concatenate([place * ROWS + rows for place, (_, rows) in enumerate(parts)], axis=1)
    each = np.take_along_axis(rows, np.argsort(-scores, axis=1, kind="stable")[:, :10], axis=1)

    publish(
        f"Eight Compact segments: recall@10 {recall(once, truth):.4f}, {recall(each, truth):.4f} with each compared"
    )
    assert recall(once, truth) >= recall(each, truth) - 0.001


@pytest.mark.parametrize("representation", ["Exact", "Int8", "Compact"])
@pytest.mark.parametrize("number", [1, 3])
def test_asked_for_everything_each_row_that_holds_comes_once_and_best_first(
    opened: Callable[[Representation, int], _Open], representation: Representation, number: int
) -> None:
    """R-E18: rows are numbered through from the oldest segment, dead ones left out."""
    some = opened(representation, number)
    dead = [DeadRows(ROWS) for _ in some.segments]
    for row in range(0, ROWS, 3):
        dead[-1].add(row)
    query = clustered_vectors(1, DIMENSION, seed=2)[0]

    found = some.find(query, 10 * ROWS, dead)

    gone = {(number - 1) * ROWS + row for row in range(0, ROWS, 3)}
    assert sorted(row for _, row in found) == [row for row in range(number * ROWS) if row not in gone]
    assert [score for score, _ in found] == sorted((score for score, _ in found), reverse=True)
    np.testing.assert_allclose(
        [score for score, _ in found], some.vectors[[row for _, row in found]] @ query, atol=0.02
    )


def test_a_query_is_rotated_once_for_all_segments_of_a_builder(
    opened: Callable[[Representation, int], _Open],
) -> None:
    """R-E01: and again for codes under another rotation."""
    folders = [segment.folder for segment in opened("Compact", 2).segments]
    first, second = (read_codes(folder.directory / CODES_FILE, folder.manifest) for folder in folders)
    query = RotatedQuery(clustered_vectors(1, DIMENSION, seed=2))

    assert query.under(first) is query.under(second)
    other = dataclasses.replace(first, rotation_digest=b"another")
    assert query.under(first) is not query.under(other)
    every = faiss.IVFRaBitQSearchParameters(nprobe=folders[0].manifest.nlist, qb=QUERY_BITS[2], centered=True)
    np.testing.assert_array_equal(
        first.index.search(query.vectors, 5, params=every)[1][0],
        first.scan.first(query.under(first)[0], 5)[1],
    )


@pytest.mark.parametrize(("number", "rows"), [(1, 22), (2, 44), (3, 66), (8, 66)])
def test_a_query_is_admitted_for_the_rows_it_compares(
    opened: Callable[[Representation, int], _Open], number: int, rows: int
) -> None:
    """R-E21: as float16 and as float32."""
    manifest = opened("Compact", number).manifest
    assert rows == compared_rows(manifest, 10, Effort.FULL)
    assert 2 * rows == compared_rows(manifest, 20, Effort.FULL)
    assert compared_rows(manifest, 10, Effort.REDUCED) * 4 <= rows
    none = msgspec.structs.replace(manifest, rerank=0, segments=())
    assert query_bytes(manifest, 10) - query_bytes(none, 10) == rows * DIMENSION * 6


@given(st.integers(1, 60), st.data())
def test_many_rows_asked_at_once_are_as_dead_as_one_by_one(count: int, data: st.DataObject) -> None:
    """R-E18: also of a segment in which none is."""
    numbers = st.lists(st.integers(0, count - 1))
    dead = DeadRows(count)
    for row in data.draw(numbers):
        dead.add(row)
    asked = data.draw(numbers)
    assert [row in dead for row in asked] == dead.among(np.array(asked, dtype=np.int64)).tolist()
