"""Looking at the engine, and deciding on what was seen.

Covers: a full look (kernel, report, room), a quick one (the signal alone), the figures they leave behind, feeding the
ladder. Does not cover when to look (`loop`), the decision itself (`ladder`) nor carrying it out (`actions`). For one
thread; others read its attributes, each of them replaced as a whole.
"""

from __future__ import annotations

from typing import Final

from membudget_contract.plan import EffectivePlan
from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.history import History
from membudget_sidecar.ladder import Decision, Observation, finished, initial_state, plan_changed, step
from membudget_sidecar.plan_keeper import Floor
from membudget_sidecar.reading import Absent, SignalReading
from membudget_sidecar.room import RoomTeller
from membudget_sidecar.sample import Sample
from membudget_sidecar.tally import Tally

_UNSEEN: Final = SignalReading(Absent("no sample was taken yet"), "none")
_NO_ENGINE: Final = Absent("no engine was seen yet")


class Watch:
    """What was seen last, and the ladder's state after it."""

    def __init__(self, link: EngineLink, tally: Tally) -> None:
        self.sample: Sample | Absent = Absent("no sample was taken yet")
        self.used = _UNSEEN
        self.floor: Floor | None = None
        """What no action frees: unmanaged bytes and Critical data; None while it is not known."""
        self.history = History()
        self.ladder = initial_state()
        self._link = link
        self._tally = tally
        self._room = RoomTeller(link.client)

    @property
    def limit(self) -> int | None:
        """The container's limit in bytes, as of the last full look."""
        limit = self.sample.limit if isinstance(self.sample, Sample) else None
        return limit if isinstance(limit, int) else None

    def forget_engine(self) -> None:
        """Another process: peak and floor were those of the one before."""
        self.history.forget_peak()
        self.floor = None

    def plan_moved(self, before: EffectivePlan, plan: EffectivePlan, now: float) -> None:
        """Another plan is in force; figures of another signal cannot be compared."""
        self.ladder = plan_changed(self.ladder, before, plan, now)
        if before.signal is not plan.signal:
            self.used, self.history = _UNSEEN, History()

    def look_fully(self, plan: EffectivePlan, now: float) -> tuple[Decision, ...]:
        """Kernel and report, so that the unmanaged bytes are known; tells the room; what should be done."""
        process = self._link.process
        self.sample = _NO_ENGINE if process is None else process.sample(plan.signal, now)
        self._link.ask_report(now)
        decisions = self._see(_signal(self.sample), plan, now)
        unmanaged, report = self._unmanaged_bytes(now), self._link.report
        floor = None
        if unmanaged is not None and report is not None:
            floor = Floor(plan.signal, unmanaged + sum(part.critical_bytes for part in report.components))
        self.floor = floor
        self._room.tell(plan, unmanaged)
        return decisions

    def look_quickly(self, plan: EffectivePlan, now: float) -> tuple[Decision, ...]:
        """The signal alone; what should be done."""
        process = self._link.process
        return self._see(_signal(_NO_ENGINE) if process is None else process.signal_reading(plan.signal), plan, now)

    def action_ended(self, decision: Decision, status: ActionStatus, exhausted: bool, now: float) -> None:
        """What came of a decision."""
        self.ladder = finished(self.ladder, decision, status, exhausted, now)

    def _see(self, used: SignalReading, plan: EffectivePlan, now: float) -> tuple[Decision, ...]:
        self.used = used
        self._tally.count_sample(known=isinstance(used.bytes, int))
        self.history.record(now, used.bytes)
        signal = used.bytes if isinstance(used.bytes, int) else None
        self.ladder, decisions = step(self.ladder, Observation(now, signal, self._unmanaged_bytes(now)), plan)
        return decisions

    def _unmanaged_bytes(self, now: float) -> int | None:
        """Unknown without a report that is young enough: an old one would count a burst into caches as unmanaged."""
        used, report = self.used.bytes, self._link.fresh_report(now)
        return max(0, used - report.managed_bytes) if isinstance(used, int) and report is not None else None


def _signal(sample: Sample | Absent) -> SignalReading:
    return SignalReading(sample, "none") if isinstance(sample, Absent) else sample.used
