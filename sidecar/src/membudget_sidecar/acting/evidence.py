"""What an action freed, as two readings of one witness: before and after (R-S04).

Covers: the kernel's figures of one process; the engine's report where those cannot be read, and then for both readings;
how long a fall lasts. Does not cover one reading (`engine_process`) nor what it proves (`verification`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from membudget_contract.control_api import Report
from membudget_contract.policy import Signal
from membudget_contract.sidecar_api import ActionStatus, Witness
from membudget_sidecar.deciding.verification import LASTING_SECONDS
from membudget_sidecar.errors import EngineRefused, EngineUnreachable
from membudget_sidecar.kernel.engine_process import EngineProcess
from membudget_sidecar.kernel.reading import Absent, SignalReading

LASTING_LOOK_SECONDS: Final = 0.1

REPORT_SOURCE: Final = "the engine's report, managedBytes"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Both readings; without a witness nothing could be read."""

    before: SignalReading
    after: SignalReading
    witness: Witness | None


class Witnessed:
    """One action under observation. `report` asks the engine, and is called only where the kernel is silent."""

    def __init__(self, process: EngineProcess, signal: Signal, report: Callable[[], Report]) -> None:
        self._process = process
        self._signal = signal
        self._report = report
        self._before = process.verified_reading(signal)
        self._silence: Absent | None = None
        """Why the kernel is no witness here; None while it is."""
        absence = self._before.bytes
        if isinstance(absence, Absent) and process.is_alive():
            reported = self._reported(absence)
            if not isinstance(reported.bytes, Absent):
                self._before, self._silence = reported, absence

    def unfinished(self) -> Evidence:
        """What was read before, of an action that nobody knows the end of."""
        return self._with(SignalReading(Absent("the action failed"), self._before.source))

    def evidence(self) -> Evidence:
        """What was read before, and is read now by the same witness: two of them cannot be compared."""
        if self._silence is not None:
            return self._with(self._reported(self._silence))
        return self._with(self._process.verified_reading(self._signal))

    def lasting(self, judged: Callable[[Evidence], ActionStatus], stopped: threading.Event) -> Evidence:
        """The evidence LASTING_SECONDS later, or as soon as the fall is gone: mapped pages return by themselves."""
        until = time.monotonic() + LASTING_SECONDS
        while time.monotonic() < until and not stopped.wait(LASTING_LOOK_SECONDS):
            now = self._process.signal_reading(self._signal)
            if judged(Evidence(self._before, now, Witness.KERNEL)) is not ActionStatus.EFFECTIVE:
                break
        return self.evidence()

    def _with(self, after: SignalReading) -> Evidence:
        if isinstance(self._before.bytes, Absent) and isinstance(after.bytes, Absent):
            return Evidence(self._before, after, None)
        return Evidence(self._before, after, Witness.KERNEL if self._silence is None else Witness.ENGINE_REPORT)

    def _reported(self, absence: Absent) -> SignalReading:
        try:
            return SignalReading(self._report().managed_bytes, f"{REPORT_SOURCE}: {absence.reason}")
        except (EngineUnreachable, EngineRefused) as error:
            return SignalReading(Absent(f"{absence.reason}; nor did the engine report: {error}"), REPORT_SOURCE)
