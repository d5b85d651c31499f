"""When Python collects garbage, for how long it stands still, and that everything is put back."""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.control_api import FreeRequest, GcMode, GcPauses, Means
from membudget_contract.errors import EnvironmentInvalid
from membudget_contract.policy import ProfileName
from membudget_contract.profiles import PROFILES
from membudget_runtime.interpreter.gc_pauses import LAST, RECENT, PauseClock
from membudget_runtime.interpreter.gc_tuner import (
    IDLE_SECONDS,
    LATEST_SECONDS,
    MEMORY_THRESHOLDS,
    MODE_VARIABLE,
    NEVER,
    GcTuner,
    full_collection_due,
    thresholds_in,
)
from membudget_runtime.memory_runtime import MemoryRuntime
from runtime.fakes import HandClock, start

WORKLOAD = Path(__file__).with_name("gc_workload.py")
PLANNED = (10_000, 20, 20)
MODES = [GcMode.DEFAULT, GcMode.LATENCY, GcMode.MEMORY]


class Cycle:
    """Only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def found() -> Generator[tuple[object, ...]]:
    """How the collector is set before a test; it must be so after it, whatever the test did."""
    before = _settings()
    yield before
    assert _settings() == before


def _settings() -> tuple[object, ...]:
    ours = [callback for callback in gc.callbacks if isinstance(getattr(callback, "__self__", None), PauseClock)]
    return gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), ours


@pytest.fixture
def tuner() -> Generator[GcTuner]:
    """Restored at the end."""
    tuner = GcTuner()
    yield tuner
    tuner.restore()


@contextmanager
def tuned(clock: HandClock) -> Generator[GcTuner]:
    """A tuner on this clock, with automatic collections off so that only its own are seen."""
    tuner = GcTuner(clock)
    gc.collect()
    gc.disable()
    yield tuner
    gc.enable()
    tuner.restore()


def garbage() -> weakref.ref[Cycle]:
    """A cycle that nobody holds, in the oldest generation."""
    cycle = Cycle()
    gc.collect()
    return weakref.ref(cycle)


def counted(mode: GcMode, profile: ProfileName) -> tuple[list[int], GcPauses]:
    """Collections by generation of 6,000 requests in a process of their own, and their pauses."""
    argv = [sys.executable, str(WORKLOAD), mode, profile, "6000"]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=120)
    return msgspec.json.decode(done.stdout, type=tuple[list[int], GcPauses])


@pytest.mark.parametrize("profile", [ProfileName.PRODUCTION, ProfileName.DEVELOPMENT])
def test_latency_mode_collects_at_least_30_percent_less_on_a_real_workload(
    profile: ProfileName, publish: Callable[[str], None]
) -> None:
    """R-E11: counted by the interpreter, in two processes with the same work; 30 % promised."""
    (default, default_pauses), (latency, pauses) = (counted(mode, profile) for mode in MODES[:2])
    less = 1 - sum(latency) / sum(default)
    publish(
        f"collections of 6,000 requests, {profile} profile: Default {default}, Latency {latency}, {100 * less:.0f} % "
        f"fewer; longest pause {default_pauses.max_microseconds / 1000:.1f} and {pauses.max_microseconds / 1000:.1f} ms"
    )
    assert (less >= 0.3, latency[2]) == (True, 0)
    assert default[2] > 0 or profile is ProfileName.PRODUCTION


@given(st.sampled_from(MODES), st.tuples(*[st.integers(1, 1_000_000)] * 3))
def test_each_mode_makes_its_thresholds_of_the_plans(mode: GcMode, planned: tuple[int, int, int]) -> None:
    """R-E11: the interpreter takes them all; none is 0, which would collect the oldest generation with every young."""
    made = thresholds_in(mode, planned)
    expected = {
        GcMode.DEFAULT: planned,
        GcMode.LATENCY: (2 * planned[0], planned[1], NEVER),
        GcMode.MEMORY: (500, 5, 5),
    }
    before = gc.get_threshold()
    gc.set_threshold(*made)
    assert (gc.get_threshold(), min(made) > 0) == (expected[mode], True)
    gc.set_threshold(*before)


@pytest.mark.parametrize("mode", MODES)
def test_a_plan_and_a_mode_hold_whichever_comes_first(tuner: GcTuner, mode: GcMode) -> None:
    """R-E11: a plan that changes live never ends a mode."""
    tuner.use(mode)
    tuner.plan((900, 11, 12))
    first = gc.get_threshold()
    tuner.plan(PLANNED)
    tuner.use(GcMode.DEFAULT)
    planned = gc.get_threshold()
    tuner.use(mode)
    assert first == thresholds_in(mode, (900, 11, 12))
    assert (planned, gc.get_threshold()) == (PLANNED, thresholds_in(mode, PLANNED))


def test_latency_mode_freezes_what_lives_and_no_garbage(tuner: GcTuner) -> None:
    """R-E11: no later collection looks at it; leaving the mode takes it back."""
    dead = weakref.ref(Cycle())
    tuner.use(GcMode.LATENCY)
    frozen = tuner.report().frozen
    tuner.use(GcMode.MEMORY)
    assert (dead(), frozen > 1000, gc.get_freeze_count()) == (None, True, 0)


def test_a_report_does_not_walk_over_what_is_frozen(tuner: GcTuner) -> None:
    """R-E11: it is asked ten times a second, and the walk stops every other thread for milliseconds."""
    tuner.use(GcMode.LATENCY)
    called = list[object]()
    sys.setprofile(lambda _frame, event, called_now: called.append(called_now) if event == "c_call" else None)
    try:
        tuner.report()
    finally:
        sys.setprofile(None)
    assert (gc.get_threshold in called, gc.get_freeze_count in called) == (True, False)


def test_what_others_have_frozen_stays_frozen(tuner: GcTuner) -> None:
    """R-E11: restore puts back what was found."""
    gc.freeze()
    theirs = gc.get_freeze_count()
    for mode in (GcMode.LATENCY, GcMode.DEFAULT):
        tuner.use(mode)
    kept = gc.get_freeze_count()
    gc.unfreeze()
    assert (theirs > 1000, kept) == (True, theirs)


def test_restore_puts_everything_back(found: tuple[object, ...]) -> None:
    """R-E11: thresholds, frozen objects, callbacks, the thread; a second time does nothing."""
    before = set(threading.enumerate())
    tuner = GcTuner()
    tuner.plan((900, 11, 12))
    tuner.use(GcMode.LATENCY)
    changed, begun = _settings(), set(threading.enumerate()) - before
    for _ in range(2):
        tuner.restore()
        assert (_settings(), set(threading.enumerate()) - before) == (found, set())
    assert len(begun) == 1
    assert [now == then for now, then in zip(changed, found, strict=True)] == [False, True, False, False]


def test_no_automatic_collection_comes_into_a_section(tuner: GcTuner) -> None:
    """R-E11: 50,000 objects would start seventy of them; who asks for one gets it."""
    with tuner.uninterrupted():
        before = tuner.report()
        kept = [Cycle() for _ in range(50_000)]
        during = tuner.report()
        gc.collect()
        asked = tuner.report()
    assert during.collections == before.collections
    assert (asked.collections, gc.isenabled(), len(kept)) == (before.collections + 1, True, 50_000)


def test_sections_nest_and_overlap_in_threads(tuner: GcTuner) -> None:
    """R-E11: the last one to end turns collections on again, in whatever order they end, errors included."""
    seen: list[bool] = []
    ends = [threading.Event() for _ in range(8)]
    inside = threading.Semaphore(0)
    outside = threading.Semaphore(0)

    def section(end: threading.Event) -> None:
        with suppress(ZeroDivisionError), tuner.uninterrupted(), tuner.uninterrupted():
            inside.release()
            raise ZeroDivisionError(end.wait(60))
        outside.release()

    threads = [threading.Thread(target=section, args=(end,)) for end in ends]
    for thread in threads:
        thread.start()
    assert all(inside.acquire(timeout=60) for _ in ends)
    for end in ends:
        seen.append(gc.isenabled())
        end.set()
        assert outside.acquire(timeout=60)
    for thread in threads:
        thread.join()
    assert (seen, gc.isenabled()) == ([False] * 8, True)


def test_a_section_leaves_collections_off_where_they_were_off(tuner: GcTuner) -> None:
    """R-E11: somebody else's decision stands."""
    gc.disable()
    with tuner.uninterrupted():
        pass
    still = gc.isenabled()
    gc.enable()
    assert still is False


def test_a_full_collection_waits_for_idleness() -> None:
    """R-E11: no request ended for two seconds, and something was allocated since the last full one."""
    clock = HandClock()
    with tuned(clock) as tuner:
        dead = garbage()
        gc.collect(0)
        tuner.note_activity()
        clock.now = IDLE_SECONDS - 0.001
        early = (tuner.collect_if_idle(), dead() is not None)
        tuner.note_activity()
        clock.now += IDLE_SECONDS - 0.001
        busy = (tuner.collect_if_idle(), dead() is not None)
        clock.now += 0.001
        idle = (tuner.collect_if_idle(), dead() is not None)
        clock.now += IDLE_SECONDS
        again = tuner.collect_if_idle()
    assert (early, busy, idle, again) == ((False, True), (False, True), (True, False), False)


@pytest.mark.parametrize(
    ("active_ago", "collected_ago", "due"),
    [
        (IDLE_SECONDS, 30.0, True),
        (IDLE_SECONDS - 0.001, 30.0, False),
        (30.0, IDLE_SECONDS - 0.001, False),
        (None, LATEST_SECONDS - 0.001, False),
        (None, LATEST_SECONDS, True),
        (0.0, LATEST_SECONDS, True),
        (0.0, LATEST_SECONDS - 0.001, False),
    ],
)
def test_full_collections_come_in_idleness_or_after_ten_minutes(
    active_ago: float | None, collected_ago: float, due: bool
) -> None:
    """R-E11: garbage in cycles must not wait for ever in a service that is never idle; unknown is not idle."""
    now = 10_000.0
    active_at = None if active_ago is None else now - active_ago
    assert full_collection_due(now, active_at=active_at, collected_at=now - collected_ago) == due


def test_in_latency_mode_an_idle_service_collects_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E11: without anybody calling."""
    monkeypatch.setattr("membudget_runtime.interpreter.gc_tuner.IDLE_SECONDS", 0.0)
    monkeypatch.setattr("membudget_runtime.interpreter.gc_tuner.LOOK_SECONDS", 0.001)
    freed = threading.Event()
    tuner = GcTuner()
    tuner.use(GcMode.LATENCY)
    tuner.note_activity()
    cycle = Cycle()
    weakref.finalize(cycle, freed.set)
    del cycle
    gc.collect(0)
    gc.collect(1)
    assert freed.wait(60)
    tuner.restore()


def test_pauses_are_counted_exactly() -> None:
    """R-E11: count, mean, p99, maximum, total, and the last ten; by a clock moved by hand."""
    pauses = [1_000 * (number + 1) for number in range(2 * RECENT)]
    moments = iter([moment for pause in pauses for moment in (0, pause)])
    clock = PauseClock(lambda: next(moments))
    gc.disable()
    clock.listen()
    empty = clock.figures()
    for _ in pauses:
        gc.collect(0)
    clock.close()
    gc.collect(0)
    gc.enable()
    assert empty == GcPauses(
        count=0, total_microseconds=0, mean_microseconds=0, p99_microseconds=0, max_microseconds=0, last_microseconds=()
    )
    assert clock.figures() == GcPauses(
        count=2000,
        total_microseconds=2_001_000,
        mean_microseconds=1000,
        p99_microseconds=1990,
        max_microseconds=2000,
        last_microseconds=tuple(range(2001 - LAST, 2001)),
    )


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_figures_of_pauses_agree_with_each_other(taken: list[int]) -> None:
    """R-E11: of any pauses, fewer or more than are listed."""
    moments = iter([moment for pause in taken for moment in (5, 5 + pause)])
    clock = PauseClock(lambda: next(moments))
    for _ in taken:
        clock.on_collection("start", {})
        clock.on_collection("stop", {})
    figures = clock.figures()
    assert (figures.count, figures.total_microseconds) == (len(taken), sum(taken) // 1000)
    assert figures.last_microseconds == tuple(pause // 1000 for pause in taken[-LAST:])
    assert figures.mean_microseconds <= figures.p99_microseconds <= figures.max_microseconds == max(taken) // 1000


def test_a_collection_that_had_begun_before_is_not_timed() -> None:
    """R-E11: half a pause is no pause."""
    clock = PauseClock()
    clock.on_collection("stop", {})
    assert clock.figures().count == 0


def test_figures_may_be_read_while_collections_run(tuner: GcTuner) -> None:
    """R-E11: the callback takes no lock that a reader holds; a reading allocates, which itself starts collections."""
    tuner.use(GcMode.MEMORY)
    gc.set_threshold(1, 1, 1)
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            [Cycle() for _ in range(50)]

    thread = threading.Thread(target=churn)
    thread.start()
    counts = [pauses.count for _ in range(300) if (pauses := tuner.report().pauses) is not None]
    ended.set()
    thread.join()
    assert (counts == sorted(counts), len(counts), counts[-1] > counts[0]) == (True, 300, True)


def test_a_runtime_holds_the_plans_thresholds_times_asked_collections_and_restores(
    tmp_path: Path, found: tuple[object, ...]
) -> None:
    """R-E11, R-P04: live, in the mode that the service chose."""
    with closing(MemoryRuntime(tmp_path, {})) as runtime:
        started = gc.get_threshold()
        runtime.gc.use(GcMode.LATENCY)
        runtime.apply(msgspec.structs.replace(start(), gc_thresholds=(5000, 15, 15)))
        before = runtime.report().gc
        runtime.free(FreeRequest(means=Means.COLLECT, target_bytes=0))
        report = runtime.report().gc
    assert started == PROFILES[ProfileName.PRODUCTION].gc_thresholds
    assert (report.mode, report.thresholds, report.frozen > 0) == (GcMode.LATENCY, (10_000, 15, NEVER), True)
    assert before.pauses is not None
    assert report.pauses is not None
    assert report.pauses.count > before.pauses.count
    assert _settings() == found


@pytest.mark.parametrize(("environment", "mode"), [({}, GcMode.LATENCY), ({MODE_VARIABLE: "Memory"}, GcMode.MEMORY)])
def test_a_service_that_has_started_is_tuned_as_its_environment_asks(
    tmp_path: Path, environment: dict[str, str], mode: GcMode
) -> None:
    """R-E11: not before, while it builds what stays."""
    with closing(MemoryRuntime(tmp_path, environment)) as runtime:
        before = runtime.report().gc.mode
        runtime.started()
        assert (before, runtime.report().gc.mode) == (GcMode.DEFAULT, mode)


def test_a_mode_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """R-E11: a typing error is no silent default."""
    with pytest.raises(EnvironmentInvalid, match="'latency' is none of Default, Latency, Memory"):
        MemoryRuntime(tmp_path, {MODE_VARIABLE: "latency"})


def test_a_request_that_ends_keeps_the_runtime_from_collecting(tmp_path: Path) -> None:
    """R-E11: what the service observes is what idleness is judged by."""
    clock = HandClock()
    with closing(MemoryRuntime(tmp_path, {}, clock)) as runtime:
        gc.collect()
        gc.collect(0)
        clock.now = 100.0
        runtime.observe_request(0.01)
        clock.now += IDLE_SECONDS - 0.001
        busy = runtime.gc.collect_if_idle()
        clock.now += 0.001
        assert (busy, runtime.gc.collect_if_idle()) == (False, True)


def test_memory_mode_collects_more_often_than_the_plan(tuner: GcTuner) -> None:
    """R-E11: 500/5/5, whatever is planned."""
    tuner.plan(PLANNED)
    tuner.use(GcMode.MEMORY)
    before = tuner.report().collections
    kept = [Cycle() for _ in range(10_000)]
    assert (gc.get_threshold(), tuner.report().collections >= before + 15, len(kept)) == (
        MEMORY_THRESHOLDS,
        True,
        10_000,
    )
