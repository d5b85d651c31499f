"""One document for a bug report: what runs, what holds, what was read, what went wrong.

Covers: putting together what the other operations answer, and the sidecar's own figures. No secrets: of the environment
only names, of keys nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

import msgspec

from membudget_contract.breakdown_api import PartKind
from membudget_contract.diagnostics_api import Diagnostics, LoopFigures, Versions
from membudget_contract.sidecar_api import ActionRecord, ActionStatus
from membudget_sidecar.acting.engine_link import CONNECTED
from membudget_sidecar.acting.observed_link import OBSERVED
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.serving.figures import known
from membudget_sidecar.serving.local_status import LocalStatus, Served
from membudget_sidecar.serving.operations import Operation
from membudget_sidecar.serving.routing import Request, Route

FAILED_ACTIONS: Final = 20
_PREFIX: Final = "MEMBUDGET_"
_FAILED: Final = frozenset({ActionStatus.FAILED, ActionStatus.INEFFECTIVE, ActionStatus.HARMFUL})


class LocalDiagnostics:
    """Reads what `LocalStatus` reads, in one go."""

    def __init__(self, served: Served, read: LocalStatus) -> None:
        self._served = served
        self._loop = served.loop
        self._read = read

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        route = Route("GET", "/v1/diagnostics", self.diagnostics, waits=True)
        return (Operation(route, "Everything that a bug report needs, without secrets.", Diagnostics),)

    def diagnostics(self, request: Request) -> Diagnostics:
        """GET /v1/diagnostics."""
        read = self._read
        document = Diagnostics(
            at=self._served.wall(),
            versions=_versions(),
            run_folder=str(self._served.settings.run_folder),
            policy_source=self._policy_source(),
            environment=tuple(sorted(name for name in os.environ if name.startswith(_PREFIX))),
            loop=self._loop_figures(),
            problems=(),
            plan=read.plan(request),
            status=read.status(request),
            thresholds=read.thresholds(request),
            breakdown=read.breakdown(request),
            alerts=read.alerts(request),
            leaks=read.leaks(request),
            failed_actions=self._failed_actions(),
        )
        return msgspec.structs.replace(document, problems=tuple(_problems(document)))

    def _policy_source(self) -> str:
        settings = self._served.settings
        if settings.keys_folder is not None:
            return "orders"
        return str(settings.policy_file) if settings.policy_file else "kept plan"

    def _loop_figures(self) -> LoopFigures:
        tally, own = self._loop.tally, Process(self._served.settings.proc, os.getpid())
        return LoopFigures(
            looked_ago_seconds=max(0.0, self._served.clock() - self._loop.looked_at),
            samples=tally.samples,
            absent_readings=dict(list(tally.absent_readings.items())),
            sample_cpu_seconds=tally.sample_cpu_seconds,
            resident_bytes=known(own.resident_bytes()),
            threads=threading.active_count(),
        )

    def _failed_actions(self) -> tuple[ActionRecord, ...]:
        failed = [record for record in self._loop.actions.records() if record.status in _FAILED]
        return tuple(failed[-FAILED_ACTIONS:])


def _versions() -> Versions:
    from importlib import metadata  # 2 MB resident that only a bug report needs

    machine = os.uname()
    return Versions(
        sidecar=metadata.version("membudget-sidecar"),
        python=sys.version.split()[0],
        kernel=machine.release,
        machine=machine.machine,
    )


def _problems(document: Diagnostics) -> Iterator[str]:
    """What a reader should look at first."""
    status = document.status
    if status.engine not in {CONNECTED, OBSERVED}:
        yield f"the engine is {status.engine}"
    for name, figure in (("usage", status.usage), ("limit", status.limit), ("resident", status.resident)):
        if figure.absent is not None:
            yield f"{name} is not known: {figure.absent}"
    if status.policy_problem is not None:
        yield f"the newest policy is not in force: {status.policy_problem}"
    if not status.enforcement.active:
        yield f"decisions are not carried out: mode {status.enforcement.mode}" + (
            " and enforcement was stopped by hand" if status.enforcement.stopped_until is not None else ""
        )
    yield from status.warnings
    yield from (f"alert {alert.name}: {alert.detail}" for alert in status.alerts)
    yield from (f"leak suspected: {suspect.reason}" for suspect in document.leaks.suspects)
    for whole in (document.breakdown.signal, document.breakdown.resident):
        for part in whole.parts:
            if part.kind is PartKind.OVERLAP:
                yield f"breakdown of {whole.name}, {part.part_bytes} bytes: {part.reason}"
