"""What grows inside a process: found, without holding on to any of it, and at a stated cost."""

import contextlib
import gc
import random
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_socket import Refused, ask
from membudget_contract.leak_detector_api import (
    LEAK_CYCLES_PATH,
    LEAK_DETECTOR_PATH,
    LEAK_SNAPSHOTS_PATH,
    CyclesFound,
    HeapSnapshot,
    LeakFindings,
    LeakWatch,
    SiteGrowth,
    SnapshotRequest,
    TypeGrowth,
)
from membudget_runtime.errors import DetectorOff
from membudget_runtime.interpreter.allocation_sites import FRAMES, GROWN_BYTES, LARGEST, SiteUse, grown_sites
from membudget_runtime.interpreter.gc_tuner import GcTuner
from membudget_runtime.interpreter.leak_detector import (
    READINGS,
    SNAPSHOTS,
    TRACE_ENDED,
    LeakDetector,
    bytes_per_hour,
)
from membudget_runtime.interpreter.object_counts import grown_types
from membudget_runtime.interpreter.reference_cycles import LINKS, LISTED, Groups
from membudget_runtime.memory_runtime import MemoryRuntime
from runtime.fakes import MB, HandClock

COST = Path(__file__).with_name("detector_cost.py")
HOUR = Path(__file__).with_name("detector_hour.py")
HERE = Path(__file__).name


class Node:
    """Refers to whatever it is told."""

    def __init__(self, other: object = None) -> None:
        self.other = other


class Process:
    """A detector on a clock and a memory moved by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.held: int | None = 100 * MB
        self.trims = 0
        self._tuner = GcTuner(self.clock)
        self.detector = LeakDetector(
            read_bytes=lambda: self.held,
            trim=self._trim,
            uninterrupted=self._tuner.uninterrupted,
            clock=self.clock,
        )

    def close(self) -> None:
        """Off, and everything restored."""
        self.detector.stop()
        self._tuner.restore()

    def _trim(self) -> None:
        self.trims += 1


@pytest.fixture
def process() -> Generator[Process]:
    """Ended after the test; what tests before it left unreachable is gone."""
    gc.collect()
    with contextlib.closing(Process()) as process:
        yield process
    assert not tracemalloc.is_tracing()


def allocate(count: int) -> list[bytearray]:
    """Blocks of 1 kB from one line."""
    return [bytearray(1000) for _ in range(count)]


def test_it_is_off_unless_asked(process: Process) -> None:
    """R-E12: no thread, no tracing, nothing kept; a snapshot says so."""
    assert (process.detector.findings(), tracemalloc.is_tracing()) == (LeakFindings(on=False), False)
    with pytest.raises(DetectorOff):
        process.detector.snapshot("too early")
    process.detector.stop()


def test_switching_it_on_or_off_twice_changes_nothing(process: Process) -> None:
    """R-E12: off, it has forgotten everything."""
    process.detector.start()
    process.detector.snapshot("one")
    process.detector.start()
    labels = [snapshot.label for snapshot in process.detector.findings().snapshots]
    assert (labels, tracemalloc.is_tracing()) == (["start", "one"], True)
    for _ in range(2):
        process.detector.stop()
        assert (process.detector.findings(), tracemalloc.is_tracing()) == (LeakFindings(on=False), False)


def test_a_snapshot_has_label_time_and_figures(process: Process) -> None:
    """R-E12: the kernel's figure of the process, bytes by Python, objects."""
    process.clock.now = 50.0
    process.detector.start()
    process.clock.now = 53.5
    process.held = None
    kept = allocate(500)
    noted = process.detector.snapshot("after loading")
    assert (noted.label, noted.after_seconds, noted.process_bytes) == ("after loading", 3.5, None)
    assert (noted.traced_bytes >= len(kept) * 1000, noted.objects > 5000) == (True, True)


def test_a_type_that_grows_is_named_with_its_counts(process: Process) -> None:
    """R-E12: over 1.5 times; what grew less, or by a handful, is not."""
    few, many = [Node() for _ in range(1000)], [Process.__new__(Process) for _ in range(1000)]
    process.detector.start()
    few += [Node() for _ in range(501)]
    many += [Process.__new__(Process) for _ in range(499)]
    process.detector.snapshot("later")
    grown = {growth.name: growth for growth in process.detector.findings().types}
    name = f"{Node.__module__}.Node"
    assert grown[name] == TypeGrowth(name=name, first=1000, newest=1501)
    assert f"{Process.__module__}.Process" not in grown
    assert (len(few), len(many)) == (1501, 1499)


def test_a_site_that_grows_is_named_with_three_frames(process: Process) -> None:
    """R-E12: over 1 MB more than at the first snapshot; the line that allocates comes last."""
    first = allocate(2000)
    process.detector.start()
    less, more = [bytearray(1000) for _ in range(900)], allocate(3000)
    process.detector.snapshot("later")
    findings = process.detector.findings()
    ours = [growth for growth in findings.grown_sites if HERE in growth.frames[-1]]
    assert len(ours) == 1
    assert (len(ours[0].frames), ours[0].first_bytes) == (FRAMES, 0)
    assert 3000 * 1000 <= ours[0].newest_bytes <= 3000 * 1150
    assert (len(first), len(less), len(more)) == (2000, 900, 3000)


def test_the_twenty_largest_sites_are_listed_largest_first(process: Process) -> None:
    """R-E12: with bytes and blocks."""
    process.detector.start()
    code = "\n".join(f"kept.append([bytearray(1000) for _ in range({10 * number})])" for number in range(1, 31))
    kept: list[object] = []
    exec(compile(code, "thirty_lines.py", "exec"), {"kept": kept})
    process.detector.snapshot("later")
    largest = process.detector.findings().largest_sites
    assert len(largest) == LARGEST
    assert [site.held_bytes for site in largest] == sorted((site.held_bytes for site in largest), reverse=True)
    assert largest[0].frames[-1] == "thirty_lines.py:30"
    assert 300 <= largest[0].blocks <= 602


def test_growth_per_hour_and_peak_come_from_all_readings(process: Process) -> None:
    """R-E12: a leak of 7 MB per hour beside a peak that went again; unknown readings count for nothing."""
    process.detector.start()
    for number in range(1, 361):
        process.clock.now = 10.0 * number
        process.held = (
            None if number % 7 == 0 else 100 * MB + 7 * MB * number // 360 + (200 * MB if number == 180 else 0)
        )
        process.detector.look()
    findings = process.detector.findings()
    assert findings.peak_bytes == 303 * MB + MB // 2
    assert findings.bytes_per_hour is not None
    assert 6.5 * MB < findings.bytes_per_hour < 7.5 * MB


@given(
    slope=st.integers(-10_000, 10_000),
    start=st.integers(0, 10**9),
    times=st.lists(st.integers(0, 7200), min_size=2, max_size=30, unique=True),
)
def test_the_slope_of_a_line_is_found(slope: int, start: int, times: list[int]) -> None:
    """R-E12: in bytes per hour, whatever the moments of the readings."""
    found = bytes_per_hour([(float(at), start + slope * at) for at in times])
    assert found is not None
    assert abs(found - 3600 * slope) <= 1 + abs(start) / 10**6


def test_without_two_moments_there_is_no_slope() -> None:
    """R-E12: unknown is not 0."""
    assert (bytes_per_hour([]), bytes_per_hour([(1.0, 5)]), bytes_per_hour([(1.0, 5), (1.0, 9)])) == (None,) * 3


def test_it_holds_none_of_the_objects_it_counted(process: Process) -> None:
    """R-E12: known bug 23; what the service drops dies at once, while it is on and after snapshots."""
    process.detector.start()
    watched = [Node() for _ in range(2000)]
    dead = [weakref.ref(node) for node in watched]
    for label in ("one", "two"):
        process.detector.snapshot(label)
    process.detector.findings()
    referrers = gc.get_referrers(watched[0])
    assert referrers == [watched]
    del referrers
    watched.clear()
    assert sum(reference() is not None for reference in dead) == 0


def test_snapshots_and_readings_have_a_bound(process: Process) -> None:
    """R-E12: the first stays, to compare with."""
    process.detector.start()
    for number in range(SNAPSHOTS + 5):
        process.detector.snapshot(f"{number}")
    for number in range(2 * READINGS):
        process.clock.now = number
        process.detector.look()
    labels = [snapshot.label for snapshot in process.detector.findings().snapshots]
    assert (labels[0], labels[-1], len(labels)) == ("start", f"{SNAPSHOTS + 4}", SNAPSHOTS)
    assert (len(process.detector._readings), process.trims) == (READINGS, SNAPSHOTS + 6)  # pyright: ignore[reportPrivateUsage]


def test_tracing_ends_by_itself_when_it_costs_too_much(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E12: and leaves what it knew, with the reason."""
    monkeypatch.setattr("membudget_runtime.interpreter.leak_detector.TRACE_BYTES", 200_000)
    process.detector.start()
    kept = allocate(20_000)
    process.detector.look()
    assert tracemalloc.is_tracing() is False
    kept += allocate(20_000)
    process.detector.snapshot("later")
    findings = process.detector.findings()
    assert [snapshot.label for snapshot in findings.snapshots] == ["start", TRACE_ENDED, "later"]
    assert "no longer traced" in (findings.problem or "")
    assert any(HERE in site.frames[-1] and site.held_bytes > 20 * MB * 0.9 for site in findings.largest_sites)
    assert (findings.cost_bytes < MB, len(kept)) == (True, 40_000)


def test_who_traces_already_goes_on_after_it(process: Process) -> None:
    """R-E12: somebody else's tracing is not ours to end."""
    tracemalloc.start(1)
    process.detector.start()
    process.detector.snapshot("one")
    process.detector.stop()
    still = tracemalloc.is_tracing()
    tracemalloc.stop()
    assert still is True


@pytest.mark.parametrize(("live", "goes_on"), [(6_000, True), (20_000, False)])
def test_its_own_cost_is_under_5_mb_and_published(live: int, goes_on: bool, publish: Callable[[str], None]) -> None:
    """R-E12: read from the kernel beside the same work without it; where it would cost more, tracing ends."""
    costs: dict[str, tuple[float, int, LeakFindings]] = {}
    for switch in ("off", "on"):
        done = subprocess.run(
            [sys.executable, str(COST), switch, str(live)], check=True, stdout=subprocess.PIPE, timeout=240
        )
        _, seconds, before, after, findings = msgspec.json.decode(
            done.stdout, type=tuple[int, float, int, int, LeakFindings]
        )
        costs[switch] = (seconds, after - before, findings)
    extra = costs["on"][1] - costs["off"][1]
    publish(
        f"leak detector beside {live} live dicts: {extra / MB:.1f} MiB, "
        f"{(costs['on'][0] - costs['off'][0]) / 200_000 * 1e6:.1f} us more for each dict that is made, with two strings"
    )
    assert (extra < 5_000_000, costs["on"][2].problem is None) == (True, goes_on)


def test_after_an_hour_it_names_the_wrapper_that_leaks_and_has_cost_less_than_5_mb(
    publish: Callable[[str], None],
) -> None:
    """R-E12, fault 68: 6 MB of leak in simulated time, 361 looks and 13 snapshots under a steady load."""
    ends: dict[str, tuple[int, int, LeakFindings]] = {}
    for switch in ("off", "on"):
        done = subprocess.run([sys.executable, str(HOUR), switch], check=True, stdout=subprocess.PIPE, timeout=240)
        leaked, before, after, findings = msgspec.json.decode(done.stdout, type=tuple[int, int, int, LeakFindings])
        ends[switch] = (leaked, after - before, findings)
    leaked, _, findings = ends["on"]
    extra = ends["on"][1] - ends["off"][1]
    publish(f"leak detector, an hour: {extra / MB:.1f} MiB, leak of {findings.bytes_per_hour} bytes an hour")
    assert extra < 5_000_000
    assert (findings.problem, len(findings.snapshots)) == (None, SNAPSHOTS)
    assert [(growth.name, growth.first, growth.newest) for growth in findings.types] == [
        ("__main__.SessionWrapper", 50, leaked)
    ]
    (site,) = findings.grown_sites
    assert all(HOUR.name in frame for frame in site.frames)
    assert findings.bytes_per_hour is not None
    assert 4 * MB < findings.bytes_per_hour < 12 * MB


def test_a_cycle_is_found_described_and_freed(process: Process) -> None:
    """R-E12: who refers to whom by which attribute, and what held it from outside; on or off."""
    first, second = Node(), Node()
    first.other, second.other = second, first
    dead = [weakref.ref(first), weakref.ref(second)]
    holder = Node()
    holder.other = [{"ring": first}, holder]
    gc.collect()
    del first, second, holder
    found = process.detector.cycles()
    node = f"{Node.__module__}.Node"
    ring = next(cycle for cycle in found.cycles if cycle.types == (node,))
    assert (ring.objects, ring.links, ring.referrers) == (2, (f"{node}.other -> {node}",), ("dict",))
    assert any({*cycle.links} == {f"{node}.other -> list", f"list -> {node}"} for cycle in found.cycles)
    assert (found.unreachable >= 5, ring.held_bytes > 80, found.problem) == (True, True, None)
    assert ([reference() for reference in dead], gc.get_debug(), gc.garbage) == ([None, None], 0, [])
    assert process.detector.cycles().cycles == ()


def make_ring(size: int) -> None:
    """Garbage: so many nodes, each referring to the next."""
    first = last = Node()
    for _ in range(size - 1):
        last = Node(last)
    first.other = last


def test_many_cycles_are_counted_and_the_largest_listed(process: Process) -> None:
    """R-E12: an answer has a bound; a chain of 50,000 needs no deep stack."""
    gc.disable()
    for size in (*range(1, LISTED + 6), 50_001):
        make_ring(size)
    found = process.detector.cycles()
    gc.enable()
    ours = [cycle.objects for cycle in found.cycles if cycle.types == (f"{Node.__module__}.Node",)]
    assert (ours[:3], len(found.cycles), found.omitted >= 6) == ([50_001, 25, 24], LISTED, True)
    assert all(len(cycle.links) <= LINKS for cycle in found.cycles)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_cycles_are_those_a_plain_search_finds(edges: list[tuple[int, int]]) -> None:
    """R-E12: of any graph of twelve objects."""
    reach = {place: {to for source, to in edges if source == place} for place in range(12)}
    for _ in range(12):
        reach = {place: to.union(*(reach[further] for further in to)) for place, to in reach.items()}
    expected = {
        frozenset(to for to in reach[place] if place in reach[to]) for place in range(12) if place in reach[place]
    }
    links = [[to for source, to in edges if source == place] for place in range(12)]
    assert {frozenset(group) for group in Groups(links)} == expected


def test_what_others_put_into_garbage_stays_there(process: Process) -> None:
    """R-E12: a debugger's list is not ours to empty."""
    theirs = object()
    gc.garbage.append(theirs)
    node = Node()
    node.other = node
    del node
    found = process.detector.cycles()
    kept = gc.garbage.copy()
    gc.garbage.clear()
    assert (kept, len(found.cycles)) == ([theirs], 1)


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000))


@given(counts, counts)
def test_grown_types_are_exactly_those_over_the_ratio(first: dict[str, int], newest: dict[str, int]) -> None:
    """R-E12: most gained first; a type that is new has grown from 0."""
    grown = grown_types(first, newest)
    expected = {
        name
        for name, count in newest.items()
        if 2 * count > 3 * first.get(name, 0) and count - first.get(name, 0) >= 100
    }
    gains = [growth.newest - growth.first for growth in grown]
    assert ({growth.name for growth in grown}, gains) == (expected, sorted(gains, reverse=True))


def test_grown_sites_are_those_with_over_1_mb_more() -> None:
    """R-E12: to the byte."""
    chosen = random.Random(5)
    first = {(f"{number}",): SiteUse(chosen.randrange(10 * MB), 1) for number in range(20)}
    newest = {
        frames: SiteUse(use.held_bytes + GROWN_BYTES + number % 2, 1)
        for number, (frames, use) in enumerate(first.items())
    } | {("new",): SiteUse(2 * GROWN_BYTES, 1), ("small",): SiteUse(GROWN_BYTES, 1)}
    grown = grown_sites(first, newest)
    assert grown[0] == SiteGrowth(frames=("new",), first_bytes=0, newest_bytes=2 * GROWN_BYTES)
    assert sorted(int(growth.frames[0]) for growth in grown[1:]) == list(range(1, 20, 2))


def test_over_the_control_socket_it_is_switched_asked_and_typed(tmp_path: Path) -> None:
    """R-E12: as a sidecar asks; off at the end of the service."""
    socket = tmp_path / "engine.sock"
    with contextlib.closing(MemoryRuntime(tmp_path / "state", {})) as runtime:
        runtime.serve(socket)
        with pytest.raises(Refused) as refused:
            ask(socket, "POST", LEAK_SNAPSHOTS_PATH, HeapSnapshot, SnapshotRequest(label="one"))
        on = ask(socket, "PUT", LEAK_DETECTOR_PATH, LeakFindings, LeakWatch(on=True))
        snapshot = ask(socket, "POST", LEAK_SNAPSHOTS_PATH, HeapSnapshot, SnapshotRequest(label="one"))
        findings = ask(socket, "GET", LEAK_DETECTOR_PATH, LeakFindings)
        cycles = ask(socket, "POST", LEAK_CYCLES_PATH, CyclesFound)
    assert (refused.value.status, refused.value.reason) == (409, "DetectorOff")
    assert (on.on, snapshot.label, (snapshot.process_bytes or 0) > 10 * MB) == (True, "one", True)
    assert [noted.label for noted in findings.snapshots] == ["start", "one"]
    assert (findings.cost_bytes > 0, cycles.took_seconds > 0, tracemalloc.is_tracing()) == (True, True, False)
