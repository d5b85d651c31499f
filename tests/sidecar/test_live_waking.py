import threading
from pathlib import Path

import pytest

from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.waking import Waking
from memory_cgroup import memory_cgroup
from sidecar.memory_holder import MemoryHolder, cold_file

MB = 1 << 20
HOST = "/proc/pressure/memory"
pytestmark = pytest.mark.cgroup


def test_tasks_that_stall_for_memory_end_the_pause(tmp_path: Path) -> None:
    """R-S01, PSI: the engine's cgroup tells it on v2, the whole host on v1; a cgroup that is gone tells nothing."""
    waking = Waking()
    index = cold_file(tmp_path / "index", 80 * MB)
    with memory_cgroup(48 * MB) as cgroup:
        engine = MemoryHolder(cgroup)
        found = find_memory_cgroup(Process(Path("/proc"), engine.pid), Path("/sys/fs/cgroup"))
        assert isinstance(found, MemoryCgroup)
        heeded = waking.heed_pressure((found.pressure_file, HOST))
        over = threading.Event()

        def read_it_again_and_again() -> None:
            while not over.is_set():
                engine.hold("file", index)

        stalling = threading.Thread(target=read_it_again_and_again)
        stalling.start()
        stalled = any(waking.wait(5.0) for _ in range(6))
        over.set()
        stalling.join()
    assert (heeded, stalled) == ({"v1": HOST, "v2": found.pressure_file}[cgroup.version], True)
    if cgroup.version == "v2":
        assert waking.wait(0.0) is False
