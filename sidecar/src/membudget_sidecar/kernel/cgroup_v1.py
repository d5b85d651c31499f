"""Figures of a memory cgroup, version 1.

Covers names and formulas of v1 (kernel: Documentation/admin-guide/cgroup-v1/memory.rst). Does not cover
finding the directory (`cgroup`) nor version 2 (`cgroup_v2`).
"""

import os
from collections.abc import Sequence

from membudget_sidecar.kernel.cgroup_reading import NO_LIMIT, WORKING_SET_RULE, CgroupReading, tightest
from membudget_sidecar.kernel.kernel_file import Figures, only, parse_keyed, read_count, read_figures
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading, remainder, total

MARKER = "memory.usage_in_bytes"
"""The file that every v1 memory cgroup has."""
LIMIT = "memory.limit_in_bytes"
_RSS, _SHMEM, _INACTIVE = "total_rss", "total_shmem", "total_inactive_file"
_HIERARCHICAL = "hierarchical_memory_limit"
_HELD, _CACHED, _LIMITED = only(_RSS, _SHMEM), only(_INACTIVE), only(_HIERARCHICAL)
_KERNEL = "memory.kmem.usage_in_bytes"
# v1 writes "no limit" as the largest count of pages in bytes: 9223372036854771712 with pages of 4 kB, a
# little less with larger ones, 2**64 - 1 before 3.19. No host has 2**60 bytes, so all of them are covered by
# one comparison.
_UNLIMITED = 2**60


def read_v1(directories: Sequence[str]) -> CgroupReading:
    """The figures of `directories[0]`; the others are its ancestors, whose limits hold as well."""
    own = directories[0]
    stat = read_figures(f"{own}/memory.stat", parse_keyed)
    usage = read_count(f"{own}/{MARKER}")
    unreclaimable = _unreclaimable(own, stat)
    return CgroupReading(
        version="v1",
        source=own,
        usage=usage,
        limit=_limit(directories, stat),
        working_set=_working_set(usage, stat),
        unreclaimable=unreclaimable.bytes,
        unreclaimable_source=unreclaimable.source,
        swap=stat.get("total_swap"),
        limit_hits=read_count(f"{own}/memory.failcnt"),
        oom_kills=read_figures(f"{own}/memory.oom_control", parse_keyed).get("oom_kill"),
        refaults=stat.first("total_workingset_refault_file", "total_workingset_refault"),
        stall_percent=Absent("cgroup v1 has no pressure of a single cgroup"),
    )


def read_v1_unreclaimable(own: str) -> SignalReading:
    """The same figure as `read_v1` has, from no more files than it needs."""
    return _unreclaimable(own, read_figures(f"{own}/memory.stat", _HELD))


def read_v1_working_set(own: str) -> SignalReading:
    """The same figure as `read_v1` has, from no more files than it needs."""
    stat = read_figures(f"{own}/memory.stat", _CACHED)
    return SignalReading(_working_set(read_count(f"{own}/{MARKER}"), stat), f"{own} {WORKING_SET_RULE}")


def read_v1_limit(directories: Sequence[str]) -> Reading:
    """The same figure as `read_v1` has, from no more files than it needs."""
    return _limit(directories, read_figures(f"{directories[0]}/memory.stat", _LIMITED))


def _unreclaimable(own: str, stat: Figures) -> SignalReading:
    kernel, kernel_source = _kernel(own)
    source = f"{stat.source} {_RSS} + {_SHMEM}, {kernel_source}"
    return SignalReading(total(stat.get(_RSS), stat.get(_SHMEM), kernel), source)


def _working_set(usage: Reading, stat: Figures) -> Reading:
    return remainder(usage, stat.get(_INACTIVE))  # cAdvisor's rule


def _kernel(directory: str) -> tuple[Reading, str]:
    """Kernel memory and where it stands.

    Without kernel accounting (CONFIG_MEMCG_KMEM off, cgroup.memory=nokmem) the file does not exist. Kernel
    memory is then not charged either: it cannot bring the cgroup to its limit, and 0 is its true part of the
    sum. The source says so all the same. Where it exists it holds reclaimable slab too, which v1 does not
    tell apart.
    """
    path = f"{directory}/{_KERNEL}"
    if not os.path.lexists(path):
        return 0, "without kernel memory"
    return read_count(path), _KERNEL


def _limit(directories: Sequence[str], stat: Figures) -> Reading:
    limits = [_bounded(read_count(f"{directory}/{LIMIT}")) for directory in directories]
    # The kernel's own minimum also knows ancestors above the mount, as a pod's above its container's: passed over
    # while it cannot be read, it would let the budget rise above the pod's limit for one sample.
    return tightest([*limits, _bounded(stat.get(_HIERARCHICAL))])


def _bounded(limit: Reading) -> Reading:
    return NO_LIMIT if isinstance(limit, int) and limit >= _UNLIMITED else limit
