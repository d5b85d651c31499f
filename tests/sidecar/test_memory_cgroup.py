import os
import subprocess
from pathlib import Path

import pytest

from membudget_sidecar.kernel.process import Process
from memory_cgroup import memory_cgroup, require

MB = 1 << 20


def test_what_a_machine_lacks_skips_the_test_or_fails_it_where_it_was_promised() -> None:
    """R-S01: a missing cgroup is never a silent pass."""
    outcome = pytest.fail.Exception if os.environ.get("REQUIRE_CGROUP") == "1" else pytest.skip.Exception
    with pytest.raises(outcome, match="no such hierarchy"):
        require(condition=False, need="no such hierarchy")


@pytest.mark.cgroup
def test_a_failing_test_leaves_neither_members_nor_directory() -> None:
    """R-S01: also members that were forked and do not listen."""
    directories: list[Path] = []
    members: list[Process] = []

    def fails_inside() -> None:
        with memory_cgroup(30 * MB) as cgroup:
            stubborn = cgroup.run(["/bin/sh", "-c", "trap '' TERM; /bin/sleep 60 & echo; wait"], stdout=subprocess.PIPE)
            assert stubborn.stdout is not None
            stubborn.stdout.readline()
            directories.append(cgroup.path)
            members.extend(Process(Path("/proc"), int(member)) for member in cgroup.members())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_inside()
    alive = [member for member in members if isinstance(member.resident_bytes(), int)]
    assert (len(members), alive, directories[0].exists()) == (2, [], False)
