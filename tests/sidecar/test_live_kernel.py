import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import CgroupReading
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.sample import Sample, take_sample
from memory_cgroup import memory_cgroup
from resident_sampler import ResidentSampler
from sidecar.fake_engine import eventually
from sidecar.memory_holder import MemoryHolder, cold_file

MB = 1 << 20
ROOT = Path("/sys/fs/cgroup")
UNRECLAIMABLE = {
    "v1": (("total_rss", "total_shmem"), ()),
    "v2": (("anon", "shmem", "kernel", "sock"), ("slab_reclaimable",)),
}
"""Names of memory.stat that are added, and that are taken off; v1 has kernel memory in a file of its own."""
NO_PRESSURE = Absent("cgroup v1 has no pressure of a single cgroup")
pytestmark = pytest.mark.cgroup


@dataclass(frozen=True)
class Figures:
    """What one sample says, in bytes, where all of it must be there."""

    unreclaimable: int
    usage: int
    working_set: int
    resident: int
    anonymous: int
    file: int
    shmem: int


def sample_of(pid: int) -> Sample:
    """A sample as the sidecar takes it."""
    process = Process(Path("/proc"), pid)
    return take_sample(0.0, Signal.UNRECLAIMABLE, process, find_memory_cgroup(process, ROOT))


def cgroup_of(pid: int) -> CgroupReading:
    """What that sample has from the cgroup."""
    reading = sample_of(pid).cgroup
    assert isinstance(reading, CgroupReading)
    return reading


def known(sample: Sample) -> Figures:
    """The figures of a sample; the test fails with the reason of the first that is absent."""
    assert isinstance(sample.cgroup, CgroupReading)
    figures = [
        sample.used.bytes,
        sample.cgroup.usage,
        sample.cgroup.working_set,
        sample.process.resident,
        sample.process.anonymous,
        sample.process.file,
        sample.process.shmem,
    ]
    assert [figure for figure in figures if isinstance(figure, Absent)] == []
    return Figures(*(figure for figure in figures if isinstance(figure, int)))


def test_each_kind_of_memory_is_charged_where_the_readings_say(tmp_path: Path) -> None:
    """R-S01: a mapped file of 4 times the anonymous bytes is usage, and not Unreclaimable; all within 2 %."""
    anonymous, shared, file = 40 * MB, 20 * MB, 160 * MB
    index = cold_file(tmp_path / "index", file)
    with memory_cgroup(300 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        with ResidentSampler(engine.pid) as outside:
            bare = known(sample_of(engine.pid))
            engine.hold("anonymous", anonymous)
            allocated = known(sample_of(engine.pid))
            engine.hold("shared", shared)
            sharing = known(sample_of(engine.pid))
            engine.hold("file", index)
            mapped = known(sample_of(engine.pid))
        peak = cgroup.peak_usage()
    grown = {
        "unreclaimable, allocated": (allocated.unreclaimable - bare.unreclaimable, anonymous),
        "unreclaimable, shared": (sharing.unreclaimable - bare.unreclaimable, anonymous + shared),
        "unreclaimable, mapped": (mapped.unreclaimable - bare.unreclaimable, anonymous + shared),
        "usage, mapped": (mapped.usage - bare.usage, anonymous + shared + file),
        "process, anonymous": (mapped.anonymous - bare.anonymous, anonymous),
        "process, shared": (mapped.shmem - bare.shmem, shared),
        "process, file": (mapped.file - bare.file, file),
        "seen from outside": (outside.max_resident, mapped.resident),
        "peak": (peak, mapped.usage),
    }
    wrong = {name: pair for name, pair in grown.items() if pair[0] != pytest.approx(pair[1], rel=0.02)}
    assert wrong == {}


def test_kernel_memory_that_the_process_holds_is_unreclaimable() -> None:
    """R-S01: the part of the sum that no figure of the process shows."""
    amount = 16 * MB
    with memory_cgroup(200 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        bare = known(sample_of(engine.pid))
        engine.hold("pipes", amount)
        full = known(sample_of(engine.pid))
    assert full.unreclaimable - bare.unreclaimable == pytest.approx(amount, rel=0.05)
    assert full.resident - bare.resident < 2 * MB


def test_unreclaimable_is_the_sum_that_the_kernel_shows_to_everyone() -> None:
    """R-S01: anon + shmem + (kernel - slab_reclaimable) + sock, on v1 rss + shmem + kmem, added up here once more."""
    with memory_cgroup(200 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        for kind in ("anonymous", "shared", "pipes", "sockets"):
            engine.hold(kind, 8 * MB)
        added, taken = UNRECLAIMABLE[cgroup.version]
        stat = cgroup.figures("memory.stat")
        expected = sum(stat[name] for name in added) - sum(stat[name] for name in taken)
        if cgroup.version == "v1":
            expected += int((cgroup.path / "memory.kmem.usage_in_bytes").read_text())
        else:
            assert stat["sock"] > MB
        unreclaimable = known(sample_of(engine.pid)).unreclaimable
    assert unreclaimable == pytest.approx(expected, abs=MB // 2)  # the kernel adds up per processor, and late
    assert unreclaimable > 3 * 8 * MB


def test_a_working_set_has_the_file_that_is_used_again_and_not_the_one_that_is_not(tmp_path: Path) -> None:
    """R-S01: usage - inactive_file: what was read once is inactive, what was mapped and read twice becomes active."""
    with memory_cgroup(200 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        engine.hold("file", cold_file(tmp_path / "index", 60 * MB))
        figures = known(sample_of(engine.pid))
        prefix = "total_" if cgroup.version == "v1" else ""
        inactive = cgroup.figures("memory.stat")[f"{prefix}inactive_file"]
    assert figures.working_set == pytest.approx(figures.usage - inactive, abs=MB)
    assert inactive > 30 * MB


def test_a_file_larger_than_its_room_is_read_again_and_the_stalls_show(tmp_path: Path) -> None:
    """R-S01: refaults and limit hits are counted; pressure on v2, and its absence with the reason on v1."""
    with memory_cgroup(60 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        before = cgroup_of(engine.pid)
        index = cold_file(tmp_path / "index", 80 * MB)
        started = time.monotonic()
        engine.hold("file", index)
        for _ in range(4):
            engine.hold("file", index)
        after = cgroup_of(engine.pid)
        if cgroup.version == "v2":
            eventually(lambda: bool(cgroup_of(engine.pid).stall_percent), "some avg10 above 0", 30.0)
            pressure = (cgroup.path / "memory.pressure").read_text()
            stalled = int(pressure.split("\n")[0].split("total=")[1])
            assert 0 < stalled < 1e6 * (time.monotonic() - started)
    assert isinstance(before.refaults, int)
    assert isinstance(after.refaults, int)
    assert isinstance(after.limit_hits, int)
    assert after.refaults - before.refaults > 1000
    assert after.limit_hits > 0
    assert after.oom_kills == 0
    assert before.stall_percent == {"v1": NO_PRESSURE, "v2": 0.0}[cgroup.version]


def test_pressure_switched_off_while_it_runs_is_absent_and_back_when_it_is_on_again() -> None:
    """R-S01: PSI absent is a reason, and no calm; v1 never has it."""
    with memory_cgroup(60 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        switch = cgroup.path / "cgroup.pressure"  # v2 since Linux 6.1
        first = cgroup_of(engine.pid)
        seen = [first.stall_percent]
        for state in ("0", "1") if switch.exists() else ():
            switch.write_text(state)
            seen.append(cgroup_of(engine.pid).stall_percent)
    off = Absent(f"{first.source}/memory.pressure: No such file or directory")
    expected = {"v1": [NO_PRESSURE], "v2": [0.0, off, 0.0][: len(seen)]}
    assert seen == expected[cgroup.version]


def test_a_process_that_ended_is_absent_in_every_figure() -> None:
    """R-S01: the kernel's own zombie and its own ENOENT."""
    with memory_cgroup(30 * MB) as cgroup:
        engine = cgroup.run(["/bin/sleep", "60"])
        process = Process(Path("/proc"), engine.pid)
        found = find_memory_cgroup(process, ROOT)
        engine.kill()
        engine.wait()
        sample = take_sample(0.0, Signal.UNRECLAIMABLE, process, found)
    gone = Absent(f"/proc/{engine.pid}/stat: No such file or directory")
    assert isinstance(found, MemoryCgroup)
    assert (sample.used.bytes, sample.cgroup, process.resident_bytes()) == (gone, gone, gone)
