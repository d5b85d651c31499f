"""Figures of a memory cgroup, version 2.

Covers names and formulas of v2 (kernel: Documentation/admin-guide/cgroup-v2.rst). Does not cover finding the
directory (`cgroup`) nor version 1 (`cgroup_v1`).
"""

from collections.abc import Sequence

from membudget_sidecar.kernel.cgroup_reading import NO_LIMIT, WORKING_SET_RULE, CgroupReading, tightest
from membudget_sidecar.kernel.kernel_file import (
    Figures,
    only,
    parse_count,
    parse_keyed,
    read_count,
    read_figures,
    read_stall_percent,
    read_text,
)
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading, remainder, total

MARKER = "memory.current"
"""The file that every v2 cgroup with the memory controller has, except the root of the host."""
LIMIT = "memory.max"
# The parts of `kernel` on kernels before 5.18. The last two came with 5.9 and 5.11; before those the memory
# they count was not told apart, so a kernel without them is read without them.
_KERNEL_PARTS = ("slab_unreclaimable", "kernel_stack")
_LATER_KERNEL_PARTS = ("pagetables", "percpu")
_HELD = only("anon", "shmem", "sock", "kernel", "slab_reclaimable", *_KERNEL_PARTS, *_LATER_KERNEL_PARTS)
_CACHED = only("inactive_file")


def read_v2(directories: Sequence[str]) -> CgroupReading:
    """The figures of `directories[0]`; the others are its ancestors, whose limits hold as well."""
    own = directories[0]
    stat = read_figures(f"{own}/memory.stat", parse_keyed)
    events = read_figures(f"{own}/memory.events", parse_keyed)
    usage = read_count(f"{own}/{MARKER}")
    unreclaimable = _unreclaimable(stat)
    return CgroupReading(
        version="v2",
        source=own,
        usage=usage,
        limit=read_v2_limit(directories),
        working_set=_working_set(usage, stat),
        unreclaimable=unreclaimable.bytes,
        unreclaimable_source=unreclaimable.source,
        swap=read_count(f"{own}/memory.swap.current"),
        limit_hits=events.get("max"),
        oom_kills=events.get("oom_kill"),
        refaults=stat.first("workingset_refault_file", "workingset_refault"),
        stall_percent=read_stall_percent(f"{own}/memory.pressure"),
    )


def read_v2_unreclaimable(own: str) -> SignalReading:
    """The same figure as `read_v2` has, from no more files than it needs."""
    return _unreclaimable(read_figures(f"{own}/memory.stat", _HELD))


def read_v2_working_set(own: str) -> SignalReading:
    """The same figure as `read_v2` has, from no more files than it needs."""
    stat = read_figures(f"{own}/memory.stat", _CACHED)
    return SignalReading(_working_set(read_count(f"{own}/{MARKER}"), stat), f"{own} {WORKING_SET_RULE}")


def read_v2_limit(directories: Sequence[str]) -> Reading:
    """The same figure as `read_v2` has, from no more files than it needs."""
    return tightest(_limit(f"{directory}/{LIMIT}") for directory in directories)


def _unreclaimable(stat: Figures) -> SignalReading:
    kernel, kernel_source = _kernel(stat)
    held = total(stat.get("anon"), stat.get("shmem"), kernel, stat.get("sock"))
    return SignalReading(held, f"{stat.source} anon + shmem + {kernel_source} + sock")


def _working_set(usage: Reading, stat: Figures) -> Reading:
    return remainder(usage, stat.get("inactive_file"))  # cAdvisor's rule


def _kernel(stat: Figures) -> tuple[Reading, str]:
    """Kernel memory that cannot be reclaimed, and the names it was made of."""
    if "kernel" in stat.values:
        return remainder(stat.get("kernel"), stat.get("slab_reclaimable")), "(kernel - slab_reclaimable)"
    names = (*_KERNEL_PARTS, *(name for name in _LATER_KERNEL_PARTS if name in stat.values))
    return total(*(stat.get(name) for name in names)), " + ".join(names)


def _limit(path: str) -> Reading:
    text = read_text(path)
    if isinstance(text, Absent):
        return text
    if text.strip() == "max":
        return NO_LIMIT
    value = parse_count(text.strip())
    return Absent(f"{path}: neither a number nor max: {text[:40]!r}") if value is None else value
