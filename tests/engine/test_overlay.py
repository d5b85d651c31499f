"""What queries see of writes over a generation, at every moment between two assignments."""

from pathlib import Path

import numpy as np
import pytest

from engine.written import note
from membudget_engine.embedder import Vectors
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.delta import BLOCK_ROWS, Delta, block_bytes
from membudget_engine.overlay import Overlay
from membudget_engine.segment_search import Found
from membudget_engine.stores.write_log import Write, WriteLog

DIMENSION = 4
SEALED = np.eye(DIMENSION, dtype=np.float32)
"""Four rows of a generation of two segments, of one row and of three."""


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """With nothing written."""
    return Overlay([DeadRows(1), DeadRows(3)], DIMENSION, WriteLog(tmp_path, DIMENSION, 0))


def _nearest(vector: Vectors, hits: int) -> list[Found]:
    likeness = SEALED @ vector[0]
    return [(float(likeness[row]), int(row)) for row in np.argsort(-likeness, kind="stable")[:hits]]


def _asked(place: int) -> Vectors:
    return SEALED[place : place + 1]


def test_between_the_new_row_and_the_mask_of_the_old_a_query_finds_the_new_one_alone(overlay: Overlay) -> None:
    """R-E18: never both, whichever thread is interrupted."""
    overlay.delta.put("note-2", SEALED[2], 1, 2)

    assert [(1.0, len(SEALED))] == overlay.find(_nearest, _asked(2), 1)
    found = [row for _, row in overlay.find(_nearest, _asked(2), 10)]
    assert sorted([0, 1, 3, len(SEALED)]) == sorted(found)


def test_between_the_new_row_and_the_end_of_an_older_one_a_query_finds_the_new_one_alone() -> None:
    """R-E18: within the delta."""

    class Interrupted(Delta):
        def _drop(self, row: int | None) -> None:
            del row

    delta = Interrupted(DIMENSION)
    delta.put("note", SEALED[0], 1, None)
    delta.put("note", SEALED[1], 2, None)

    assert [(1.0, 1)] == delta.search(SEALED[1], 5)
    assert delta.id_at(1) == "note"


def test_a_write_ends_the_row_that_it_replaces_in_whichever_segment(overlay: Overlay) -> None:
    """R-E18: rows are numbered through; the first of four is in a segment of its own."""
    for sequence, row in enumerate((0, 3, None, 3), start=1):
        overlay.apply(Write(f"note-{row}"), sequence, row)

    assert [[0], [2]] == [rows.numbers() for rows in overlay.dead]
    assert [True, False, False, True] == [overlay.is_dead(row) for row in range(4)]
    assert (overlay.dead_rows, overlay.sequence, overlay.owned_bytes) == (2, 4, 2)


def test_a_delta_holds_the_bytes_it_says_in_whole_blocks() -> None:
    """R-E10: growing is told before it is done."""
    delta = Delta(DIMENSION)
    assert (delta.owned_bytes, delta.growth_bytes(1)) == (0, block_bytes(DIMENSION))
    for number in range(BLOCK_ROWS + 1):
        delta.put(f"note-{number}", SEALED[0], number, None)
    assert delta.owned_bytes == 2 * block_bytes(DIMENSION)
    assert delta.growth_bytes(BLOCK_ROWS - 1) == 0
    assert delta.growth_bytes(BLOCK_ROWS) == block_bytes(DIMENSION)
    assert len(delta.written_after(BLOCK_ROWS - 1)) == 1


def test_the_log_gives_writes_in_order_and_forgets_what_it_is_told_to(tmp_path: Path) -> None:
    """R-E01: numbers grow past rows that are gone."""
    log = WriteLog(tmp_path, DIMENSION, 0)
    numbers = [
        *log.append([Write("a", note(1, "a"), SEALED[0]), Write("b", note(2, "b"), SEALED[1])]),
        *log.append([Write("a")]),
    ]

    assert [1, 2, 3] == numbers
    assert [(2, "b"), (3, "a")] == [(number, write.id) for number, write in log.after(0)]
    assert [(2, "b")] == [(number, write.id) for number, write in log.after(0, 2)]
    assert {"b": note(2, "b")} == log.chunks(["a", "b", "c"])
    log.purge(3)
    log.close()
    again = WriteLog(tmp_path, DIMENSION, 0)
    assert (list(again.after(0)), again.sequence, again.new) == ([], 3, False)
    assert range(4, 5) == again.append([Write("c")])
