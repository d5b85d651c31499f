import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from membudget_contract.policy import Signal
from membudget_sidecar.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.cgroup_reading import CgroupReading
from membudget_sidecar.process import Process
from membudget_sidecar.reading import Absent
from membudget_sidecar.sample import Sample, take_sample
from memory_cgroup import memory_cgroup
from resident_sampler import ResidentSampler

MB = 1 << 20
FILE_MB = 60
pytestmark = pytest.mark.cgroup

# Each line read is a step: anonymous memory first, then every page of a mapped file.
_ENGINE = """
import mmap, sys
print("started", flush=True)
sys.stdin.readline()
anonymous = b"x" * (50 << 20)
print("allocated", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for start in range(0, len(mapped), 4096):
    mapped[start]
print("mapped", flush=True)
sys.stdin.readline()
"""

_COLD_FILE = """
import os, sys
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(1 << 20) * int(sys.argv[2]))
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
"""


@dataclass(frozen=True)
class Figures:
    """What one sample says, in bytes, where all of it must be there."""

    unreclaimable: int
    usage: int
    working_set: int
    resident: int
    anonymous: int
    file: int


def step(engine: subprocess.Popen[str], word: str) -> None:
    """Lets the engine go on, and waits until it has."""
    assert engine.stdin is not None
    assert engine.stdout is not None
    if word != "started":
        engine.stdin.write("\n")
        engine.stdin.flush()
    assert engine.stdout.readline().strip() == word


def sample_of(pid: int) -> Sample:
    """A sample as the sidecar takes it."""
    process = Process(Path("/proc"), pid)
    return take_sample(0.0, Signal.UNRECLAIMABLE, process, find_memory_cgroup(process, Path("/sys/fs/cgroup")))


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
    ]
    assert [figure for figure in figures if isinstance(figure, Absent)] == []
    return Figures(*(figure for figure in figures if isinstance(figure, int)))


def test_the_kernel_charges_anonymous_and_mapped_bytes_where_the_readings_say(tmp_path: Path) -> None:
    """R-S01: unreclaimable counts what is anonymous and not the file, usage counts both, within 2 %."""
    index = tmp_path / "index"
    # Written by another process and dropped: page cache is charged to whoever touches it first.
    subprocess.run([sys.executable, "-c", _COLD_FILE, str(index), str(FILE_MB)], check=True)
    with memory_cgroup(200 * MB) as cgroup:
        argv = [sys.executable, "-c", _ENGINE, str(index)]
        engine = cgroup.run(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        step(engine, "started")
        with ResidentSampler(engine.pid) as outside:
            bare = known(sample_of(engine.pid))
            step(engine, "allocated")
            allocated = known(sample_of(engine.pid))
            step(engine, "mapped")
            mapped = known(sample_of(engine.pid))
        peak = cgroup.peak_usage()
    anonymous, file = 50 * MB, FILE_MB * MB
    grown = {
        "unreclaimable, allocated": (allocated.unreclaimable - bare.unreclaimable, anonymous),
        "unreclaimable, mapped": (mapped.unreclaimable - bare.unreclaimable, anonymous),
        "usage, mapped": (mapped.usage - bare.usage, anonymous + file),
        "process, anonymous": (mapped.anonymous - bare.anonymous, anonymous),
        "process, file": (mapped.file - bare.file, file),
        "seen from outside": (outside.max_resident, mapped.resident),
        "peak": (peak, mapped.usage),
    }
    wrong = {name: pair for name, pair in grown.items() if pair[0] != pytest.approx(pair[1], rel=0.02)}
    assert wrong == {}


def test_a_limit_lowered_while_the_process_runs_is_followed_by_the_next_sample() -> None:
    """R-P03: an in-place resize is followed within one sample."""
    with memory_cgroup(200 * MB) as cgroup:
        engine = cgroup.run(["/bin/sleep", "60"])
        before = sample_of(engine.pid)
        cgroup.set_limit(120 * MB)
        after = sample_of(engine.pid)
    assert (before.limit, after.limit) == (200 * MB, 120 * MB)


def test_an_oom_kill_is_counted_by_reading_and_fixture_alike() -> None:
    """R-S01: events of the cgroup."""
    with memory_cgroup(30 * MB) as cgroup:
        witness = cgroup.run(["/bin/sleep", "60"])
        victim = cgroup.run([sys.executable, "-c", "x = b'x' * (100 << 20)"])
        victim.wait(timeout=30)
        reading = sample_of(witness.pid).cgroup
        kills = cgroup.oom_kills()
    assert isinstance(reading, CgroupReading)
    assert (kills, reading.oom_kills, victim.returncode) == (1, 1, -9)


def test_a_process_that_ended_is_absent_in_every_figure() -> None:
    """R-S01: the kernel's own zombie and its own ENOENT."""
    with memory_cgroup(30 * MB) as cgroup:
        engine = cgroup.run(["/bin/sleep", "60"])
        process = Process(Path("/proc"), engine.pid)
        found = find_memory_cgroup(process, Path("/sys/fs/cgroup"))
        engine.kill()
        engine.wait()
        sample = take_sample(0.0, Signal.UNRECLAIMABLE, process, found)
    gone = Absent(f"/proc/{engine.pid}/stat: No such file or directory")
    assert isinstance(found, MemoryCgroup)
    assert (sample.used.bytes, sample.cgroup, process.resident_bytes()) == (gone, gone, gone)
