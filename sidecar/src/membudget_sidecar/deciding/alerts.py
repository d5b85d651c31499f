"""Alerts: which figures a person should hear of (R-S07).

Covers: holding one look's facts and the actions that ended against the plan's rules, when an alert begins and ends,
and the last ones. Does not cover measuring (`watch`), forecasts and leaks themselves (`trend`, `leaks`), nor exporting
(`collector`, the local API). For one thread; others read `active`, `recent`, `count`, each replaced as a whole.

An unknown figure begins no alert and ends none. An alert ends once its condition has been false for a while, so that
a figure that swings around its threshold is one alert and not many.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from membudget_contract.plan import AlertRules, EffectivePlan
from membudget_contract.policy_alerts import AlertName
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus

ENDS_AFTER_SECONDS: Final = 60.0
"""Without its condition; a slow spill or frequent evictions stay for as long after the last one."""
KEPT: Final = 100
"""Of the alerts that ended."""
GROWTH_BUCKETS: Final = 50
"""Of the window of growth: its least figure is known to a fiftieth of the window."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one full look knows; bytes, None where it does not know."""

    signal_bytes: int | None
    resident_bytes: int | None = None
    heap_bytes: int | None = None
    """Anonymous and shared memory: what is in no file."""
    explained_file_bytes: int | None = None
    """Resident pages of files that somebody accounts for: the engine's mapped indexes, code and libraries."""
    seconds_to_limit: float | None = None
    leaks: tuple[str, ...] = ()
    """One sentence for each suspect."""


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """One alert from its begin to its end; times are unix seconds."""

    name: AlertName
    since: float
    detail: str
    ended: float | None = None


class Alerts:
    """What is raised now, and what was."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.active: tuple[RaisedAlert, ...] = ()
        self.recent: tuple[RaisedAlert, ...] = ()
        """The last ones that ended, oldest first."""
        self.count = 0
        self.by_name: Counter[AlertName] = Counter()
        self.watching_since = wall()
        self._wall = wall
        self._seen_at: dict[AlertName, float] = {}
        self._growth = _LeastOfWindow()
        self._slow_spill: _Event | None = None
        self._evictions: deque[float] = deque(maxlen=1000)  # the most that a policy may ask for

    def forget_engine(self) -> None:
        """Another process: what the one before grew by says nothing."""
        self._growth = _LeastOfWindow()

    def action_ended(self, record: ActionRecord, now: float) -> None:
        """Remember what may be alerted of an action."""
        if record.started_at is None or record.finished_at is None or record.owned_before_bytes is None:
            return  # never carried out: decided in Observe, or refused
        if record.status is ActionStatus.HARMFUL:
            return  # told a second time, with what followed from it
        if record.kind is ActionKind.SPILL:
            seconds = max(0.0, record.finished_at - record.started_at)
            self._slow_spill = _Event(now, seconds)
        if record.kind is ActionKind.EVICT:
            self._evictions.append(now)

    def look(self, plan: EffectivePlan, facts: Facts, now: float) -> None:
        """Raise and end alerts after a full look; `now` in monotonic seconds."""
        rules = plan.alerts
        if facts.signal_bytes is not None:
            self._growth.record(now, facts.signal_bytes, rules.growth_seconds)
        found = {name: detail for name, detail in self._conditions(plan, facts, now) if rules.raises(name)}
        self._seen_at |= dict.fromkeys((name for name, detail in found.items() if detail), now)
        active = {alert.name: alert for alert in self.active}
        ended = [alert for alert in self.active if not self._holds(alert.name, found, now)]
        for alert in ended:
            del active[alert.name]
            log.info("alert %s ended: %s", alert.name, alert.detail)
        for name, detail in found.items():
            if detail and name in active:
                active[name] = replace(active[name], detail=detail)
            elif detail:
                active[name] = RaisedAlert(name, self._wall(), detail)
                self.count += 1
                self.by_name[name] += 1
                log.warning("alert %s: %s", name, detail)
        self.active = tuple(active.values())
        if ended:
            at = self._wall()
            self.recent = (*self.recent, *(replace(alert, ended=at) for alert in ended))[-KEPT:]

    def _holds(self, name: AlertName, found: dict[AlertName, str | None], now: float) -> bool:
        """One that is switched off ends at once; one whose figure is unknown stays."""
        return name in found and (found[name] is None or now - self._seen_at[name] < ENDS_AFTER_SECONDS)

    def _conditions(self, plan: EffectivePlan, facts: Facts, now: float) -> Iterator[tuple[AlertName, str | None]]:
        """Of each alert: what is wrong, the empty text when nothing is, None when that cannot be told."""
        rules = plan.alerts
        yield from _usage(plan, facts)
        yield AlertName.GROWTH, self._grown(rules, facts, now)
        yield AlertName.LEAK_SUSPECTED, "; ".join(facts.leaks)
        yield AlertName.LIMIT_SOON, _limit_soon(rules, facts)
        yield AlertName.SLOW_SPILL, self._spilled_slowly(rules, now)
        yield AlertName.RESIDENT_OVER_HEAP, _resident_over_heap(rules, facts)
        yield AlertName.FREQUENT_EVICTIONS, self._evicted_often(rules, now)

    def _grown(self, rules: AlertRules, facts: Facts, now: float) -> str | None:
        least = self._growth.least(now, rules.growth_seconds)
        if facts.signal_bytes is None or least is None:
            return None
        grown = facts.signal_bytes - least
        if grown < rules.growth_bytes:
            return ""
        return f"use grew by {_mib(grown)} within {rules.growth_seconds} s"

    def _spilled_slowly(self, rules: AlertRules, now: float) -> str:
        last = self._slow_spill
        if last is None or last.seconds <= rules.slow_spill_seconds or now - last.at >= ENDS_AFTER_SECONDS:
            return ""
        return f"a spill took {last.seconds:.1f} s, more than {rules.slow_spill_seconds} s"

    def _evicted_often(self, rules: AlertRules, now: float) -> str:
        count = sum(now - at < rules.evictions_seconds for at in self._evictions)
        if count < rules.evictions_count:
            return ""
        return f"{count} evictions within {rules.evictions_seconds} s"


class _Event(NamedTuple):
    at: float
    seconds: float


class _LeastOfWindow:
    """The least figure of the last so many seconds, in a bounded number of buckets."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()

    def record(self, now: float, figure: int, seconds: int) -> None:
        width = seconds / GROWTH_BUCKETS
        if self._buckets and now - self._buckets[-1].since < width:
            last = self._buckets.pop()
            self._buckets.append(_Bucket(last.since, min(last.least, figure)))
        else:
            self._buckets.append(_Bucket(now, figure))
        while len(self._buckets) > GROWTH_BUCKETS + 1 or now - self._buckets[0].since > seconds:
            self._buckets.popleft()

    def least(self, now: float, seconds: int) -> int | None:
        return min((bucket.least for bucket in self._buckets if now - bucket.since <= seconds), default=None)


class _Bucket(NamedTuple):
    since: float
    least: int


def _usage(plan: EffectivePlan, facts: Facts) -> Iterator[tuple[AlertName, str | None]]:
    rules, used = plan.alerts, facts.signal_bytes
    limits = {
        AlertName.USAGE_HIGH: (plan.percent_bytes(rules.usage_percent), f"{rules.usage_percent} % of the budget"),
        AlertName.USAGE_OVER_FIGURE: (rules.usage_bytes(plan.total_bytes), "the figure that the policy sets"),
    }
    for name, (figure, of_what) in limits.items():
        if used is None:
            yield name, None
        else:
            yield name, f"use of {_mib(used)} is over {_mib(figure)}, {of_what}" if used > figure else ""


def _limit_soon(rules: AlertRules, facts: Facts) -> str:
    """A forecast that is not there says that nothing can be foreseen: that is no alarm, and ends one."""
    seconds = facts.seconds_to_limit
    if seconds is None or seconds > rules.seconds_to_limit:
        return ""
    return f"growing as it does, use meets the container's limit in {seconds:.0f} s"


def _resident_over_heap(rules: AlertRules, facts: Facts) -> str | None:
    resident, heap, explained = facts.resident_bytes, facts.heap_bytes, facts.explained_file_bytes
    if resident is None or heap is None or explained is None:
        return None
    unexplained = resident - explained
    if unexplained * 100 <= heap * rules.resident_over_heap_percent:
        return ""
    return (
        f"{_mib(unexplained)} resident beside known files, "
        f"more than {rules.resident_over_heap_percent} % of a heap of {_mib(heap)}"
    )


def _mib(amount: int) -> str:
    return f"{amount / MIB:.1f} MiB"
