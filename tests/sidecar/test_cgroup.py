from dataclasses import replace
from pathlib import Path

import pytest

from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import NO_LIMIT, CgroupReading, tightest
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent
from sidecar.kernel_tree import (
    MB,
    PID,
    PROCESS,
    STAT,
    V1_FILES,
    V1_ROOT_FILES,
    V1_STAT,
    V2_FILES,
    V2_ROOT_FILES,
    V2_STAT,
    Tree,
    build,
    host,
)

V1 = "4:memory:/pods/engine\n1:cpu:/\n"
V2 = "0::/pods/engine\n"
HYBRID = V1 + V2


def v1_tree(own: Tree = V1_FILES, parent: Tree = V1_FILES) -> Tree:
    """A v1 hierarchy with /pods/engine."""
    return {"memory": {**V1_ROOT_FILES, "pods": {**parent, "engine": own}}}


def v2_tree(own: Tree = V2_FILES, parent: Tree = V2_FILES) -> Tree:
    """A v2 hierarchy with /pods/engine."""
    return {**V2_ROOT_FILES, "pods": {**parent, "engine": own}}


def read(directory: Path, membership: str, cgroups: Tree, own_view: Tree | None = None) -> CgroupReading | Absent:
    """What is found and read for the recorded process."""
    process, root = host(directory, membership=membership, cgroups=cgroups, own_view=own_view)
    cgroup = find_memory_cgroup(process, root)
    return cgroup.read() if isinstance(cgroup, MemoryCgroup) else cgroup


def figures(directory: Path, membership: str, cgroups: Tree, own_view: Tree | None = None) -> CgroupReading:
    """The same where figures are expected."""
    reading = read(directory, membership, cgroups, own_view)
    if isinstance(reading, Absent):
        pytest.fail(reading.reason)
    return reading


def test_version_1_gives_every_figure_but_pressure(tmp_path: Path) -> None:
    """R-S01: usage, limit, events, refaults on v1."""
    own = f"{tmp_path}/cgroup/memory/pods/engine"
    expected = CgroupReading(
        version="v1",
        source=own,
        usage=130 * MB,
        limit=NO_LIMIT,
        working_set=110 * MB,
        unreclaimable=65 * MB,
        unreclaimable_source=f"{own}/memory.stat total_rss + total_shmem, memory.kmem.usage_in_bytes",
        swap=4096,
        limit_hits=12,
        oom_kills=3,
        refaults=6500,
        stall_percent=Absent("cgroup v1 has no pressure of a single cgroup"),
    )
    assert read(tmp_path, V1, v1_tree()) == expected


def test_version_2_gives_every_figure(tmp_path: Path) -> None:
    """R-S01: usage, limit, events, refaults, PSI on v2."""
    own = f"{tmp_path}/cgroup/pods/engine"
    expected = CgroupReading(
        version="v2",
        source=own,
        usage=130 * MB,
        limit=NO_LIMIT,
        working_set=110 * MB,
        unreclaimable=65 * MB + 8192,
        unreclaimable_source=f"{own}/memory.stat anon + shmem + (kernel - slab_reclaimable) + sock",
        swap=4096,
        limit_hits=12,
        oom_kills=3,
        refaults=6500,
        stall_percent=1.25,
    )
    assert read(tmp_path, V2, v2_tree()) == expected


def test_on_a_hybrid_host_the_version_that_has_the_memory_controller_wins(tmp_path: Path) -> None:
    """R-S01: hybrid, both ways."""
    with_v1 = figures(tmp_path / "a", HYBRID, {**v1_tree(), "unified": {"pods": {"engine": {}}}})
    with_v2 = figures(tmp_path / "b", "1:cpu:/\n" + V2, {"cpu": {}, "unified": v2_tree()})
    assert (with_v1.version, with_v2.version) == ("v1", "v2")


def test_a_host_without_a_memory_controller_is_absent(tmp_path: Path) -> None:
    """R-S01: no controller, no figures, a reason."""
    expected = Absent(f"{tmp_path}/proc/{PID}/cgroup: no memory controller")
    assert read(tmp_path, "1:cpu:/\ngarbage\n", {"cpu": {}}) == expected


def test_a_unified_cgroup_without_the_memory_controller_is_absent(tmp_path: Path) -> None:
    """R-S01: the controller is not enabled in the parent."""
    expected = Absent(
        f"no memory.current of /pods/engine under {tmp_path}/proc/{PID}/root/sys/fs/cgroup nor under {tmp_path}/cgroup"
    )
    assert read(tmp_path, V2, {"pods": {"engine": {"cgroup.procs": ""}}}) == expected


@pytest.mark.parametrize(("membership", "tree"), [("4:memory:/\n", v1_tree()), ("0::/\n", v2_tree())], ids=["v1", "v2"])
def test_a_process_in_the_root_has_no_cgroup_of_its_own(tmp_path: Path, membership: str, tree: Tree) -> None:
    """R-S01: the root's figures are those of the host."""
    expected = Absent(f"the process with pid {PID} is in the root cgroup and has none of its own")
    assert read(tmp_path, membership, tree) == expected


@pytest.mark.parametrize(
    ("membership", "tree"),
    [
        (V1, v1_tree({**V1_FILES, "memory.limit_in_bytes": "300\n"}, {**V1_FILES, "memory.limit_in_bytes": "200\n"})),
        (V2, v2_tree({**V2_FILES, "memory.max": "300\n"}, {**V2_FILES, "memory.max": "200\n"})),
        (V1, v1_tree({**V1_FILES, "memory.limit_in_bytes": "200\n"})),
        (V2, v2_tree({**V2_FILES, "memory.max": "200\n"})),
    ],
    ids=["v1 parent", "v2 parent", "v1 own", "v2 own"],
)
def test_the_tightest_limit_of_the_cgroup_and_its_ancestors_holds(tmp_path: Path, membership: str, tree: Tree) -> None:
    """R-P03: a pod's limit above its container's counts."""
    assert figures(tmp_path, membership, tree).limit == 200


def test_a_limit_above_the_mount_is_known_from_the_kernels_own_minimum(tmp_path: Path) -> None:
    """R-P03: on v1 the pod's limit is visible from inside the container."""
    stat = V1_STAT.replace("hierarchical_memory_limit 9223372036854771712", "hierarchical_memory_limit 150")
    view: Tree = {"memory": {**V1_FILES, "memory.stat": stat}}
    assert figures(tmp_path, V1, {}, own_view=view).limit == 150


def test_a_limit_that_cannot_be_read_is_not_passed_over() -> None:
    """R-P03: the unreadable one may be the tightest."""
    assert tightest([300, Absent("pods/memory.max: garbage"), NO_LIMIT]) == Absent("pods/memory.max: garbage")


@pytest.mark.parametrize("limit", ["9223372036854771712", "9223372036854710272", "18446744073709551615"])
def test_every_way_of_version_1_to_say_no_limit_is_understood(tmp_path: Path, limit: str) -> None:
    """R-P03: pages of 4 kB, pages of 64 kB, kernels before 3.19."""
    files: Tree = {**V1_FILES, "memory.limit_in_bytes": f"{limit}\n"}
    assert figures(tmp_path, V1, v1_tree(files, files)).limit == NO_LIMIT


def test_a_limit_that_changes_is_followed_by_the_next_reading(tmp_path: Path) -> None:
    """R-P03: an in-place resize within one sample."""
    process, root = host(tmp_path, membership=V2, cgroups=v2_tree())
    cgroup = find_memory_cgroup(process, root)
    (root / "pods/engine/memory.max").write_text("12345\n")
    reading = cgroup.read() if isinstance(cgroup, MemoryCgroup) else cgroup
    assert (reading if isinstance(reading, Absent) else reading.limit) == 12345


@pytest.mark.parametrize("path", ["/host/path/of/container", "/../engine"])
def test_a_container_with_a_mount_of_its_own_is_read_at_the_root_of_that_mount(tmp_path: Path, path: str) -> None:
    """R-S01: another container through /proc/<pid>/root."""
    reading = figures(tmp_path, f"0::{path}\n", v2_tree(), own_view={**V2_FILES, "memory.max": "777\n"})
    assert (reading.source, reading.limit) == (f"{tmp_path}/proc/{PID}/root/sys/fs/cgroup", 777)


@pytest.mark.parametrize(
    ("membership", "view"), [("4:memory:/\n", {"memory": V1_FILES}), ("0::/\n", V2_FILES)], ids=["v1", "v2"]
)
def test_a_private_cgroup_namespace_shows_the_container_as_the_root(
    tmp_path: Path, membership: str, view: Tree
) -> None:
    """R-S01: `/` inside a namespace is the container, not the host."""
    assert figures(tmp_path, membership, {}, own_view=view).usage == 130 * MB


def test_our_own_mount_is_not_taken_for_the_cgroup_of_another_container(tmp_path: Path) -> None:
    """R-S01: the sidecar's figures would pass for the engine's."""
    expected = Absent(
        f"no memory.current of /../engine under {tmp_path}/proc/{PID}/root/sys/fs/cgroup nor under {tmp_path}/cgroup"
    )
    assert read(tmp_path, "0::/../engine\n", V2_FILES) == expected


def test_our_own_mount_serves_a_process_of_our_own_cgroup(tmp_path: Path) -> None:
    """R-S01: engine and sidecar in one container, its root hidden."""
    reading = figures(tmp_path, "4:memory:/sidecar\n", {"memory": V1_FILES})
    assert reading.source == f"{tmp_path}/cgroup/memory"


def test_the_root_of_the_host_never_stands_in_for_a_cgroup_that_is_gone(tmp_path: Path) -> None:
    """R-S01: a v1 root has all the files, and the host's figures in them."""
    reading = read(tmp_path, "4:memory:/removed\n", {}, own_view={"memory": V1_ROOT_FILES})
    assert reading == Absent(
        f"no memory.usage_in_bytes of /removed under {tmp_path}/proc/{PID}/root/sys/fs/cgroup"
        f" nor under {tmp_path}/cgroup"
    )


def test_a_kernel_without_kernel_memory_accounting_says_so_in_the_source(tmp_path: Path) -> None:
    """R-S01: what a figure is made of can be read beside it."""
    files = {name: text for name, text in V1_FILES.items() if "kmem" not in name}
    reading = figures(tmp_path, V1, v1_tree(files))
    expected = (60 * MB, f"{reading.source}/memory.stat total_rss + total_shmem, without kernel memory")
    assert (reading.unreclaimable, reading.unreclaimable_source) == expected


def test_before_linux_5_18_the_kernel_part_is_summed_from_its_parts(tmp_path: Path) -> None:
    """R-S01: `kernel` is a young name."""
    stat = "\n".join(line for line in V2_STAT.split("\n") if not line.startswith("kernel "))
    reading = figures(tmp_path, V2, v2_tree({**V2_FILES, "memory.stat": stat}))
    names = "anon + shmem + slab_unreclaimable + kernel_stack + pagetables + percpu + sock"
    expected = (65 * MB + 4096 + 8192, f"{reading.source}/memory.stat {names}")
    assert (reading.unreclaimable, reading.unreclaimable_source) == expected


def test_older_names_of_refaults_are_understood(tmp_path: Path) -> None:
    """R-S01: refaults before 5.9."""
    v1 = figures(tmp_path / "a", V1, v1_tree({**V1_FILES, "memory.stat": "total_workingset_refault 5\n"}))
    v2 = figures(tmp_path / "b", V2, v2_tree({**V2_FILES, "memory.stat": "workingset_refault 6\n"}))
    assert (v1.refaults, v2.refaults) == (5, 6)


def test_pressure_that_is_switched_off_is_absent(tmp_path: Path) -> None:
    """R-S01: PSI absent, with the file that is missing."""
    files = {name: text for name, text in V2_FILES.items() if name != "memory.pressure"}
    reading = figures(tmp_path, V2, v2_tree(files))
    assert reading.stall_percent == Absent(f"{reading.source}/memory.pressure: No such file or directory")


def test_garbage_in_one_line_of_the_statistics_costs_only_what_it_says(tmp_path: Path) -> None:
    """R-S01: the good lines count."""
    stat = V2_STAT.replace(f"anon {50 * MB}", "anon fifty\n\x00\x01")
    whole = figures(tmp_path / "a", V2, v2_tree())
    reading = figures(tmp_path / "b", V2, v2_tree({**V2_FILES, "memory.stat": stat}))
    expected = replace(
        whole,
        source=reading.source,
        unreclaimable=Absent(f"{reading.source}/memory.stat: no figure anon"),
        unreclaimable_source=reading.unreclaimable_source,
    )
    assert reading == expected


@pytest.mark.parametrize(
    ("membership", "tree", "reason"),
    [
        (V1, v1_tree({**V1_FILES, "memory.usage_in_bytes": "a lot"}), "memory.usage_in_bytes: not a number: 'a lot'"),
        (V2, v2_tree({**V2_FILES, "memory.current": ""}), "memory.current: not a number: ''"),
    ],
    ids=["v1", "v2"],
)
def test_a_usage_that_cannot_be_read_takes_the_working_set_with_it(
    tmp_path: Path, membership: str, tree: Tree, reason: str
) -> None:
    """R-S01: no figure is made from half of its parts."""
    reading = figures(tmp_path, membership, tree)
    absence = Absent(f"{reading.source}/{reason}")
    assert (reading.usage, reading.working_set, reading.refaults) == (absence, absence, 6500)


def test_a_wrong_limit_is_absent_rather_than_no_limit(tmp_path: Path) -> None:
    """R-P03: "cannot tell" and "has none" lead to different decisions."""
    reading = figures(tmp_path, V2, v2_tree({**V2_FILES, "memory.max": "maximum\n"}))
    assert reading.limit == Absent(f"{reading.source}/memory.max: neither a number nor max: 'maximum\\n'")


def test_figures_found_through_a_pid_are_absent_once_the_pid_is_anothers(tmp_path: Path) -> None:
    """R-S01: /proc/<pid>/root then leads into another container."""
    process, root = host(tmp_path, membership="0::/\n", cgroups={}, own_view=V2_FILES)
    cgroup = find_memory_cgroup(process, root)
    build(tmp_path, {"proc": {str(PID): {**PROCESS, "stat": STAT.replace("109273", "200000")}}})
    reading = cgroup.read() if isinstance(cgroup, MemoryCgroup) else cgroup
    assert reading == process.absence()


def test_a_process_that_is_gone_has_no_cgroup(tmp_path: Path) -> None:
    """R-S01: the reason names the file."""
    cgroup = find_memory_cgroup(Process(tmp_path, PID), tmp_path)
    assert cgroup == Absent(f"{tmp_path}/{PID}/cgroup: No such file or directory")
