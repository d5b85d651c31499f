"""An action is judged by two readings, and by what it did to pages and requests (R-S04, R-S06, known bug 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.deciding.verification import LEAST_REQUESTS, Latency, Refaulting, judge, judge_harm
from membudget_sidecar.kernel.reading import Absent, Reading

GONE = Absent("the process ended")
PAGE = 4096
MIB = 1 << 20
NO_PAGES = Refaulting(GONE, GONE, GONE, 1.0, 11.0)
NO_REQUESTS = Latency(None, None, 0)
READINGS = st.integers(0, 1 << 40) | st.just(GONE)


@pytest.mark.parametrize(
    ("asked", "before", "after", "goal", "status"),
    [
        (10, 100, 90, 0, ActionStatus.EFFECTIVE),
        (10, 100, 95, 0, ActionStatus.EFFECTIVE),
        (10, 100, 96, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 100, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 120, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 99, 100, ActionStatus.EFFECTIVE),
        (10, 100, 100, 100, ActionStatus.INEFFECTIVE),
        (0, 100, 101, 0, ActionStatus.DONE),
        (10, GONE, 90, 0, ActionStatus.UNVERIFIED),
        (10, 100, GONE, 200, ActionStatus.UNVERIFIED),
    ],
)
def test_half_of_what_was_asked_or_the_goal_is_effective(
    asked: int, before: Reading, after: Reading, goal: int, status: ActionStatus
) -> None:
    """R-S06: half is enough, the goal is enough, nothing asked is met, and unread is neither."""
    assert status == judge(asked, before, after, goal)


@given(st.integers(0, 1 << 40), READINGS, READINGS, st.integers(0, 1 << 40))
def test_nothing_is_claimed_without_two_readings(asked: int, before: Reading, after: Reading, goal: int) -> None:
    """R-S04: Unverified exactly where one of them is absent, whatever the other one says."""
    unread = isinstance(before, Absent) or isinstance(after, Absent)
    assert unread == (judge(asked, before, after, goal) is ActionStatus.UNVERIFIED)


@given(st.integers(1, 1 << 40), *[st.integers(0, 1 << 40)] * 4)
def test_a_lower_signal_afterwards_is_never_judged_worse(
    asked: int, before: int, one: int, other: int, goal: int
) -> None:
    """R-S04: the judgement follows what was freed."""
    better, worse = (judge(asked, before, after, goal) is ActionStatus.EFFECTIVE for after in sorted((one, other)))
    assert better >= worse


@pytest.mark.parametrize(
    ("before", "soon", "later", "harmful"),
    [
        (0, 0, 0, False),
        (0, 1279, 1279, False),
        (0, 1280, 1280, True),  # half of 10 MiB in pages of 4 kB
        (5000, 6280, 6280, True),
        (0, 1280, 1280 + 110, False),  # ten a second are usual here: 1270 are the action's doing
        (0, 1280, 1280 + 11 * 1280, False),  # an index larger than its memory refaults all the time
        (GONE, 1280, 1280, False),
        (0, GONE, 1280, False),
        (0, 1280, GONE, False),
    ],
)
def test_half_of_the_freed_bytes_read_again_is_harm(
    before: Reading, soon: Reading, later: Reading, harmful: bool
) -> None:
    """R-S06: within a second of the action, beyond what is usual in the eleven seconds after that."""
    refaulting = Refaulting(before, soon, later, soon_seconds=1.0, later_seconds=11.0)
    assert harmful == (judge_harm(10 * MIB, refaulting, PAGE, NO_REQUESTS) is not None)


@pytest.mark.parametrize(
    ("before", "after", "requests", "harmful"),
    [
        (2_000, 7_001, LEAST_REQUESTS, True),
        (2_000, 7_000, LEAST_REQUESTS, False),  # 5 ms worse and no more
        (3_000, 9_000, LEAST_REQUESTS, False),  # three times and no more
        (3_000, 9_001, LEAST_REQUESTS, True),
        (200, 5_000, LEAST_REQUESTS, False),  # 25 times of next to nothing
        (3_000, 90_000, LEAST_REQUESTS - 1, False),
        (3_000, 90_000, -5_000, False),  # the engine restarted and counts anew
        (None, 90_000, LEAST_REQUESTS, False),
        (3_000, None, LEAST_REQUESTS, False),
    ],
)
def test_requests_that_stay_three_times_and_five_milliseconds_slower_are_harm(
    before: int | None, after: int | None, requests: int, harmful: bool
) -> None:
    """R-S06: both, on enough requests; what is not known says nothing."""
    assert harmful == (judge_harm(10 * MIB, NO_PAGES, PAGE, Latency(before, after, requests)) is not None)


def test_harm_says_what_got_worse_with_its_figures() -> None:
    """R-S06: a person sees in the record why a kind rests."""
    pages = Refaulting(100, 2148, 2148, 1.0, 11.0)
    assert judge_harm(10 * MIB, pages, PAGE, NO_REQUESTS) == (
        "8388608 of 10485760 freed bytes were read again within 1 s"
    )
    assert judge_harm(10 * MIB, NO_PAGES, PAGE, Latency(1_500, 31_000, 500)) == (
        "requests were slow for more than 2 s: p99 31.0 ms, 1.5 ms before"
    )


@given(*[READINGS] * 3, st.floats(0, 60), st.floats(0, 60), st.integers(0, 1 << 40))
def test_pages_are_never_harm_without_three_readings(
    before: Reading, soon: Reading, later: Reading, soon_seconds: float, later_seconds: float, freed: int
) -> None:
    """R-S06: a count that is absent is not 0."""
    verdict = judge_harm(freed, Refaulting(before, soon, later, soon_seconds, later_seconds), PAGE, NO_REQUESTS)
    unread = any(isinstance(reading, Absent) for reading in (before, soon, later))
    assert not (unread and verdict)
