import math
import statistics
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_sidecar.history import History
from membudget_sidecar.kernel.reading import Absent, Reading

readings: st.SearchStrategy[Reading] = st.one_of(
    st.integers(min_value=0, max_value=2**50), st.builds(Absent, st.sampled_from(["gone", "garbage"]))
)


def filled(*values: Reading, capacity: int = 1000) -> History:
    """A history with one sample per second."""
    history = History(capacity)
    for second, value in enumerate(values):
        history.record(float(second), value)
    return history


def test_an_empty_history_knows_nothing() -> None:
    """R-S01: no sample is not zero bytes."""
    history = History()
    none, no_figure = Absent("no sample yet"), Absent("no sample with a figure")
    found = (history.current(), history.peak(), history.average(), history.deviation(), history.pressure(100))
    assert found == (none, none, no_figure, no_figure, none)


def test_current_peak_average_and_deviation_are_told() -> None:
    """R-S01: statistics of the history."""
    history = filled(2, 4, 4, 4, 5, 5, 7, 9, 5)
    assert (history.current(), history.peak(), history.average(), history.deviation()) == (5, 9, 5.0, math.sqrt(32 / 9))


def test_a_peak_that_is_forgotten_begins_anew_and_the_samples_stay() -> None:
    """Fault 54: the peak of an engine that restarted is its own."""
    history = filled(5, 9, 4)
    history.forget_peak()
    assert history.peak() == Absent("no sample since the engine restarted")
    history.record(3.0, 6)
    assert (history.peak(), history.average()) == (6, 6.0)


def test_absent_samples_keep_their_place_and_do_not_count_as_zero() -> None:
    """R-S01: a reading that failed is absent with a reason, never 0."""
    history = filled(10, Absent("gone"), 20)
    expected = ([(0.0, 10), (1.0, Absent("gone")), (2.0, 20)], 15.0, 5.0)
    assert (history.samples(), history.average(), history.deviation()) == expected


def test_an_absent_latest_sample_makes_current_and_pressure_absent() -> None:
    """R-S01: the last known figure is not the current one."""
    history = filled(10, Absent("gone"))
    assert (history.current(), history.pressure(100), history.peak()) == (Absent("gone"), Absent("gone"), 10)


def test_the_ring_keeps_the_last_samples_in_order() -> None:
    """R-S01: bounded history."""
    assert filled(1, 2, 3, 4, 5, capacity=3).samples() == [(2.0, 3), (3.0, 4), (4.0, 5)]


def test_the_peak_outlives_the_ring() -> None:
    """R-S01: ten samples a second fill the ring in 100 seconds."""
    assert filled(9, 1, 2, 3, capacity=2).peak() == 9


def test_a_thousand_samples_are_kept_by_default() -> None:
    """R-S01: 1,000 samples of history."""
    assert len(filled(*range(1500))) == 1000


@pytest.mark.parametrize(("used", "pressure"), [(0, 0.0), (50, 0.5), (100, 1.0), (250, 1.0)])
def test_pressure_is_the_share_of_the_budget_clipped_to_one(used: int, pressure: float) -> None:
    """R-S01: pressure 0..1."""
    assert filled(used).pressure(100) == pressure


def test_pressure_on_a_budget_of_nothing_is_absent() -> None:
    """R-S01: no division, no guess."""
    assert filled(1).pressure(0) == Absent("a budget of 0 bytes")


def test_a_history_of_no_samples_is_refused() -> None:
    """R-S01: the error says what to give."""
    with pytest.raises(ValueError, match="give at least 1"):
        History(0)


@pytest.mark.parametrize(
    "values",
    [[index * 2**20 for index in range(3000)], [Absent(f"{index} " + "x" * 5000) for index in range(3000)]],
    ids=["figures", "different long reasons"],
)
def test_a_full_history_stays_small(values: list[Reading]) -> None:
    """R-S01: at most 5 MB; the docstring's 0.6 MB with reasons and 0.1 MB without."""
    tracemalloc.start()
    history = filled(*values)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(history), held < 0.6 * 2**20) == (1000, True)


@given(st.lists(readings, max_size=60), st.integers(min_value=1, max_value=20))
def test_the_ring_equals_the_tail_of_a_list_and_its_statistics(values: list[Reading], capacity: int) -> None:
    """R-S01: any sequence of figures and absences."""
    history = filled(*values, capacity=capacity)
    tail = list(enumerate(values))[-capacity:]
    known = [value for _, value in tail if isinstance(value, int)]
    average, deviation = history.average(), history.deviation()
    assert history.samples() == [(float(second), value) for second, value in tail]
    if known:
        assert (average, deviation) == (
            pytest.approx(statistics.fmean(known)),
            pytest.approx(statistics.pstdev(known), rel=1e-9, abs=1e-3),
        )
