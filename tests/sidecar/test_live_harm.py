"""The kernel's own count of pages read again is what tells a harmful page-out from a good one (R-S06)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from membudget_contract.control_api import Report
from membudget_contract.policy import Signal
from membudget_sidecar.acting.aftermath import Aftermath
from membudget_sidecar.errors import EngineUnreachable
from membudget_sidecar.kernel.engine_process import EngineProcess, find_engine_process
from memory_cgroup import memory_cgroup
from sidecar import page_holder
from sidecar.fake_engine import eventually
from sidecar.memory_holder import cold_file

MIB = 1 << 20
MAPPED = 32 * MIB

pytestmark = pytest.mark.cgroup


class PageHolder:
    """The test's end of one process with a mapped file, in a cgroup of its own."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        self._process = started
        self.hear()
        self.engine: EngineProcess = find_engine_process(Path("/proc"), Path("/sys/fs/cgroup"), started.pid)

    def say(self, word: str) -> None:
        """Returns once it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self.hear()

    def hear(self) -> None:
        """Its answer."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def resident(self) -> int:
        """Bytes, as the kernel says."""
        resident = self.engine.signal_reading(Signal.RESIDENT_SET_SIZE).bytes
        assert isinstance(resident, int)
        return resident


@pytest.fixture
def holder(tmp_path: Path) -> Generator[PageHolder]:
    """All 32 MiB of a file that nobody else maps are resident."""
    file = tmp_path / "index"
    cold_file(file, MAPPED)
    with memory_cgroup(200 * MIB) as cgroup:
        argv = [sys.executable, page_holder.__file__, str(file)]
        started = cgroup.run(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with started:
            yield PageHolder(started)
            started.kill()


@pytest.mark.parametrize("needed", [True, False], ids=["needed at once", "cold"])
def test_a_page_out_of_pages_that_are_needed_is_harm_and_one_of_cold_pages_is_not(
    holder: PageHolder, publish: Callable[[str], None], needed: bool
) -> None:
    """R-S06: 32 MiB paged out and, once, read again: by the cgroup's refaults, on the real clock of the verdict."""
    told: list[str] = []

    def away() -> Report:
        raise EngineUnreachable("no engine")

    aftermath = Aftermath[str](away, lambda _, harm: told.append(harm), clock=time.monotonic, later_seconds=4.0)
    aftermath.start()
    before = holder.resident()
    eve = aftermath.eve(holder.engine, None)
    holder.say("out")
    freed = before - holder.resident()
    aftermath.follow("a page-out", freed, eve)
    if needed:
        holder.say("in")
    eventually(lambda: not aftermath.cases, "the verdict", 10)
    aftermath.stop()
    assert freed > 0.9 * MAPPED
    assert needed == bool(told)
    publish(f"paged out {freed >> 20} MiB, {'needed at once' if needed else 'cold'}: {told or 'no harm'}")
