from dataclasses import replace
from pathlib import Path

import pytest

from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import NO_LIMIT, CgroupReading
from membudget_sidecar.kernel.process import ProcessReading
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading
from membudget_sidecar.kernel.sample import Sample, signal_bytes, take_sample
from sidecar.kernel_tree import MB, PID, V2_FILES, host

PROCESS = ProcessReading(
    source="status, stat",
    resident=80 * MB,
    anonymous=40 * MB,
    file=30 * MB,
    shmem=10 * MB,
    page_tables=1 * MB,
    swap=0,
    data=0,
    stack=0,
    code=0,
    libraries=0,
    minor_faults=0,
    major_faults=0,
    threads=1,
    cpu_milliseconds=0,
)
CGROUP = CgroupReading(
    version="v2",
    source="engine",
    usage=130 * MB,
    limit=200 * MB,
    working_set=110 * MB,
    unreclaimable=65 * MB,
    unreclaimable_source="engine/memory.stat anon + shmem",
    swap=0,
    limit_hits=0,
    oom_kills=0,
    refaults=0,
    stall_percent=0.0,
)
NO_CGROUP = Absent("in the root cgroup")


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (Signal.UNRECLAIMABLE, SignalReading(65 * MB, "engine/memory.stat anon + shmem")),
        (Signal.WORKING_SET, SignalReading(110 * MB, "engine usage - inactive_file")),
        (Signal.RESIDENT_SET_SIZE, SignalReading(80 * MB, "status, stat VmRSS")),
    ],
)
def test_each_signal_is_its_own_figure(signal: Signal, expected: SignalReading) -> None:
    """R-S03: the three signals."""
    assert signal_bytes(signal, PROCESS, CGROUP) == expected


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (
            Signal.UNRECLAIMABLE,
            SignalReading(
                51 * MB, "status, stat RssAnon + RssShmem + VmPTE, without a cgroup of its own: in the root cgroup"
            ),
        ),
        (Signal.WORKING_SET, SignalReading(NO_CGROUP, "no cgroup")),
        (Signal.RESIDENT_SET_SIZE, SignalReading(80 * MB, "status, stat VmRSS")),
    ],
)
def test_without_a_cgroup_the_process_speaks_where_it_can_and_the_source_says_so(
    signal: Signal, expected: SignalReading
) -> None:
    """R-S03: Unreclaimable falls back, marked."""
    assert signal_bytes(signal, PROCESS, NO_CGROUP) == expected


def test_a_figure_missing_in_the_cgroup_does_not_change_the_source_of_the_signal() -> None:
    """R-S03: a jump between two sources would look like growth."""
    missing = Absent("memory.stat: no figure anon")
    used = signal_bytes(Signal.UNRECLAIMABLE, PROCESS, replace(CGROUP, unreclaimable=missing))
    assert used.bytes == missing


@pytest.mark.parametrize("field", ["anonymous", "shmem", "page_tables"])
def test_the_fallback_is_absent_when_one_of_its_parts_is(field: str) -> None:
    """R-S01: never 0 for what is not known."""
    process = replace(PROCESS, **{field: Absent(field)})
    assert signal_bytes(Signal.UNRECLAIMABLE, process, NO_CGROUP).bytes == Absent(field)


@pytest.mark.parametrize(
    ("used", "limit", "available", "percent"),
    [
        (50, 200, 150, 25.0),
        (250, 200, 0, 125.0),
        (50, NO_LIMIT, NO_LIMIT, NO_LIMIT),
        (Absent("gone"), 200, Absent("gone"), Absent("gone")),
        (0, 0, 0, Absent("the limit is 0 bytes")),
    ],
)
def test_what_is_left_is_told_against_the_containers_limit(
    used: Reading, limit: Reading, available: Reading, percent: float | Absent
) -> None:
    """R-S01: memory percent and what is still available."""
    sample = Sample(1.0, Signal.UNRECLAIMABLE, SignalReading(used, "x"), PROCESS, replace(CGROUP, limit=limit))
    assert (sample.available, sample.limit_percent) == (available, percent)


def test_without_a_cgroup_there_is_no_limit_to_tell_against() -> None:
    """R-S01: absent with the cgroup's reason."""
    sample = Sample(1.0, Signal.UNRECLAIMABLE, SignalReading(50, "x"), PROCESS, NO_CGROUP)
    assert (sample.limit, sample.available, sample.limit_percent) == (NO_CGROUP, NO_CGROUP, NO_CGROUP)


def test_a_sample_holds_what_process_and_cgroup_said_at_that_time(tmp_path: Path) -> None:
    """R-S01: one sample, all figures."""
    process, root = host(tmp_path, membership="0::/engine\n", cgroups={"engine": V2_FILES})
    cgroup = find_memory_cgroup(process, root)
    assert not isinstance(cgroup, Absent)
    reading = cgroup.read()
    used = signal_bytes(Signal.WORKING_SET, process.read(), reading)
    expected = Sample(12.5, Signal.WORKING_SET, used, process.read(), reading)
    assert take_sample(12.5, Signal.WORKING_SET, process, cgroup) == expected


def test_a_sample_of_a_process_that_ended_is_absent_throughout(tmp_path: Path) -> None:
    """R-S01: the last figures do not linger."""
    process, root = host(tmp_path, membership="0::/engine\n", cgroups={"engine": V2_FILES})
    cgroup = find_memory_cgroup(process, root)
    (tmp_path / "proc" / str(PID) / "stat").unlink()
    gone = Absent(f"{tmp_path}/proc/{PID}/stat: No such file or directory")
    samples = [take_sample(1.0, signal, process, cgroup) for signal in Signal]
    assert [sample.used.bytes for sample in samples] == [gone] * 3
