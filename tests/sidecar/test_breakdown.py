"""Whose the bytes are: parts sum to the whole exactly, whatever kernel and engine say, and none is an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.breakdown_api import ComponentState, PartKind, Whole
from membudget_contract.compile import compile_policy
from membudget_contract.control_api import CollectionReport, ComponentReport
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Priority, Signal
from membudget_contract.resolve import resolve
from membudget_sidecar.deciding.breakdown import by_owner, by_region, collection_uses, component_uses
from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.mappings import RegionBytes, Regions, read_regions, regions
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.sample import Sample, take_sample
from membudget_sidecar.kernel.signal_kinds import Kinds, resident_kinds, signal_kinds
from sidecar.fake_engine import FakeEngine
from sidecar.kernel_tree import MB, V2_FILES, host

PLAN: EffectivePlan = resolve(compile_policy(None), environment={}, limit=None)

SMAPS = """00400000-00500000 r-xp 00000000 08:01 11                                 /usr/bin/python3.11
Rss:                 100 kB
Anonymous:             0 kB
00500000-00600000 rw-p 00100000 08:01 11                                 /usr/bin/python3.11
Rss:                  20 kB
Anonymous:            20 kB
01000000-02000000 rw-p 00000000 00:00 0                                  [heap]
Rss:                 300 kB
Anonymous:           300 kB
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Rss:                 400 kB
Anonymous:           400 kB
7f0000200000-7f0000300000 r--s 00000000 08:01 12                         /data/segment 7.index
Rss:                 500 kB
Anonymous:             0 kB
7f0000400000-7f0000500000 r-xp 00000000 08:01 13                         /usr/lib/libc.so.6
Rss:                  60 kB
Anonymous:             8 kB
7f0000600000-7f0000700000 rw-s 00000000 00:01 14                         /memfd:arena (deleted)
Rss:                  70 kB
Anonymous:             0 kB
7ffe00000000-7ffe00100000 rw-p 00000000 00:00 0                          [stack]
Rss:                   9 kB
Anonymous:             9 kB
7ffe00200000-7ffe00201000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
Anonymous:             0 kB
"""


def component(name: str, owned: int, mapped: int | None = 0) -> ComponentReport:
    """As the engine reports one."""
    return ComponentReport(
        name=name, owned_bytes=owned, mapped_bytes=mapped, budget_bytes=None, entries=1, evictable_bytes=0,
        critical_bytes=0, spilled_bytes=0,
    )  # fmt: skip


def parts(whole: Whole) -> dict[tuple[str, PartKind], int]:
    """Bytes by name and kind."""
    return {(part.name, part.kind): part.part_bytes for part in whole.parts}


def of_kind(whole: Whole, kind: PartKind) -> int:
    """Bytes of all parts of a kind."""
    return sum(part.part_bytes for part in whole.parts if part.kind is kind)


amounts = st.integers(0, 1 << 40)
kinds = st.fixed_dictionaries(
    {PartKind.ANONYMOUS: amounts},
    optional=dict.fromkeys((PartKind.FILES, PartKind.SHARED, PartKind.KERNEL, PartKind.SOCKETS), amounts),
).map(lambda found: Kinds("signal", "a file", found))
region_bytes = st.tuples(amounts, amounts).map(lambda pair: RegionBytes(max(pair), min(pair)))
any_regions = st.one_of(
    st.just(Absent("not readable")),
    st.dictionaries(st.sampled_from(PartKind), region_bytes).map(lambda found: Regions("smaps", found)),
)
reports = st.one_of(
    st.none(),
    st.lists(st.builds(component, st.sampled_from("abcde"), amounts, st.one_of(st.none(), amounts)), max_size=5),
)


@given(kinds, reports, any_regions)
def test_the_parts_sum_to_the_whole_exactly(
    found: Kinds, components: list[ComponentReport] | None, mapped: Regions | Absent
) -> None:
    """R-S02: also when the reports contradict the kernel; then the excess is a part, negative and with the reason."""
    whole = by_owner(found, components, mapped, "signal")
    assert found.whole == whole.figure.value == sum(part.part_bytes for part in whole.parts)
    negative = [part for part in whole.parts if part.part_bytes < 0]
    assert all(part.kind is PartKind.OVERLAP and part.reason for part in negative)
    assert {part.kind for part in whole.parts if part.kind is PartKind.OVERLAP} == {part.kind for part in negative}


@given(kinds, amounts, amounts)
def test_a_byte_more_that_a_component_owns_is_a_byte_less_unmanaged(found: Kinds, owned: int, more: int) -> None:
    """R-S02, known bug 8: no share of the total is fixed; parts follow what is reported."""
    nothing = Absent("not readable")
    before = by_owner(found, [component("a", owned)], nothing, "signal")
    after = by_owner(found, [component("a", owned + more)], nothing, "signal")
    rest = (PartKind.UNMANAGED, PartKind.OVERLAP)
    assert more == sum(of_kind(before, kind) - of_kind(after, kind) for kind in rest)
    assert more == of_kind(after, PartKind.OWNED) - of_kind(before, PartKind.OWNED)


def test_each_part_says_where_it_is_from() -> None:
    """R-S02: reported, read, or what is left of the kernel's figure."""
    found = Kinds("ResidentSetSize", "status", {PartKind.ANONYMOUS: 1000, PartKind.FILES: 800, PartKind.SHARED: 50})
    program = {PartKind.STACK: RegionBytes(10, 10), PartKind.CODE: RegionBytes(120, 20)}
    program[PartKind.LIBRARIES] = RegionBytes(200, 30)
    whole = by_owner(found, [component("index", 100, 400)], Regions("smaps", program), "resident")
    assert {
        ("index", PartKind.OWNED): 100,
        ("index", PartKind.MAPPED): 400,
        ("Stack", PartKind.STACK): 10,
        ("Code", PartKind.CODE): 120,
        ("Libraries", PartKind.LIBRARIES): 200,
        ("Shared", PartKind.SHARED): 50,
        ("Unmanaged", PartKind.UNMANAGED): 1000 - 100 - 10 - 20 - 30,
        ("Files", PartKind.FILES): 800 - 400 - 100 - 170,
    } == parts(whole)
    sources = {(part.kind, part.source) for part in whole.parts}
    assert {(PartKind.OWNED, "engine"), (PartKind.CODE, "kernel"), (PartKind.UNMANAGED, "rest")} <= sources


def test_without_a_report_the_rest_says_that_components_are_in_it() -> None:
    """R-S02, guarantee 4: no report is not the same as components that own nothing."""
    whole = by_owner(Kinds("a", "b", {PartKind.ANONYMOUS: 7}), None, Absent("x"), "signal")
    (rest,) = whole.parts
    assert (7, PartKind.UNMANAGED) == (rest.part_bytes, rest.kind)
    assert "has not reported" in str(rest.reason)


def test_without_the_figure_there_are_no_parts() -> None:
    """Guarantee 4: the reason stands in its place."""
    whole = by_owner(Absent("the process is gone"), [component("a", 5)], Absent("x"), "signal")
    assert ((), None, "the process is gone") == (whole.parts, whole.figure.value, whole.figure.absent)


@pytest.mark.parametrize(
    ("counted", "ceiling", "state"),
    [
        (89, 100, ComponentState.UNDER),
        (90, 100, ComponentState.NEAR),
        (100, 100, ComponentState.NEAR),
        (101, 100, ComponentState.OVER),
        (0, 0, ComponentState.UNDER),
        (1, 0, ComponentState.OVER),
    ],
)
def test_a_component_is_under_near_or_over_its_ceiling(counted: int, ceiling: int, state: ComponentState) -> None:
    """R-S02: near from 90 % on."""
    plan = msgspec.structs.replace(PLAN, components={"a": ceiling})
    nothing = by_owner(Absent("x"), None, Absent("x"), "signal")
    use, working = component_uses(plan, [component("a", counted)], nothing)
    assert (state, counted, True) == (use.state, use.counted_bytes, use.enforced)
    assert ("working", None, None, False) == (
        working.name,
        working.counted_bytes,
        working.state,
        working.enforced,
    )


def test_mapped_pages_count_against_the_ceiling_where_the_signal_has_them() -> None:
    """R-S02: what is not known has no state, and `working` is what no component owns."""
    parts_ = [component("index", 10, 90), component("other", 10, None)]
    found = Kinds("a", "b", {PartKind.ANONYMOUS: 60, PartKind.FILES: 200})
    states = {}
    for signal in (Signal.UNRECLAIMABLE, Signal.RESIDENT_SET_SIZE):
        plan = msgspec.structs.replace(PLAN, signal=signal, components={"index": 50, "other": 50, "working": 1000})
        uses = component_uses(plan, parts_, by_owner(found, parts_, Absent("x"), "signal"))
        states[signal] = [(use.counted_bytes, use.state) for use in uses]
    under = ComponentState.UNDER
    assert [(10, under), (10, under), (150, under)] == states[Signal.UNRECLAIMABLE]
    assert [(100, ComponentState.OVER), (None, None), (150, under)] == states[Signal.RESIDENT_SET_SIZE]


def test_collections_are_added_up_over_components() -> None:
    """R-S02: largest first, with the bytes in each component and the highest class."""
    given_ = [
        CollectionReport(name="a", component="index", priority=Priority.LOW, owned_bytes=5, entries=1),
        CollectionReport(name="b", component="index", priority=Priority.LOW, owned_bytes=7, entries=2),
        CollectionReport(name="a", component="cache", priority=Priority.HIGH, owned_bytes=6, entries=3),
    ]
    first, second = collection_uses(given_)
    assert ("a", 11, 4, Priority.HIGH, {"index": 5, "cache": 6}) == (
        first.name,
        first.owned_bytes,
        first.entries,
        first.priority,
        first.components,
    )
    assert ("b", 7) == (second.name, second.owned_bytes)


def test_mappings_are_told_apart_by_what_the_kernel_calls_them() -> None:
    """R-S02: heap, stack, code, libraries, files, shared memory; a private page of a file is anonymous."""
    found = regions(SMAPS.splitlines(keepends=True), "/usr/bin/python3.11")
    expected: Mapping[PartKind, tuple[int, int]] = {
        PartKind.CODE: (120, 20),
        PartKind.HEAP: (300, 300),
        PartKind.ANONYMOUS: (400, 400),
        PartKind.FILES: (500, 0),
        PartKind.LIBRARIES: (60, 8),
        PartKind.SHARED: (70, 0),
        PartKind.STACK: (9, 9),
        PartKind.KERNEL: (4, 0),
    }
    assert {kind: RegionBytes(*(1024 * kib for kib in pair)) for kind, pair in expected.items()} == found
    whole = by_region(Regions("smaps", found))
    assert 1463 * 1024 == whole.figure.value == sum(part.part_bytes for part in whole.parts)


def test_a_signal_of_a_cgroup_comes_apart_into_what_it_is_the_sum_of(tmp_path: Path) -> None:
    """R-S02: kernel memory and sockets are parts of their own, page cache is one where the signal has it."""
    process, root = host(tmp_path, membership="0::/app\n", cgroups={"app": V2_FILES})
    cgroup = find_memory_cgroup(process, root)
    assert isinstance(cgroup, MemoryCgroup)
    kernel = 5 * MB
    expected = {
        Signal.UNRECLAIMABLE: {
            PartKind.ANONYMOUS: 50 * MB, PartKind.SHARED: 10 * MB, PartKind.SOCKETS: 8192, PartKind.KERNEL: kernel,
        },
        Signal.WORKING_SET: {
            PartKind.ANONYMOUS: 50 * MB, PartKind.SHARED: 10 * MB, PartKind.SOCKETS: 8192, PartKind.KERNEL: kernel,
            PartKind.FILES: 110 * MB - 65 * MB - 8192,
        },
        Signal.RESIDENT_SET_SIZE: {
            PartKind.ANONYMOUS: 40 * MB, PartKind.FILES: 30 * MB, PartKind.SHARED: 10 * MB,
        },
    }  # fmt: skip
    for signal, amounts_ in expected.items():
        sample = take_sample(0.0, signal, process, cgroup)
        found = signal_kinds(sample)
        assert isinstance(found, Kinds)
        assert (amounts_, sample.used.bytes) == (found.amounts, found.whole)


def test_a_process_without_a_cgroup_comes_apart_by_its_own_figures(tmp_path: Path) -> None:
    """R-S02: with its page tables, and without a figure where one is missing."""
    process, _ = host(tmp_path, membership="0::/\n", cgroups={})
    sample = take_sample(0.0, Signal.UNRECLAIMABLE, process, Absent("none"))
    found = signal_kinds(sample)
    assert isinstance(found, Kinds)
    assert {PartKind.ANONYMOUS: 40 * MB, PartKind.SHARED: 10 * MB, PartKind.KERNEL: MB} == found.amounts
    gone = take_sample(0.0, Signal.UNRECLAIMABLE, Process(tmp_path, 7), Absent("none"))
    assert isinstance(signal_kinds(gone), Absent)


def test_a_real_process_is_broken_down_as_it_moves(engine: FakeEngine) -> None:
    """R-S02, known bug 8: 24 MiB owned and 12 MiB unmanaged show as just that, to a MiB; a fixed share would not."""
    process = Process(Path("/proc"), engine.pid)

    def look(owned: int) -> Whole:
        sample: Sample = take_sample(0.0, Signal.RESIDENT_SET_SIZE, process, Absent("none"))
        return by_owner(resident_kinds(sample.process), [component("a", owned)], read_regions(process), "resident")

    before = look(0)
    engine.hold_managed(24 * MB)
    managed = look(24 * MB)
    engine.fill_to(engine.resident() + 12 * MB)
    both = look(24 * MB)
    assert of_kind(before, PartKind.UNMANAGED) == pytest.approx(of_kind(managed, PartKind.UNMANAGED), abs=MB)
    grown = of_kind(both, PartKind.UNMANAGED) - of_kind(managed, PartKind.UNMANAGED)
    assert grown == pytest.approx(12 * MB, abs=MB)
    assert of_kind(both, PartKind.LIBRARIES) > MB
    assert of_kind(both, PartKind.CODE) > 0
    assert 0 < of_kind(both, PartKind.STACK) < MB
    by_kind = by_region(read_regions(process))
    assert by_kind.figure.value == pytest.approx(engine.resident(), abs=MB)


def test_mappings_of_a_process_that_ended_are_absent(engine: FakeEngine) -> None:
    """Guarantee 4: no zeros in their place."""
    process = Process(Path("/proc"), engine.pid)
    engine.kill()
    assert isinstance(read_regions(process), Absent)
