"""A process that knows nothing of membudget, followed by its pid or its name (R-S14).

Covers: finding it among all that /proc shows, also after a restart. Does not cover an engine with a control socket
(`engine_link`). Nobody answers here: there is no report, so what is unmanaged is unknown, no room is told, and nothing
can be asked for; whoever builds the loop on it lets the plan observe.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from membudget_sidecar.acting.engine_link import WAITING, EngineLink
from membudget_sidecar.kernel.engine_process import find_engine_process
from membudget_sidecar.kernel.kernel_file import read_text
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.settings import SidecarSettings

OBSERVED: Final = "Observed"
_NAMING_ARGUMENTS: Final = 2
"""A program is known by its file, or by the script that an interpreter was given."""

log = logging.getLogger(__name__)


class ObservedLink(EngineLink):
    """Follows one process; of several with the name the oldest, which has started the others."""

    def __init__(self, settings: SidecarSettings, whom: int | str) -> None:
        super().__init__(settings)
        self._proc = settings.proc
        self._cgroup = settings.cgroup
        self._whom = whom

    def find(self) -> bool:
        """Look whether it is there; True when it is another process than before."""
        if self.process is not None and self.process.is_alive():
            return False
        process = self._oldest()
        if process is None:
            if self.state == OBSERVED:
                log.warning("the process %s is gone", self._whom)
            self.state = WAITING
            return False
        self.process = find_engine_process(self._proc, self._cgroup, process.pid)
        self.state = OBSERVED
        log.info("observing %s, pid %d: it has no control socket, so nothing is done", self._whom, process.pid)
        return True

    def ask_report(self, now: float) -> None:
        """Nobody answers."""

    def _oldest(self) -> Process | None:
        found: list[tuple[int, Process]] = []
        for pid in _pids(self._proc):
            if self._whom in {pid, *_names(self._proc / str(pid))}:
                process = Process(self._proc, pid)
                if not isinstance(process.identity, Absent):
                    found.append((process.identity.start_ticks, process))
        return min(found, key=lambda pair: pair[0])[1] if found else None


def _pids(proc: Path) -> list[int]:
    """All but this process, which may carry the name among its arguments."""
    pids = (int(folder.name) for folder in proc.iterdir() if folder.name.isdigit())
    return [pid for pid in pids if pid != os.getpid()]


def _names(folder: Path) -> set[str]:
    """What the kernel calls it, and the last parts of its first arguments."""
    command, arguments = read_text(f"{folder}/comm"), read_text(f"{folder}/cmdline")
    if isinstance(command, Absent) or isinstance(arguments, Absent):
        return set()
    return {command.strip(), *(part.rpartition("/")[2] for part in arguments.split("\0")[:_NAMING_ARGUMENTS] if part)}
