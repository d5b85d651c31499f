import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.quantities import MIB
from membudget_sidecar.deciding.growth import WINDOWS, Course
from membudget_sidecar.deciding.trend import CONFIDENT, Forecast, Trend
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent, Reading
from sidecar import memory_traces as traces
from sidecar.memory_traces import FAR, NEAR, SETTLED, PlainLine, Trace, looks

ALERT_SECONDS = 60
"""A limit nearer than this would be said aloud."""

GONE = Absent("/proc/7/status: no such file")

GROWING_CHILD = """
import time
held, began = [], time.monotonic()
print("ready", flush=True)
while True:
    while len(held) * 65536 < (time.monotonic() - began) * 1048576:
        held.append(bytearray(b"x") * 65536)
    time.sleep(0.02)
"""


def followed(samples: Iterable[tuple[float, Reading]]) -> Trend:
    """A trend after these samples."""
    trend = Trend()
    for now, reading in samples:
        trend.record(now, reading)
    return trend


def alarms(trace: Trace, seconds: float, pace: float, seed: int, limit: int) -> tuple[int, int]:
    """How often a confident forecast, and how often the plain line, has the limit within the alert's time."""
    trend, line, ours, plain = Trend(), PlainLine(), 0, 0
    for number, (now, figure) in enumerate(looks(trace, seconds, pace, seed, noise_mib=0.3)):
        trend.record(now, figure)
        line.record(now, figure)
        forecast = trend.seconds_to(limit)
        near = isinstance(forecast, Forecast) and forecast.seconds <= ALERT_SECONDS
        ours += near and isinstance(forecast, Forecast) and forecast.confidence >= CONFIDENT
        if pace == FAR or number % 10 == 0:  # at 0.1 s the line is slow; a tenth of its alarms is enough to be seen
            plain += number > 0 and line.seconds_to(limit) <= ALERT_SECONDS
    return ours, plain


@pytest.mark.parametrize("pace", [FAR, NEAR])
@pytest.mark.parametrize(("rate", "seconds"), [(0.01, 3600), (1.0, 120), (5.0, 120), (20.0, 120)])
def test_half_way_to_the_limit_the_time_left_is_off_by_a_fifth_at_most(
    rate: float, seconds: float, pace: float, publish: Callable[[str], None]
) -> None:
    """R-S13: leaks of 0.01 to 20 MiB/s, in both paces of the loop."""
    limit = int((100 + rate * seconds) * MIB)
    errors: list[float] = []
    for seed in range(3 if rate < 1 and pace == NEAR else 20):
        samples = list(looks(traces.leak(rate), SETTLED + seconds / 2, pace, seed))
        forecast = followed(samples).seconds_to(limit)
        assert isinstance(forecast, Forecast)
        assert forecast.confidence >= CONFIDENT
        errors.append(abs(forecast.seconds / (SETTLED + seconds - samples[-1][0]) - 1))
    publish(
        f"time to the limit half-way, {rate} MiB/s looked at every {pace} s: off by {100 * max(errors):.1f} % at most"
    )
    assert max(errors) <= 0.2


@pytest.mark.parametrize(
    ("trace", "seconds", "limit"),
    [
        pytest.param(traces.ramp(180, 60), 600, 270, id="ramp"),
        pytest.param(traces.flattening_ramp(300, 40), 600, 390, id="flattening ramp"),
        pytest.param(traces.step(200), 600, 340, id="step"),
        pytest.param(traces.saw_tooth(30, 10), 900, 195, id="short saw-tooth"),
        pytest.param(traces.saw_tooth(60, 40), 900, 220, id="saw-tooth"),
        pytest.param(traces.saw_tooth(100, 110), 1500, 240, id="long saw-tooth"),
    ],
)
def test_ramp_step_and_saw_tooth_foretell_no_limit_where_a_plain_line_does(
    trace: Trace, seconds: float, limit: int, publish: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    """R-S13: what ends of itself raises nothing, in both paces; least squares over the last minute misfires."""
    far = [alarms(trace, seconds, FAR, seed, limit * MIB) for seed in range(5)]
    near = [alarms(trace, seconds, NEAR, seed, limit * MIB) for seed in range(2)]
    ours, plain = (sum(counts) for counts in zip(*far, *near, strict=True))
    publish(f"false alarms, {request.node.callspec.id}: {ours} by the trend, {plain} by a plain line")
    assert 0 == ours
    assert plain > 0


@pytest.mark.parametrize("pace", [FAR, NEAR])
def test_a_plateau_with_noise_foretells_nothing(pace: float) -> None:
    """R-S13: noise is no growth, however near the limit."""
    samples = looks(traces.plateau(), 1200, pace, seed=1)
    trend, said = Trend(), 0
    for now, figure in samples:
        trend.record(now, figure)
        said += isinstance(trend.seconds_to(110 * MIB), Forecast)
    assert 0 == said


def test_a_burst_of_64_mib_a_second_is_foreseen_within_a_second(publish: Callable[[str], None]) -> None:
    """R-S13, issue 5: unmanaged growth beside caches, seen by the short windows with hours of rest in the long ones."""
    seen: list[float] = []
    for seed in range(30):
        trend = followed(looks(traces.leak(64), 60, FAR, seed))
        for now, figure in looks(traces.leak(64), SETTLED + 2, NEAR, seed):
            if now > 60:
                trend.record(now, figure)
            forecast = trend.seconds_to(250 * MIB)
            if isinstance(forecast, Forecast) and forecast.confidence >= CONFIDENT and forecast.seconds <= 5:
                seen.append(now - SETTLED)
                break
    publish(f"a burst of 64 MiB/s is foreseen after {min(seen):.2f} to {max(seen):.2f} s")
    assert (30, True) == (len(seen), max(seen) <= 1.0)


def test_a_burst_is_seen_over_a_slow_leak() -> None:
    """R-S13: the long windows are steady too, and must not hide that the limit is seconds away."""
    trace = traces.together(traces.leak(0.05), lambda second: max(0.0, second - 2000) * 64)
    trend = followed(looks(trace, 2000, 1.0, seed=1))
    before = trend.seconds_to(500 * MIB)
    for now, figure in looks(trace, 2001.2, NEAR, seed=2):
        if now > 2000:
            trend.record(now, figure)
    after = trend.seconds_to(500 * MIB)
    assert isinstance(before, Forecast)
    assert isinstance(after, Forecast)
    assert (True, True) == (before.seconds > 3600, after.seconds <= 5)


def test_a_leak_under_a_known_saw_tooth_is_foretold_by_its_troughs() -> None:
    """R-S13: peaks of 60 MiB every 20 s over 0.1 MiB/s; the limit is reached by a peak."""
    trace = traces.together(traces.leak(0.1), traces.saw_tooth(60, 20))
    limit, errors = (160 + 100 + 360) * MIB, list[float]()
    for seed in range(5):
        samples = list(looks(trace, SETTLED + 1800, 1.0, seed))
        forecast = followed(samples).seconds_to(limit)
        assert isinstance(forecast, Forecast)
        errors.append(abs(forecast.seconds / (SETTLED + 3600 - samples[-1][0]) - 1))
    assert max(errors) <= 0.2


@pytest.mark.parametrize(
    ("rest", "rate", "seconds", "limit"),
    [
        pytest.param(0, 30, 4, 300, id="steeper"),
        pytest.param(0, 5, 17, 230, id="higher"),
        pytest.param(0, 1.8, 35, 185, id="longer"),
        pytest.param(600, 3, 12, 180, id="long after the last one"),
    ],
)
def test_growth_that_is_unlike_the_known_teeth_is_foreseen(
    rest: float, rate: float, seconds: float, limit: int
) -> None:
    """R-S13: teeth of 60 MiB in 20 s hide nothing steeper, higher or longer, and are forgotten when no more come."""
    tooth, begins = traces.saw_tooth(60, 20), 400 + rest
    trend = followed(looks(lambda second: tooth(min(second, 400)), begins, NEAR, seed=1))
    for now, figure in looks(lambda second: 100 + max(0.0, second - begins) * rate, begins + seconds, NEAR, seed=2):
        if now > begins:
            trend.record(now, figure)
    forecast = trend.seconds_to(limit * MIB)
    assert isinstance(forecast, Forecast)
    assert forecast.bytes_per_second == pytest.approx(rate * MIB, rel=0.2)
    assert forecast.confidence >= CONFIDENT


def test_seconds_of_growth_foretell_no_minutes() -> None:
    """R-S13: 20 MiB/s seen for 1.5 s; a limit 4 s away is foretold, one 100 s away is not."""
    trend = followed(looks(traces.leak(20), SETTLED + 1.5, NEAR, seed=1))
    near, far = trend.seconds_to(210 * MIB), trend.seconds_to(2130 * MIB)
    assert isinstance(near, Forecast)
    assert isinstance(far, Forecast)
    assert (True, True) == (near.confidence >= CONFIDENT, far.confidence < CONFIDENT / 4)


def test_a_freeze_of_ten_minutes_is_one_jump() -> None:
    """Fault 95: what grew while nobody looked is one step, however much."""
    trend = followed((float(second), 100 * MIB) for second in range(0, 600, 10))
    for second in range(1200, 1800, 10):
        trend.record(float(second), 400 * MIB)
        assert Absent("no steady growth") == trend.seconds_to(500 * MIB)


def test_a_clock_that_began_again_begins_a_new_trend() -> None:
    """Fault 95: rates of two clocks are never mixed; no negative rate."""
    trend = followed((1000.0 + second, second * MIB) for second in range(100))
    for second in range(30):
        trend.record(float(second), (200 + second) * MIB)
    forecast = trend.seconds_to(237 * MIB)
    assert isinstance(forecast, Forecast)
    assert (8.0, float(MIB)) == (forecast.seconds, forecast.bytes_per_second)


def test_another_engine_has_its_own_trend() -> None:
    """R-S13: growth of the process before says nothing."""
    trend = followed((float(second), second * MIB) for second in range(300))
    assert isinstance(trend.seconds_to(400 * MIB), Forecast)
    trend.forget()
    assert Absent("no sample yet") == trend.seconds_to(400 * MIB)
    trend.record(300.0, 300 * MIB)
    assert Absent("no steady growth") == trend.seconds_to(400 * MIB)


def test_a_start_foretells_only_a_limit_that_is_seconds_away() -> None:
    """R-S13: 1 MiB/s from the first second on, as if loading: 30 MiB to go are none, 5 are."""
    trend = followed((second / 10, second * MIB // 10) for second in range(200))
    assert Absent("the engine is starting") == trend.seconds_to(50 * MIB)
    assert isinstance(trend.seconds_to(25 * MIB), Forecast)


def test_growth_that_flattens_before_the_limit_foretells_nothing() -> None:
    """R-S13: the pace falls to 1/e in 200 s; 300 MiB are its end, a limit of 340 is never reached, one of 200 is."""
    trend = followed(looks(traces.flattening_ramp(250, 200), 180, 1.0, seed=1, noise_mib=0.1))
    assert Absent("growth flattens before the limit") == trend.seconds_to(340 * MIB)
    assert isinstance(trend.seconds_to(225 * MIB), Forecast)


def test_a_limit_that_is_reached_is_no_seconds_away() -> None:
    """R-S13: nothing is left to foretell."""
    assert Forecast(0.0, 0.0, 1.0) == followed([(0.0, 100)]).seconds_to(100)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.builds(Absent, st.text(max_size=5))), min_size=1))
def test_absent_readings_alone_foretell_nothing(samples: list[tuple[float, Absent]]) -> None:
    """R-S13: unknown is never a trend; the reason is that of the latest reading."""
    assert samples[-1][1] == followed(samples).seconds_to(1)


def test_a_reading_that_is_absent_now_makes_the_forecast_absent_and_one_before_is_a_gap() -> None:
    """R-S13: unknown triggers nothing; what was known before still counts once readings are back."""
    grown: list[tuple[float, Reading]] = [(float(second), second * MIB) for second in range(300)]
    gapped: list[tuple[float, Reading]] = [(now, GONE if 3 * now % 7 == 1 else reading) for now, reading in grown]
    known, gap = followed(grown).seconds_to(400 * MIB), followed([*gapped[:-1], grown[-1]]).seconds_to(400 * MIB)
    assert GONE == followed([*grown, (300.0, GONE)]).seconds_to(400 * MIB)
    assert isinstance(known, Forecast)
    assert isinstance(gap, Forecast)
    assert (known.seconds, known.bytes_per_second) == pytest.approx((gap.seconds, gap.bytes_per_second))


figures = st.integers(0, 2**40)
times = st.lists(st.floats(0, 1e5), min_size=1, max_size=120)
readings: st.SearchStrategy[Reading] = st.one_of(figures, st.just(GONE))


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), readings), max_size=150), st.integers(-(2**40), 2**41))
def test_whatever_comes_a_forecast_is_well_formed(samples: list[tuple[float, Reading]], limit: int) -> None:
    """R-S13: never raises, times not negative, confidence 0 to 1, also with a clock that goes back."""
    trend = Trend()
    for now, reading in samples:
        trend.record(now, reading)
        forecast = trend.seconds_to(limit)
        if isinstance(forecast, Forecast):
            assert (True, True) == (0 <= forecast.seconds < math.inf, 0 <= forecast.bytes_per_second < math.inf)
            assert 0 <= forecast.confidence <= 1


steps = st.lists(st.tuples(st.integers(1, 160), st.integers(-(2**21), 2**24)), min_size=1, max_size=200)
"""Eighths of a second, and bytes, from one sample to the next; growing more often than not."""


def walked(moves: list[tuple[int, int]]) -> list[tuple[float, int]]:
    """Samples of such steps; times are exact in binary."""
    now, figure, samples = 0.0, 2**34, list[tuple[float, int]]()
    for eighths, more in moves:
        now, figure = now + eighths / 8, figure + more
        samples.append((now, figure))
    return samples


@given(steps, st.integers(0, 2**40))
def test_bytes_that_were_always_there_change_no_forecast(moves: list[tuple[int, int]], constant: int) -> None:
    """R-S13: only growth counts, and the distance to the limit."""
    samples, limit = walked(moves), 2**35
    shifted = followed((now, figure + constant) for now, figure in samples)
    assert followed(samples).seconds_to(limit) == shifted.seconds_to(limit + constant)


@given(steps)
def test_in_half_the_time_growth_is_twice_as_fast(moves: list[tuple[int, int]]) -> None:
    """R-S13: a rate is bytes per time and nothing else."""
    course, slower = Course(), Course()
    for now, figure in walked(moves):
        course.record(now, figure)
        slower.record(2 * now, figure)
    for window in WINDOWS[:20]:
        quick, slow = course.growth(window), slower.growth(2 * window)
        found = None if quick is None else (quick.bytes_per_second, quick.evenness, quick.slowing)
        assert found == (None if slow is None else (2 * slow.bytes_per_second, slow.evenness, slow.slowing))


@given(st.integers(2**13, 2**26), st.floats(0.1, 15), st.integers(8, 300))
def test_even_growth_is_measured_exactly(rate: int, pace: float, count: int) -> None:
    """R-S13: at any pace of looks each window that says anything says the rate."""
    course = Course()
    for number in range(count):
        course.record(number * pace, int(number * pace * rate))
    found = [growth.bytes_per_second for window in WINDOWS if (growth := course.growth(window)) is not None]
    assert all(figure == pytest.approx(rate, rel=0.01) for figure in found)


def test_a_day_of_samples_costs_no_more_than_a_few_hundred_points(publish: Callable[[str], None]) -> None:
    """R-S11: 20 hours of growth at a look a second stay under 64 KiB."""
    trend = Trend()
    tracemalloc.start()
    for second in range(72_000):
        trend.record(float(second), second * 1000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    publish(f"a trend after 72,000 samples holds {held} bytes")
    assert held <= 64 * 1024


def test_a_process_that_grows_for_real_is_foretold(publish: Callable[[str], None]) -> None:
    """R-S13: a child that takes 1 MiB a second, read from /proc as the loop reads it."""
    with subprocess.Popen([sys.executable, "-c", GROWING_CHILD], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            process, trend, forecasts = Process(Path("/proc"), child.pid), Trend(), list[tuple[float, Forecast]]()
            first = process.held_bytes().bytes
            assert isinstance(first, int)
            limit, figure, now = first + 10 * MIB, first, time.monotonic()
            while figure < limit:
                now, reading = time.monotonic(), process.held_bytes().bytes
                assert isinstance(reading, int)
                figure = reading
                trend.record(now, figure)
                if isinstance(forecast := trend.seconds_to(limit), Forecast) and figure < limit:
                    forecasts.append((now, forecast))
                time.sleep(0.1)
        finally:
            child.kill()
    half_way = next((taken, forecast) for taken, forecast in forecasts if forecast.seconds <= 5)
    error = half_way[1].seconds / (now - half_way[0]) - 1
    publish(
        f"a real process: {half_way[1].bytes_per_second / MIB:.2f} MiB/s, {half_way[1].seconds:.1f} s before the limit"
        f" the time was off by {100 * abs(error):.0f} %, confidence {half_way[1].confidence:.2f}"
    )
    assert half_way[1].bytes_per_second == pytest.approx(MIB, rel=0.5)
