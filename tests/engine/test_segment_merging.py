"""Which segments are merged, and which rows are dead afterwards: against plain lists and sets."""

from itertools import takewhile

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from membudget_engine.index.dead_rows import DeadRows, survivors
from membudget_engine.index.faiss_writer import FLAT_BELOW
from membudget_engine.index.segment_merging import (
    DEAD_ROWS,
    MOST_BEFORE_MERGING,
    run_to_merge,
    too_many_dead,
)

_Rows = st.lists(st.integers(FLAT_BELOW, 10**6), min_size=1, max_size=24)
_RowsAndDead = st.lists(
    st.integers(1, 3 * FLAT_BELOW).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(0, rows // 5))),
    min_size=1,
    max_size=MOST_BEFORE_MERGING - 1,
)


@given(_Rows)
def test_from_sixteen_on_the_newest_are_merged_back_to_one_larger_than_all_of_them(rows: list[int]) -> None:
    """R-E01: two at least, always up to the newest; fewer than sixteen are left alone, where each has lists."""
    run = run_to_merge(rows, [0] * len(rows))

    if len(rows) < MOST_BEFORE_MERGING:
        assert run is None
        return
    assert run is not None
    assert (run.stop, len(run) >= 2) == (len(rows), True)
    assert run.start == 0 or rows[run.start - 1] > sum(rows[run.start :])


@given(_RowsAndDead)
def test_the_newest_without_lists_are_merged_once_they_hold_enough_for_them(segments: list[tuple[int, int]]) -> None:
    """R-E01: flat below 10,000, also in parts; what comes of them has lists, and is not merged for this again."""
    rows, dead = [rows for rows, _ in segments], [dead for _, dead in segments]
    assume(not too_many_dead(sum(dead), sum(rows)))
    run = run_to_merge(rows, dead)

    flat = [*takewhile(lambda segment: segment[0] < FLAT_BELOW, reversed(segments))]
    held = sum(rows - dead for rows, dead in flat)
    assert run == (range(len(rows) - len(flat), len(rows)) if held >= FLAT_BELOW else None)
    if run is not None:
        assert len(run) >= 2
        assert run_to_merge([*rows[: run.start], held], [*dead[: run.start], 0]) is None


def test_a_row_is_copied_about_as_often_as_the_collection_doubles_and_there_are_never_more_than_sixteen() -> None:
    """R-E01: a thousand seals of one size; copying all at each sixteenth would take 33 times the rows."""
    segments, copied, most = list[int](), 0, 0
    for _ in range(1_000):
        segments.append(1)
        run = run_to_merge(segments, [0] * len(segments))
        if run is not None:
            segments[run.start :] = [sum(segments[run.start :])]
            copied += segments[-1]
        most = max(most, len(segments))
    assert most < MOST_BEFORE_MERGING
    assert copied / 1_000 < 3


@pytest.mark.parametrize(
    ("dead", "rows", "due"),
    [
        (DEAD_ROWS - 1, 2_000, False),
        (DEAD_ROWS, 2_000, True),
        (1_999, 10_000, False),
        (2_000, 10_000, True),
        (2_000, 2_000, False),
    ],
)
def test_a_fifth_of_the_rows_dead_is_too_many_and_all_of_them_is_nothing_to_merge(
    dead: int, rows: int, *, due: bool
) -> None:
    """R-E01: design's 20 %; no generation is empty."""
    assert too_many_dead(dead, rows) is due
    assert run_to_merge([rows // 2, rows - rows // 2], [dead - dead // 2, dead // 2]) == (range(2) if due else None)


@given(st.integers(1, 40), st.data())
def test_dead_rows_are_a_set_of_numbers(count: int, data: st.DataObject) -> None:
    """R-E18: a bit a row, none before the first."""
    numbers = data.draw(st.lists(st.integers(0, count - 1)))
    dead = DeadRows(count)
    assert dead.owned_bytes == 0
    for number in numbers:
        dead.add(number)

    first = data.draw(st.integers(0, count - 1))
    rows = data.draw(st.integers(0, count - first))
    assert sorted(set(numbers)) == dead.numbers()
    assert len(set(numbers)) == dead.dead
    assert [row in set(numbers) for row in range(first, first + rows)] == dead.flags(first, rows).tolist()
    again = DeadRows(count, np.frombuffer(dead.packed(), dtype=np.uint8).copy())
    assert (again.numbers(), again.dead) == (dead.numbers(), dead.dead)


@given(st.data())
def test_in_a_merged_segment_those_are_dead_that_died_since_it_was_begun(data: st.DataObject) -> None:
    """R-E18: rows that were dead when it was begun are not in it."""
    pairs = list[tuple[DeadRows, DeadRows]]()
    expected = list[bool]()
    for count in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)):
        then = DeadRows(count)
        for row in data.draw(st.lists(st.integers(0, count - 1))):
            then.add(row)
        now = then.copy()
        for row in data.draw(st.lists(st.integers(0, count - 1))):
            now.add(row)
        pairs.append((then, now))
        expected += [row in now for row in range(count) if row not in then]

    merged = survivors(pairs)

    assert (merged.count, merged.flags(0, merged.count).tolist()) == (len(expected), expected)


def test_a_copy_of_dead_rows_is_not_changed_by_the_other() -> None:
    """R-E18: queries of a generation that was left see what they saw."""
    dead = DeadRows(9)
    dead.add(3)
    copied = dead.copy()
    dead.add(8)
    assert (copied.numbers(), dead.numbers()) == ([3], [3, 8])
