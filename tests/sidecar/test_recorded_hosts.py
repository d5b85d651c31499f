from pathlib import Path

import pytest

from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.cgroup_reading import CgroupReading
from membudget_sidecar.kernel.reading import Absent
from sidecar.kernel_tree import MB, PID, RECORDED, recorded_host

V1, V2, NO_PRESSURE, WITHOUT_MEMORY, UNIFIED = (
    "hybrid-with-memory-in-v1-linux-6.18",
    "v2-linux-6.1",
    "v2-without-pressure-linux-6.1",
    "v2-without-memory-linux-6.1",
    "hybrid-with-memory-in-v2-linux-6.1",
)
SUM_V2 = "memory.stat anon + shmem + (kernel - slab_reclaimable) + sock"


def v2(own: Path, unreclaimable: int, stall_percent: float | Absent) -> CgroupReading:
    """What the recorded process comes to on version 2, where only these differ."""
    return CgroupReading(
        version="v2",
        source=str(own),
        usage=64_626_688,
        limit=200 * MB,
        working_set=64_626_688 - 39_317_504,
        unreclaimable=unreclaimable,
        unreclaimable_source=f"{own}/{SUM_V2}",
        swap=0,
        limit_hits=0,
        oom_kills=0,
        refaults=0,
        stall_percent=stall_percent,
    )


def expected(root: Path, name: str) -> CgroupReading | Absent:
    """The figures as they stand in the recorded files, added up by hand; the pod's 200 MiB hold everywhere."""
    container = Path("recorded-pod/container")
    own = root / container
    off = Absent(f"{own}/memory.pressure: No such file or directory")
    own_view = f"{root.parent}/proc/{PID}/root/sys/fs/cgroup"
    own_v1 = root / "memory" / container
    v1 = CgroupReading(
        version="v1",
        source=str(own_v1),
        usage=60_973_056,
        limit=200 * MB,
        working_set=60_973_056 - 31_461_376,
        unreclaimable=28_012_544 + 1_089_536,
        unreclaimable_source=f"{own_v1}/memory.stat total_rss + total_shmem, memory.kmem.usage_in_bytes",
        swap=0,
        limit_hits=0,
        oom_kills=0,
        refaults=8,
        stall_percent=Absent("cgroup v1 has no pressure of a single cgroup"),
    )
    return {
        V1: v1,
        V2: v2(own, 23_846_912 + 1_134_592 - 987_968, 0.0),
        NO_PRESSURE: v2(own, 23_851_008 + 1_134_592 - 988_072, off),
        WITHOUT_MEMORY: Absent(f"no memory.current of /{container} under {own_view} nor under {root}"),
        UNIFIED: v2(root / "unified" / container, 23_851_008 + 1_138_688 - 991_928, 0.0),
    }[name]


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDED.iterdir()))
def test_every_recorded_host_is_read_as_its_kernel_meant_it(tmp_path: Path, name: str) -> None:
    """R-S01, R-P03, fault 87: v1, v2, both hybrids, no memory controller, no pressure; a tighter pod above."""
    process, root = recorded_host(tmp_path, name)
    cgroup = find_memory_cgroup(process, root)
    reading = cgroup.read() if isinstance(cgroup, MemoryCgroup) else cgroup
    assert reading == expected(root, name)
