"""The engine this sidecar stands beside: whether it is there, who it is, what it reports of itself.

Covers: finding the process behind the control socket, its report and how old that is. Does not cover what the kernel
says of it (`engine_process`) nor what to do (`loop`). An engine that restarts is found anew; one that is alive but
does not answer is still known, so that the kernel's figures go on.
"""

from __future__ import annotations

import logging
from typing import Final

from membudget_contract.control_api import Report
from membudget_sidecar.acting.control_client import QUESTION_SECONDS, ControlClient
from membudget_sidecar.errors import EngineRefused, EngineUnreachable
from membudget_sidecar.kernel.engine_process import EngineProcess, find_engine_process
from membudget_sidecar.settings import SidecarSettings

REPORT_FRESH_SECONDS: Final = 3.0
"""An older report does not count: what is unmanaged is then unknown."""
ASK_AGAIN_SECONDS: Final = 5.0
"""After a question without an answer: each costs the loop up to QUESTION_SECONDS in which it sees nothing."""

CONNECTED: Final = "Connected"
WAITING: Final = "WaitingForEngine"
UNREACHABLE: Final = "Unreachable"

log = logging.getLogger(__name__)


class EngineLink:
    """Follows one control socket. `find` is for one thread, `ask_report` and the client for one that may be another."""

    def __init__(self, settings: SidecarSettings) -> None:
        self._settings = settings
        self.client = ControlClient(settings.control_socket, QUESTION_SECONDS)
        self.process: EngineProcess | None = None
        self.report: Report | None = None
        """The newest of `process`; None once a question was not answered."""
        self.state = WAITING
        self._connection_is_old = False
        self._socket_file: tuple[int, int] | None = None
        self._reported_at = -float("inf")
        self._ask_again_at = -float("inf")

    def find(self) -> bool:
        """Look who listens; True when it is another process than before.

        A process that lives behind an unchanged socket file is not asked again: a frozen one would not answer.
        """
        socket_file = self._stamp()
        if self.process is not None and socket_file == self._socket_file and self.process.is_alive():
            return False
        try:
            pid = self.client.peer_pid()
        except EngineUnreachable as error:
            self._lost(error)
            return False
        self._socket_file, self._ask_again_at = socket_file, -float("inf")
        self._connection_is_old = True
        if self.process is not None and self.process.pid == pid and self.process.is_alive():
            return False
        self.process = find_engine_process(self._settings.proc, self._settings.cgroup, pid)
        self.report = None
        log.info("found the engine, pid %d", pid)
        return True

    def ask_report(self, now: float) -> None:
        """Have the engine report; without an answer it is asked again only after a pause."""
        process = self.process
        if process is None or now < self._ask_again_at:
            return
        if self._connection_is_old:
            self._connection_is_old = False
            self.client.close()
        try:
            report = self.client.report()
        except (EngineUnreachable, EngineRefused) as error:
            self._ask_again_at = now + ASK_AGAIN_SECONDS
            self._lost(error)
            return
        if process is not self.process:  # another engine was found while this one answered
            return
        self.report, self._reported_at = report, now
        if self.state == UNREACHABLE:
            log.info("the engine answers again")
        self.state = CONNECTED

    def fresh_report(self, now: float) -> Report | None:
        """The report, if it is young enough to decide on."""
        return self.report if now - self._reported_at <= REPORT_FRESH_SECONDS else None

    def _lost(self, error: Exception) -> None:
        """Said once, not at every look."""
        self.report = None
        if self.process is None or self.state == UNREACHABLE:
            return
        self.state = UNREACHABLE
        log.warning("the engine does not answer: %s", error)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._settings.control_socket.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_ctime_ns)
