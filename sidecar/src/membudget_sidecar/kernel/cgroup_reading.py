"""What a memory cgroup says in one moment, the same for both versions of the hierarchy.

Covers the figures and the rule for the effective limit. Does not cover the files: `cgroup_v1` and `cgroup_v2`
read them, `cgroup` finds the directory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from membudget_sidecar.kernel.reading import Absent, Fraction, Reading

NO_LIMIT = Absent("no limit")
WORKING_SET_RULE = "usage - inactive_file"


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """The figures of one moment: bytes unless the field says otherwise."""

    version: Literal["v1", "v2"]
    source: str  # the directory of the cgroup
    usage: Reading  # all that is charged, page cache included
    limit: Reading  # the smallest of the cgroup and its ancestors; absent with `NO_LIMIT` when none has one
    working_set: Reading  # usage - inactive_file, what the kubelet evicts on
    unreclaimable: Reading  # what no reclaim brings back, what an OOM kill is about
    unreclaimable_source: str  # the files and names that were summed
    swap: Reading
    limit_hits: Reading  # count: charges that met the limit and had to reclaim first
    oom_kills: Reading  # count
    refaults: Reading  # count of file pages read again soon after they were dropped
    stall_percent: Fraction  # of the last 10 s, some task waited for memory


def tightest(limits: Iterable[Reading]) -> Reading:
    """The smallest limit in bytes, `NO_LIMIT` when all are that.

    Absent with the reason when one cannot be read, since that one may be the smallest.
    """
    smallest: Reading = NO_LIMIT
    for limit in limits:
        if isinstance(limit, Absent):
            if limit != NO_LIMIT:
                return limit
        elif isinstance(smallest, Absent) or limit < smallest:
            smallest = limit
    return smallest
