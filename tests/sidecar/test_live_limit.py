import errno
import itertools
from pathlib import Path

import pytest

from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import NO_LIMIT, CgroupReading
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Reading
from memory_cgroup import MemoryCgroup as RealCgroup
from memory_cgroup import memory_cgroup
from sidecar.memory_holder import MemoryHolder, cold_file

MB = 1 << 20
pytestmark = pytest.mark.cgroup


def found(pid: int) -> MemoryCgroup:
    """The cgroup as the sidecar finds it, once for all readings."""
    cgroup = find_memory_cgroup(Process(Path("/proc"), pid), Path("/sys/fs/cgroup"))
    assert isinstance(cgroup, MemoryCgroup)
    return cgroup


def reading(cgroup: MemoryCgroup) -> CgroupReading:
    """Its figures of now."""
    figures = cgroup.read()
    assert isinstance(figures, CgroupReading)
    return figures


def survivor(cgroup: RealCgroup) -> MemoryCgroup:
    """The cgroup seen through a member that no OOM kill takes, where root may ask for that."""
    unkillable = "echo -1000 2>&- > /proc/self/oom_score_adj; exec /bin/sleep 60"
    return found(cgroup.run(["/bin/sh", "-c", unkillable]).pid)


def test_the_hierarchy_that_has_the_memory_controller_is_the_one_read() -> None:
    """R-S01: v1, v2 and hybrid hosts, each as it really is."""
    with memory_cgroup(30 * MB) as cgroup:
        figures = reading(found(cgroup.run(["/bin/sleep", "60"]).pid))
    assert (figures.version, figures.source.split("/")[-1]) == (cgroup.version, cgroup.path.name)


def test_a_limit_changed_while_the_process_runs_is_followed_by_the_next_reading() -> None:
    """R-P03: an in-place resize, up and down, to none and back."""
    limits = [200 * MB, 120 * MB, 300 * MB, None, 150 * MB]
    followed: list[Reading] = []
    with memory_cgroup(100 * MB) as cgroup:
        engine = found(cgroup.run(["/bin/sleep", "60"]).pid)
        for limit in limits:
            cgroup.set_limit(limit)
            followed.append(reading(engine).limit)
    assert followed == [NO_LIMIT if limit is None else limit for limit in limits]


def test_of_nested_limits_the_tightest_holds_whichever_it_is_and_whenever_it_changes() -> None:
    """R-P03, fault 87: a pod's limit above its container's, each changed live."""
    expected: list[Reading] = []
    followed: list[Reading] = []
    with memory_cgroup(200 * MB) as pod, memory_cgroup(None, parent=pod) as container:
        engine = found(container.run(["/bin/sleep", "60"]).pid)
        for outer, inner in itertools.product((80 * MB, 200 * MB, None), (100 * MB, 60 * MB, None)):
            pod.set_limit(outer)
            container.set_limit(inner)
            expected.append(min(filter(None, (outer, inner)), default=NO_LIMIT))
            followed.append(reading(engine).limit)
    assert followed == expected


def test_an_oom_kill_is_counted_by_reading_and_kernel_alike() -> None:
    """R-S01: events of the cgroup."""
    with memory_cgroup(40 * MB) as cgroup:
        witness = survivor(cgroup)
        before = reading(witness)
        code = MemoryHolder(cgroup).die_of("anonymous", 100 * MB)
        after = reading(witness)
        kills = cgroup.oom_kills()
    assert (before.oom_kills, code, kills, after.oom_kills) == (0, -9, 1, 1)
    assert isinstance(after.limit_hits, int)
    assert after.limit_hits > 0


def test_a_kill_for_the_limit_of_the_pod_is_counted_in_the_container() -> None:
    """R-S01: the victim's cgroup counts it, whoever's limit it was."""
    with memory_cgroup(60 * MB) as pod, memory_cgroup(None, parent=pod) as container:
        witness = survivor(container)
        code = MemoryHolder(container).die_of("anonymous", 100 * MB)
        after = reading(witness)
    assert (code, after.oom_kills, after.limit) == (-9, 1, 60 * MB)


def test_a_limit_lowered_under_what_is_held_is_refused_on_v1_and_kills_on_v2() -> None:
    """R-P03, fault 86: why the application shrinks first."""
    refused = 0
    with memory_cgroup(150 * MB) as cgroup:
        witness = survivor(cgroup)
        engine = MemoryHolder(cgroup)
        engine.hold("anonymous", 90 * MB)
        try:
            cgroup.set_limit(40 * MB)
        except OSError as error:
            refused = error.errno or 0
        else:
            engine.process.wait(timeout=30)
        seen = (refused, engine.process.poll(), reading(witness).limit, reading(witness).oom_kills)
    expected = {"v1": (errno.EBUSY, None, 150 * MB, 0), "v2": (0, -9, 40 * MB, 1)}
    assert seen == expected[cgroup.version]


def test_a_limit_lowered_under_page_cache_takes_the_cache_and_nothing_else(tmp_path: Path) -> None:
    """R-P03, fault 86: what is reclaimable stands in nobody's way, so Unreclaimable is the figure to act on."""
    with memory_cgroup(150 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        engine.hold("anonymous", 15 * MB)
        engine.hold("file", cold_file(tmp_path / "index", 60 * MB))
        held = found(engine.pid)
        before = reading(held)
        cgroup.set_limit(50 * MB)
        after = reading(held)
        alive = engine.process.poll() is None
    assert (alive, after.limit, after.oom_kills) == (True, 50 * MB, 0)
    assert isinstance(before.unreclaimable, int)
    assert after.unreclaimable == pytest.approx(before.unreclaimable, abs=2 * MB)
    assert isinstance(before.usage, int)
    assert isinstance(after.usage, int)
    assert before.usage > 70 * MB
    assert after.usage <= 50 * MB
