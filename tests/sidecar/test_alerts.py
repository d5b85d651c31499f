"""Alerts in simulated time: what begins one, what ends it, and what a figure that is not known does to it."""

from __future__ import annotations

import logging

import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy_alerts import AlertName
from membudget_contract.quantities import MIB
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.deciding.alerts import ENDS_AFTER_SECONDS, KEPT, Alerts, Facts

PLAN = resolve(compile_policy(None), environment={}, limit=None)
"""150 MiB: 85 % are 127.5 MiB, the figure is 140 MiB."""
QUIET = Facts(signal_bytes=120 * MIB)


def with_rules(**rules: object) -> EffectivePlan:
    """The built-in plan with other alert rules."""
    return msgspec.structs.replace(PLAN, alerts=msgspec.structs.replace(PLAN.alerts, **rules))


def ended_action(kind: ActionKind, seconds: float = 0.5, *, carried_out: bool = True) -> ActionRecord:
    """An action that took so long."""
    return ActionRecord(
        id=1,
        kind=kind,
        cause="",
        status=ActionStatus.EFFECTIVE if carried_out else ActionStatus.OBSERVED,
        plan_hash="",
        asked_bytes=0,
        queued_at=0.0,
        started_at=100.0,
        finished_at=100.0 + seconds,
        owned_before_bytes=1 if carried_out else None,
    )


class Clocked:
    """Alerts with a wall clock that stands 1,000,000 s ahead of the monotonic one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alerts = Alerts(wall=lambda: 1_000_000.0 + self.now)

    def look(self, facts: Facts, *, after: float = 10.0, plan: EffectivePlan = PLAN) -> set[AlertName]:
        """Look once more, so many seconds later; what is raised then."""
        self.now += after
        self.alerts.look(plan, facts, self.now)
        return {alert.name for alert in self.alerts.active}


@pytest.mark.parametrize(
    ("facts", "raised"),
    [
        (Facts(signal_bytes=127 * MIB), set[AlertName]()),
        (Facts(signal_bytes=128 * MIB), {AlertName.USAGE_HIGH}),
        (Facts(signal_bytes=140 * MIB), {AlertName.USAGE_HIGH}),
        (Facts(signal_bytes=140 * MIB + 1), {AlertName.USAGE_HIGH, AlertName.USAGE_OVER_FIGURE}),
        (Facts(signal_bytes=100 * MIB, seconds_to_limit=301), set[AlertName]()),
        (Facts(signal_bytes=100 * MIB, seconds_to_limit=300), {AlertName.LIMIT_SOON}),
        (Facts(signal_bytes=100 * MIB, leaks=("unmanaged grew",)), {AlertName.LEAK_SUSPECTED}),
    ],
)
def test_each_figure_has_its_alert(facts: Facts, raised: set[AlertName]) -> None:
    """R-S07: usage over 85 %, over a fixed figure, the limit in N seconds, a leak that is suspected."""
    assert raised == Clocked().look(facts)


def test_growth_of_20_mib_within_50_seconds_is_an_alert() -> None:
    """R-S07: measured from the least figure of the window, whatever came between."""
    clocked = Clocked()
    clocked.look(QUIET)
    clocked.look(Facts(signal_bytes=90 * MIB))
    assert clocked.look(Facts(signal_bytes=109 * MIB)) == set()
    assert clocked.look(Facts(signal_bytes=110 * MIB)) == {AlertName.GROWTH}


def test_the_same_growth_over_a_longer_time_is_none() -> None:
    """R-S07: 1 MiB every 10 s is 5 MiB in a window."""
    clocked = Clocked()
    assert [clocked.look(Facts(signal_bytes=(90 + step) * MIB)) for step in range(30)] == [set()] * 30


def test_growth_is_seen_at_ten_looks_a_second_with_little_memory() -> None:
    """R-S07: the window is kept in buckets, so that a day of it costs no more than a minute."""
    clocked, plan = Clocked(), with_rules(growth_seconds=86_400)
    for tenth in range(5_000):
        clocked.look(Facts(signal_bytes=100 * MIB + tenth), after=0.1, plan=plan)
    assert clocked.look(Facts(signal_bytes=120 * MIB), plan=plan) == {AlertName.GROWTH}


def test_another_engine_has_not_grown_from_the_size_of_the_one_before() -> None:
    """R-S07: a small process that ended and a large one that came are no growth."""
    clocked = Clocked()
    clocked.look(Facts(signal_bytes=10 * MIB))
    clocked.alerts.forget_engine()
    assert clocked.look(QUIET) == set()


def test_a_spill_over_5_seconds_is_an_alert_for_a_while() -> None:
    """R-S07: a slow disk; the next fast spill does not wait for the end of the alert."""
    clocked = Clocked()
    clocked.alerts.action_ended(ended_action(ActionKind.SPILL, 5.0), clocked.now)
    assert clocked.look(QUIET, after=0.0) == set()
    clocked.alerts.action_ended(ended_action(ActionKind.SPILL, 5.1), clocked.now)
    assert clocked.look(QUIET, after=0.0) == {AlertName.SLOW_SPILL}
    assert clocked.look(QUIET, after=ENDS_AFTER_SECONDS - 1) == {AlertName.SLOW_SPILL}
    assert clocked.look(QUIET, after=ENDS_AFTER_SECONDS) == set()


def test_many_evictions_are_an_alert_and_those_of_observe_are_not() -> None:
    """R-S07: ten within five minutes, carried out."""
    clocked = Clocked()
    for _ in range(9):
        clocked.alerts.action_ended(ended_action(ActionKind.EVICT), clocked.now)
    for _ in range(9):
        clocked.alerts.action_ended(ended_action(ActionKind.EVICT, carried_out=False), clocked.now)
        clocked.alerts.action_ended(ended_action(ActionKind.CLEANUP), clocked.now)
    assert clocked.look(QUIET) == set()
    clocked.alerts.action_ended(ended_action(ActionKind.EVICT), clocked.now)
    assert clocked.look(QUIET) == {AlertName.FREQUENT_EVICTIONS}
    assert clocked.look(QUIET, after=300.0) == set()


def test_resident_memory_over_twice_the_heap_is_an_alert_without_the_files_that_are_known() -> None:
    """R-S07: a hot mapped index of four times the heap is what an index is for."""
    hot = Facts(signal_bytes=60 * MIB, resident_bytes=330 * MIB, heap_bytes=60 * MIB, explained_file_bytes=210 * MIB)
    unknown = Facts(
        signal_bytes=60 * MIB, resident_bytes=331 * MIB, heap_bytes=60 * MIB, explained_file_bytes=210 * MIB
    )
    assert (Clocked().look(hot), Clocked().look(unknown)) == (set(), {AlertName.RESIDENT_OVER_HEAP})


def test_an_unknown_figure_begins_no_alert_and_ends_none() -> None:
    """R-S07: a reading that failed says nothing."""
    clocked = Clocked()
    nothing = Facts(signal_bytes=None)
    assert clocked.look(nothing) == set()
    clocked.look(Facts(signal_bytes=130 * MIB))
    assert clocked.look(nothing, after=10 * ENDS_AFTER_SECONDS) == {AlertName.USAGE_HIGH}
    assert clocked.look(QUIET, after=10 * ENDS_AFTER_SECONDS) == set()


def test_a_figure_that_swings_around_its_threshold_is_one_alert() -> None:
    """R-S07: it ends a minute after it was last true."""
    clocked = Clocked()
    for step in range(100):
        clocked.look(Facts(signal_bytes=(127 + step % 2) * MIB))
    assert (clocked.alerts.count, clocked.alerts.recent) == (1, ())


def test_an_alert_that_ended_is_kept_with_its_times(caplog: pytest.LogCaptureFixture) -> None:
    """R-S07: as log lines, and for the API; unix seconds."""
    clocked = Clocked()
    with caplog.at_level(logging.INFO):
        clocked.look(Facts(signal_bytes=128 * MIB))
        clocked.look(QUIET, after=ENDS_AFTER_SECONDS)
    (ended,) = clocked.alerts.recent
    assert (ended.name, ended.since, ended.ended) == (AlertName.USAGE_HIGH, 1_000_010.0, 1_000_070.0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "alert UsageHigh: use of 128.0 MiB is over 127.5 MiB, 85 % of the budget" == caplog.records[0].getMessage()


def test_only_the_last_alerts_are_kept_and_all_are_counted() -> None:
    """R-S07: the count of the summary is that of the whole life."""
    clocked = Clocked()
    for _ in range(KEPT + 5):
        clocked.look(Facts(signal_bytes=128 * MIB))
        clocked.look(QUIET, after=ENDS_AFTER_SECONDS)
    assert (len(clocked.alerts.recent), clocked.alerts.count) == (KEPT, KEPT + 5)
    assert clocked.alerts.by_name == {AlertName.USAGE_HIGH: KEPT + 5}


@pytest.mark.parametrize("rules", [{"disabled": (AlertName.USAGE_HIGH,)}, {"enabled": False}])
def test_an_alert_that_is_switched_off_is_not_raised_and_ends_at_once(rules: dict[str, object]) -> None:
    """R-S07: each can be switched off, and all together."""
    clocked = Clocked()
    clocked.look(Facts(signal_bytes=128 * MIB))
    assert clocked.look(Facts(signal_bytes=128 * MIB), plan=with_rules(**rules)) == set()


def test_the_detail_of_an_alert_follows_its_figure() -> None:
    """R-S07: who looks an hour later reads how it stands, and since when."""
    clocked = Clocked()
    clocked.look(Facts(signal_bytes=128 * MIB))
    clocked.look(Facts(signal_bytes=131 * MIB))
    (alert,) = clocked.alerts.active
    assert (alert.since, "use of 131.0 MiB" in alert.detail) == (1_000_010.0, True)
