import dataclasses
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import CgroupReading
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent, SignalReading
from membudget_sidecar.kernel.sample import Sample, take_sample
from memory_cgroup import memory_cgroup, require
from sidecar.kernel_tree import (
    MB,
    PID,
    PROCESS,
    START_TICKS,
    V1_FILES,
    V1_ROOT_FILES,
    V2_FILES,
    V2_ROOT_FILES,
    Tree,
    build,
    host,
)

MEMBERSHIP = {"v1": "4:memory:/pod/engine\n", "v2": "0::/pod/engine\n"}
LIMIT = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}
LOST = {
    "v1": {
        "memory.usage_in_bytes": {"usage", "working_set"},
        "memory.limit_in_bytes": {"limit"},
        "memory.stat": {"limit", "working_set", "unreclaimable", "swap", "refaults"},
        "memory.kmem.usage_in_bytes": {"unreclaimable"},
        "memory.failcnt": {"limit_hits"},
        "memory.oom_control": {"oom_kills"},
        "../memory.limit_in_bytes": {"limit"},
    },
    "v2": {
        "memory.current": {"usage", "working_set"},
        "memory.max": {"limit"},
        "memory.stat": {"working_set", "unreclaimable", "refaults"},
        "memory.events": {"limit_hits", "oom_kills"},
        "memory.swap.current": {"swap"},
        "memory.pressure": {"stall_percent"},
        "../memory.max": {"limit"},
    },
}
"""File -> the figures that cannot be known without it. All others stay as they are."""
# Missing, these say something: there is no cgroup; no kernel memory is charged; an ancestor is the root of the host.
TELLING = {
    "memory.usage_in_bytes",
    "memory.current",
    "memory.kmem.usage_in_bytes",
    *(f"../{name}" for name in LIMIT.values()),
}


def damaged(path: Path, content: str) -> None:
    """As after a torn read or a kernel that nobody knows."""
    path.write_text(content)


FAULTS: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: damaged(path, ""),
    "garbage": lambda path: damaged(path, "\x00\x01garbage -1 some avg10=1.2\n"),
    "too large": lambda path: damaged(path, "9" * 30),
    "a directory": lambda path: (path.unlink(), path.mkdir())[-1],
}


CASES = [
    (version, name, fault)
    for version, files in LOST.items()
    for name in files
    for fault in FAULTS
    if not (fault == "missing" and name in TELLING)
]
UNREADABLE = [(version, name) for version, files in LOST.items() for name in files]


def limited(version: str) -> Tree:
    """A container with a limit of 300 MB in a pod with one of 200 MB."""
    files, root = (V1_FILES, V1_ROOT_FILES) if version == "v1" else (V2_FILES, V2_ROOT_FILES)
    name = LIMIT[version]
    tree: Tree = {**root, "pod": {**files, name: f"{200 * MB}\n", "engine": {**files, name: f"{300 * MB}\n"}}}
    return {"memory": tree} if version == "v1" else tree


def recorded(directory: Path, version: str) -> tuple[Process, Path, Path]:
    """The process, the cgroup root and the container's directory."""
    process, root = host(directory, membership=MEMBERSHIP[version], cgroups=limited(version))
    return process, root, root / ("memory" if version == "v1" else "") / "pod/engine"


def read(process: Process, root: Path) -> CgroupReading:
    """The figures of a cgroup that must be found."""
    cgroup = find_memory_cgroup(process, root)
    assert isinstance(cgroup, MemoryCgroup)
    reading = cgroup.read()
    assert isinstance(reading, CgroupReading)
    return reading


def changes(before: CgroupReading, after: CgroupReading) -> dict[str, Any]:
    """What became of each figure that differs; sources only name names."""
    names = (field.name for field in dataclasses.fields(CgroupReading) if not field.name.endswith("source"))
    return {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}


def absences(version: str, own: Path, name: str, changed: dict[str, Any], why: str = "") -> dict[str, str]:
    """Figure -> what is wrong with it; empty when exactly the right ones are absent because of that file, and `why`."""
    file = str(own.parent / name[3:] if name.startswith("../") else own / name)
    wrong = dict.fromkeys(LOST[version][name] - set(changed), "is still there")
    for figure, value in changed.items():
        if figure not in LOST[version][name]:
            wrong[figure] = f"became {value}"
        elif not (isinstance(value, Absent) and value.reason.startswith(f"{file}: {why}")):
            wrong[figure] = f"is {value}, not absent because of {file}"
    return wrong


@pytest.mark.parametrize(("version", "name", "fault"), CASES)
def test_a_file_that_fails_costs_its_own_figures_each_with_the_reason_and_no_other(
    tmp_path: Path, version: str, name: str, fault: str
) -> None:
    """R-S01, R-P03, fault 42: absent and never 0; a limit above that cannot be read makes the limit unknown."""
    process, root, own = recorded(tmp_path, version)
    before = read(process, root)
    FAULTS[fault](own / name)
    assert absences(version, own, name, changes(before, read(process, root))) == {}


_READ_AS_NOBODY = """
import os, pickle, sys
from pathlib import Path
from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import find_memory_cgroup
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.sample import take_sample
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports: the interpreter may lie where nobody may look
samples = []
for line in sys.stdin:
    proc, pid, root = line.split()
    process = Process(Path(proc), int(pid))
    samples.append(take_sample(0.0, Signal.UNRECLAIMABLE, process, find_memory_cgroup(process, Path(root))))
sys.stdout.buffer.write(pickle.dumps(samples))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may look into, as pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(*hosts: tuple[Process, Path]) -> list[Sample]:
    """Samples as an unprivileged user takes them: root never meets a refusal."""
    require(os.geteuid() == 0, "becoming uid 65534 needs root")
    asked = "".join(f"{process.proc} {process.pid} {root}\n" for process, root in hosts)
    argv = [sys.executable, "-c", _READ_AS_NOBODY]
    return pickle.loads(subprocess.run(argv, input=asked.encode(), check=True, capture_output=True).stdout)


def test_a_file_that_may_not_be_read_costs_its_own_figures(open_folder: Path) -> None:
    """R-S01, R-P03, fault 42: EACCES, file by file, as a user who is not root."""
    hosts = [recorded(open_folder / str(number), version) for number, (version, _) in enumerate(UNREADABLE)]
    before = [read(process, root) for process, root, _ in hosts]
    for (_, name), (_, _, own) in zip(UNREADABLE, hosts, strict=True):
        (own / name).chmod(0)
    after = as_nobody(*((process, root) for process, root, _ in hosts))
    wrong: dict[str, dict[str, str]] = {}
    for (version, name), (_, _, own), first, second in zip(UNREADABLE, hosts, before, after, strict=True):
        assert isinstance(second.cgroup, CgroupReading)
        wrong[f"{version} {name}"] = absences(version, own, name, changes(first, second.cgroup), "Permission denied")
    assert {name: figures for name, figures in wrong.items() if figures} == {}


def test_the_closed_container_of_another_user_is_named_and_the_process_own_figures_stand_in(open_folder: Path) -> None:
    """R-S01, fault 42: another uid shows neither its root nor its cgroup; status is everybody's, and marked as such."""
    process, root = host(open_folder, membership="0::/../engine\n", cgroups=V2_FILES, own_view=V2_FILES)
    (process.proc / str(PID) / "root").chmod(0)
    [sample] = as_nobody((process, root))
    directory = process.proc / str(PID)
    denied = (
        f"no memory.current of /../engine under {directory}/root/sys/fs/cgroup (Permission denied) nor under {root}"
    )
    held = f"{directory}/status, {directory}/stat RssAnon + RssShmem + VmPTE"
    expected = SignalReading(51 * MB, f"{held}, without a cgroup of its own: {denied}")
    assert (sample.cgroup, sample.used) == (Absent(denied), expected)


def test_a_membership_that_may_not_be_read_is_no_membership(open_folder: Path) -> None:
    """R-S01, fault 42: hidepid or another user namespace; the reason names the file."""
    process, root = host(open_folder, membership=MEMBERSHIP["v2"], cgroups=limited("v2"))
    source = process.proc / str(PID) / "cgroup"
    source.chmod(0)
    [sample] = as_nobody((process, root))
    assert sample.cgroup == Absent(f"{source}: Permission denied")


@pytest.mark.cgroup
def test_a_live_process_of_another_user_is_read_through_our_own_mount() -> None:
    """R-S01, fault 42: as uid 65534 of a root process, whose /proc/<pid>/root is closed; the host's mount shows it."""
    with memory_cgroup(60 * MB) as real:
        engine = Process(Path("/proc"), real.run(["/bin/sleep", "60"]).pid)
        [sample] = as_nobody((engine, Path("/sys/fs/cgroup")))
    assert isinstance(sample.cgroup, CgroupReading)
    assert isinstance(sample.used.bytes, int)
    assert (sample.cgroup.source, sample.limit, sample.cgroup.oom_kills) == (str(real.path), 60 * MB, 0)


def test_a_pid_that_is_anothers_now_decides_nothing_whatever_its_files_say(tmp_path: Path) -> None:
    """R-S01, fault 42: between finding the cgroup and reading it; every figure is absent, for one reason."""
    process, root, _ = recorded(tmp_path, "v2")
    cgroup = find_memory_cgroup(process, root)
    stat = str(PROCESS["stat"]).replace(str(START_TICKS), "200000")
    build(process.proc, {str(PID): {"stat": stat}})
    sample = take_sample(0.0, Signal.UNRECLAIMABLE, process, cgroup)
    reason = Absent(
        f"the process with pid {PID} is another one since tick 200000; the one meant started at tick {START_TICKS}"
    )
    assert (sample.cgroup, sample.used.bytes, sample.limit, sample.available) == (reason, reason, reason, reason)
