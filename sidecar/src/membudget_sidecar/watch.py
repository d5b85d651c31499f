"""Looking at the engine, and deciding on what was seen.

Covers: a full look (kernel, report, room), a quick one (signal and limit alone), the figures they leave behind, feeding
the ladder. Does not cover when to look (`loop`), the decision itself (`ladder`) nor carrying it out (`actions`). For
one thread, but for the engine's answer to a full look, which is taken in whatever thread got it; others read its
attributes, each of them replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membudget_contract.plan import AlertRules, EffectivePlan, Thresholds
from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.observed_link import OBSERVED
from membudget_sidecar.acting.room import RoomTeller
from membudget_sidecar.deciding.ladder import finished, initial_state, plan_changed, step
from membudget_sidecar.deciding.ladder_state import Decision, Observation
from membudget_sidecar.deciding.leaks import Holding, LeakRule, Leaks
from membudget_sidecar.deciding.trend import CONFIDENT, Forecast, Trend
from membudget_sidecar.deciding.use_seen import UseSeen
from membudget_sidecar.history import History
from membudget_sidecar.kernel.engine_process import EngineProcess
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading
from membudget_sidecar.kernel.sample import QuickReading, Sample
from membudget_sidecar.plans.plan_keeper import Floor
from membudget_sidecar.tally import Tally

_UNSEEN: Final = SignalReading(Absent("no sample was taken yet"), "none")
_NO_ENGINE: Final = Absent("no engine was seen yet")
_NO_LIMIT_KNOWN: Final = Absent("the container's limit is not known")


class Watch:
    """What was seen last, and the ladder's state after it.

    `ask` is called with a question to the engine, and answers it now or later.
    """

    def __init__(self, link: EngineLink, tally: Tally, ask: Callable[[Callable[[], None]], None]) -> None:
        self.sample: Sample | Absent = Absent("no sample was taken yet")
        """Of the last full look."""
        self.used = _UNSEEN
        self.used_at: float | None = None
        """When `used` was read, or could not be, by the loop's clock."""
        self.limit: int | None = None
        """The container's limit in bytes, as of the last look of either kind; None while it is not known."""
        self.floor: Floor | None = None
        """What no action frees: unmanaged bytes and Critical data; None while it is not known."""
        self.history = History()
        """Of full looks, and of quick ones near the first entry: what people ask for is not crowded out by calm."""
        self.forecast: Forecast | Absent = Absent("no sample was taken yet")
        """When the trend meets the limit, as of the last look that asked for it."""
        self.seen: Observation | None = None
        """What the ladder was shown last."""
        self.ladder = initial_state()
        self.leaks = Leaks(LeakRule())
        self.use = UseSeen()
        """Of this engine, for a recommendation."""
        self._link = link
        self._tally = tally
        self._ask = ask
        self._trend = Trend()
        self._room = RoomTeller(link.client)

    def forget_engine(self) -> None:
        """Another process: peak, trend and floor were those of the one before."""
        self.history.forget_peak()
        self._trend.forget()
        self.leaks.forget()
        self.use.forget()
        self.floor = None

    def plan_moved(self, before: EffectivePlan, plan: EffectivePlan, now: float) -> None:
        """Another plan is in force; figures of another signal cannot be compared."""
        self.ladder = plan_changed(self.ladder, before, plan, now)
        if before.signal is not plan.signal:
            self.used, self.history, self._trend = _UNSEEN, History(), Trend()
            self.leaks.forget()

    def look_fully(self, plan: EffectivePlan, now: float) -> tuple[Decision, ...]:
        """Everything the kernel says; asks for the report, which tells what is unmanaged; what should be done."""
        process = self._link.process
        self.sample = _NO_ENGINE if process is None else process.sample(plan.signal, now)
        used, limit = _figures(self.sample)
        self._see(used, limit, now)
        self.history.record(now, used.bytes)
        if process is not None:
            self._ask(lambda: self._question(process, plan, now))
        self.forecast = self._forecast_now()
        return self._decide(plan, now)

    def look_quickly(self, plan: EffectivePlan, now: float, *, kept: bool = True) -> tuple[Decision, ...]:
        """Signal and limit alone, in the history only if `kept`; what should be done."""
        process = self._link.process
        reading = QuickReading(*_figures(_NO_ENGINE)) if process is None else process.quick_reading(plan.signal)
        self._see(reading.used, reading.limit, now)
        if kept:
            self.history.record(now, reading.used.bytes)
        if kept or _asks_for_forecast(plan.thresholds):
            self.forecast = self._forecast_now()
        return self._decide(plan, now)

    def suspect_leaks(self, rules: AlertRules, now: float) -> None:
        """Once the report of a full look is here: who grows and gives nothing back."""
        if not rules.enabled:
            self.leaks.forget()
            return
        self.leaks.rule = LeakRule(rules.leak_growth_bytes, rules.leak_bytes_per_second, rules.leak_bytes_per_hour)
        report = self._link.fresh_report(now)
        held = (
            {part.name: Holding(part.owned_bytes, part.budget_bytes) for part in report.components} if report else None
        )
        self.leaks.look(now, self.seen.unmanaged_bytes if self.seen else None, held)

    def action_ended(self, decision: Decision, status: ActionStatus, exhausted: bool, now: float) -> None:
        """What came of a decision."""
        self.ladder = finished(self.ladder, decision, status, exhausted, now)

    def _see(self, used: SignalReading, limit: Reading, now: float) -> None:
        self.used, self.used_at = used, now
        self._trend.record(now, used.bytes)
        self.limit = limit if isinstance(limit, int) else None
        self._tally.count_sample(known=isinstance(used.bytes, int))

    def _decide(self, plan: EffectivePlan, now: float) -> tuple[Decision, ...]:
        used, report = self.used.bytes, self._link.fresh_report(now)
        self.seen = Observation(
            now=now,
            signal_bytes=used if isinstance(used, int) else None,
            unmanaged_bytes=_unmanaged_bytes(used, report.managed_bytes if report else None),
            limit_bytes=self.limit,
            seconds_to_limit=_confident_seconds(self.forecast),
            evictable_bytes=sum(part.evictable_bytes for part in report.components) if report else None,
            signal_source=self.used.source,
        )
        self.ladder, decisions = step(self.ladder, self.seen, plan)
        return decisions

    def _forecast_now(self) -> Forecast | Absent:
        return _NO_LIMIT_KNOWN if self.limit is None else self._trend.seconds_to(self.limit)

    def _question(self, process: EngineProcess, plan: EffectivePlan, now: float) -> None:
        """Report, then the room that follows from it.

        The signal is read again beside the report: a burst into caches while the engine was busy is not unmanaged.
        """
        self._link.ask_report(now)
        report = self._link.fresh_report(now)
        used = process.quick_reading(plan.signal).used.bytes
        unmanaged = _unmanaged_bytes(used, report.managed_bytes if report else None)
        if process is not self._link.process:
            return
        floor = None
        if unmanaged is not None and report is not None:
            floor = Floor(plan.signal, unmanaged + sum(part.critical_bytes for part in report.components))
        self.floor = floor
        if self._link.state == OBSERVED:  # nothing in it is managed: all that it uses is what it needs
            self.use.look(now, used if isinstance(used, int) else None, ())
        else:
            self.use.look(now, unmanaged, report.components if report else None)
        self._room.tell(plan, unmanaged)


def _figures(sample: Sample | Absent) -> tuple[SignalReading, Reading]:
    if isinstance(sample, Absent):
        return SignalReading(sample, "none"), sample
    return sample.used, sample.limit


def _unmanaged_bytes(used: Reading, managed: int | None) -> int | None:
    """Unknown without a report that is young enough: an old one would count a burst into caches as unmanaged."""
    return max(0, used - managed) if isinstance(used, int) and managed is not None else None


def _confident_seconds(forecast: Forecast | Absent) -> float | None:
    if isinstance(forecast, Absent) or forecast.confidence < CONFIDENT:
        return None
    return forecast.seconds


def _asks_for_forecast(thresholds: Thresholds) -> bool:
    rules = (thresholds.collect, thresholds.soft, thresholds.hard, thresholds.emergency)
    return any(rule.seconds_to_limit is not None for rule in rules)
