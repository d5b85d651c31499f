"""Quantiles of the last seconds: never too short, at most a sixteenth too long, and cheap."""

import statistics
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.control_api import RECENT_SECONDS
from membudget_runtime.request_times import RequestTimes
from runtime.fakes import HandClock


@given(st.lists(st.floats(0, 200), min_size=1, max_size=300))
def test_a_quantile_is_at_most_a_sixteenth_too_long_and_never_too_short(durations: list[float]) -> None:
    """R-S06: harm is seen where it is, from microseconds to minutes."""
    times = RequestTimes(HandClock())
    for seconds in durations:
        times.observe(seconds)
    report = times.report()
    assert report is not None
    ordered = sorted(int(seconds * 1e6) for seconds in durations)
    for share, told in ((0.5, report.p50_microseconds), (0.99, report.p99_microseconds)):
        exact = ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]
        assert exact <= told <= exact * 17 / 16
    assert report.count == len(durations)


def test_what_ended_longer_ago_no_longer_counts_but_in_the_total() -> None:
    """R-S06: a slow time that is over is no harm now; no request at all is unknown, not 0."""
    clock = HandClock()
    times = RequestTimes(clock)
    assert times.report() is None
    times.observe(2.0)
    clock.now = RECENT_SECONDS + 0.9
    times.observe(0.00002)
    report = times.report()
    assert report is not None
    assert (report.count, report.p99_microseconds >= 2_000_000) == (2, True)
    clock.now = RECENT_SECONDS + 1.0
    report = times.report()
    assert report is not None
    assert (report.count, report.p50_microseconds, report.p99_microseconds) == (2, 20, 20)
    clock.now = 3 * RECENT_SECONDS
    assert times.report() is None


def test_a_second_whose_counters_are_used_again_begins_at_nothing() -> None:
    """R-S06: eleven seconds later, and a day later."""
    clock = HandClock()
    times = RequestTimes(clock)
    for clock.now in (0.0, RECENT_SECONDS + 1.0, 86_400.0 - 86_400.0 % (RECENT_SECONDS + 1)):
        times.observe(2.0 if clock.now == 0.0 else 0.00002)
        report = times.report()
        assert report is not None
        assert (report.p99_microseconds > 1_000_000) == (clock.now == 0.0)


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_time_beyond_the_counters_counts_as_the_nearest(seconds: float) -> None:
    """R-S06: a clock that was set does not break a query."""
    times = RequestTimes(HandClock())
    times.observe(seconds)
    report = times.report()
    assert report is not None
    assert report.p50_microseconds == (0 if seconds < 0 else (1 << 28) - 1)


def test_no_request_is_lost_under_threads() -> None:
    """R-S06: every worker observes."""
    times = RequestTimes(HandClock())
    threads = [
        threading.Thread(target=lambda: [times.observe(number / 1e6) for number in range(5_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = times.report()
    assert report is not None
    assert (report.count, 2_499 <= report.p50_microseconds <= 2_656) == (40_000, True)


def test_what_an_observation_costs_is_published(publish: Callable[[str], None]) -> None:
    """R-S06: measured, not asserted: a query of half a millisecond must not feel it."""
    times = RequestTimes(time.monotonic)
    costs: list[float] = []
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(5_000):
            times.observe(0.00071)
        costs.append((time.perf_counter() - started) / 5_000)
    publish(
        f"observe_request: {1e9 * statistics.median(costs):.0f} ns, in the worst of 20 rounds {1e9 * max(costs):.0f}"
    )
    assert times.report() is not None
