"""Recorded kernel files, and a builder that turns one literal into a tree of them.

A tree is a nested dict: a text is a file, a dict is a directory. The texts here were recorded on Linux 6.18 (v1) and
follow Documentation/admin-guide/cgroup-v2.rst (v2); figures were rounded so that sums can be checked by eye.

Whole hosts as they were stand under `recorded/`: the /proc/<pid>/cgroup of a process that holds 20 MiB in a container
of 300 MiB in a pod of 200 MiB, and the files that the sidecar reads of both and of the root.
"""

from collections.abc import Mapping
from pathlib import Path

from membudget_sidecar.kernel.process import Process

MB = 1 << 20
PID = 42
RECORDED = Path(__file__).with_name("recorded")
START_TICKS = 109273

Tree = Mapping[str, "str | Tree"]

# The command is a hostile one: with spaces and parentheses, as a process may name itself.
STAT = (
    f"{PID} (a) b (c d) S 1 42 42 0 -1 4194304 1500 0 7 0 250 50 0 0 20 0 9 0 {START_TICKS} 62914560 3413"
    " 18446744073709551615 1 1 0 0 0 0 0 16781312 2 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
STATM = "65536 20480 5120 1 0 9000 0\n"
STATUS = """Name:	a) b (c d
State:	S (sleeping)
Pid:	42
Uid:	65534	65534	65534	65534
VmPeak:	  262144 kB
VmSize:	  262144 kB
VmHWM:	   90000 kB
VmRSS:	   81920 kB
RssAnon:	   40960 kB
RssFile:	   30720 kB
RssShmem:	   10240 kB
VmData:	   50000 kB
VmStk:	     132 kB
VmExe:	      20 kB
VmLib:	   20480 kB
VmPTE:	    1024 kB
VmSwap:	       0 kB
Threads:	9
"""
SMAPS_ROLLUP = """558096ab2000-7fffb70c7000 ---p 00000000 00:00 0                          [rollup]
Rss:               81920 kB
Pss:               61440 kB
Pss_Anon:          40960 kB
Shared_Clean:      20480 kB
"""
PROCESS: Tree = {"stat": STAT, "statm": STATM, "status": STATUS, "smaps_rollup": SMAPS_ROLLUP}

NO_LIMIT_V1 = "9223372036854771712\n"
V1_STAT = f"""cache {70 * MB}
rss {1 * MB}
total_cache {70 * MB}
total_rss {50 * MB}
total_shmem {10 * MB}
total_inactive_file {20 * MB}
total_workingset_refault_anon 0
total_workingset_refault_file 6500
total_swap 4096
hierarchical_memory_limit 9223372036854771712
"""
V1_FILES: Tree = {
    "memory.usage_in_bytes": f"{130 * MB}\n",
    "memory.limit_in_bytes": NO_LIMIT_V1,
    "memory.stat": V1_STAT,
    "memory.kmem.usage_in_bytes": f"{5 * MB}\n",
    "memory.failcnt": "12\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}
V1_ROOT_FILES: Tree = {**V1_FILES, "release_agent": "\n", "cgroup.sane_behavior": "0\n"}

V2_STAT = f"""anon {50 * MB}
file {70 * MB}
kernel {9 * MB}
kernel_stack {1 * MB}
pagetables {2 * MB}
percpu 4096
sock 8192
shmem {10 * MB}
inactive_file {20 * MB}
slab_reclaimable {4 * MB}
slab_unreclaimable {2 * MB}
workingset_refault_file 6500
"""
V2_FILES: Tree = {
    "memory.current": f"{130 * MB}\n",
    "memory.max": "max\n",
    "memory.stat": V2_STAT,
    "memory.events": "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\n",
    "memory.swap.current": "4096\n",
    "memory.pressure": (
        "some avg10=1.25 avg60=0.40 avg300=0.10 total=123\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n"
    ),
}
V2_ROOT_FILES: Tree = {"cgroup.controllers": "cpu memory\n", "memory.stat": V2_STAT}


def build(directory: Path, tree: Tree) -> Path:
    """Writes the tree under the directory, which is made; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, str):
            (directory / name).write_text(content, encoding="utf-8")
        else:
            build(directory / name, content)
    return directory


def recorded_tree(directory: Path) -> Tree:
    """A folder as a tree."""
    return {
        entry.name: recorded_tree(entry) if entry.is_dir() else entry.read_text(encoding="utf-8")
        for entry in sorted(directory.iterdir())
    }


def recorded_host(directory: Path, name: str) -> tuple[Process, Path]:
    """A whole host from `recorded/`, rebuilt under the directory; what `host` returns."""
    membership = (RECORDED / name / "membership").read_text(encoding="utf-8")
    return host(directory, membership=membership, cgroups=recorded_tree(RECORDED / name / "cgroup"))


def host(directory: Path, *, membership: str, cgroups: Tree, own_view: Tree | None = None) -> tuple[Process, Path]:
    """A process and a cgroup root: `membership` is the text of /proc/42/cgroup.

    `own_view` is what the process sees under its own /sys/fs/cgroup, when that is another mount than ours.
    """
    entry: Tree = {**PROCESS, "cgroup": membership}
    if own_view is not None:
        entry = {**entry, "root": {"sys": {"fs": {"cgroup": own_view}}}}
    ourselves: Tree = {"cgroup": "4:memory:/sidecar\n0::/sidecar\n"}
    build(directory, {"proc": {str(PID): entry, "self": ourselves}, "cgroup": cgroups})
    return Process(directory / "proc", PID), directory / "cgroup"
