"""What the sidecar answers when asked how things are.

Covers: building `Status` and `ThresholdsView` from the loop's snapshots. Does not cover serving them (`local_status`)
nor single readings (`figures`). Runs in the servers' thread: the loop may record one more sample between two figures.
"""

from __future__ import annotations

from typing import Final

from membudget_contract.plan import EffectivePlan, plan_hash
from membudget_contract.sidecar_api import ActionKind, RungView, Status, ThresholdsView
from membudget_sidecar.acting.engine_link import CONNECTED
from membudget_sidecar.acting.observed_link import OBSERVED
from membudget_sidecar.deciding.entries import rungs
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.sample import Sample
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_keeper import OrderKeeper
from membudget_sidecar.serving.figures import cgroup_figures, figure, known, known_fraction, process_figures, share
from membudget_sidecar.serving.outlook import alert_list, forecast

_COLLECT: Final = "Collect"


def status(loop: Loop, orders: OrderKeeper | None = None) -> Status:
    """One sidecar at this moment; `orders` are those held in controller mode."""
    held = orders.held if orders else None
    plan, keeper, watch = loop.keeper.effective, loop.keeper, loop.watch
    link, report, sample = loop.link, loop.link.report, watch.sample
    alerts = alert_list(loop.alerts)
    return Status(
        mode=plan.mode,
        level=watch.ladder.level,
        signal=plan.signal,
        usage=figure(watch.used.bytes, watch.used.source),
        limit=figure(sample.limit if isinstance(sample, Sample) else sample, "cgroup"),
        resident=figure(sample.process.resident if isinstance(sample, Sample) else sample, "VmRSS"),
        pressure=share(watch.history.pressure(plan.total_bytes)),
        limit_percent=share(sample.limit_percent if isinstance(sample, Sample) else sample),
        available=figure(sample.available if isinstance(sample, Sample) else sample, "limit - usage"),
        process=process_figures(sample),
        cgroup=cgroup_figures(sample),
        gc=report.gc if report else None,
        budget_bytes=plan.total_bytes,
        room_bytes=report.room_bytes if report else None,
        engine=link.state,
        engine_pid=link.process.pid if link.process and link.state in {CONNECTED, OBSERVED} else None,
        plan_hash=plan_hash(plan),
        policy=plan.policy,
        order=held.number if held else None,
        policy_generation=held.policy.generation if held and held.policy else None,
        policy_problem=keeper.problem,
        overridden_until=keeper.overridden_until,
        enforcement=keeper.enforcement,
        forecast=forecast(watch.forecast, watch.limit),
        alerts=alerts.active,
        alert_count=alerts.count,
        monitoring_since=alerts.monitoring_since,
        transitions=watch.ladder.transitions,
        samples=loop.tally.samples,
        history_peak_bytes=known(watch.history.peak()),
        history_mean_bytes=known_fraction(watch.history.average()),
        history_deviation_bytes=known_fraction(watch.history.deviation()),
        components=report.components if report else (),
        collections=report.collections if report else (),
        warnings=loop.oversights.warnings,
    )


def thresholds(loop: Loop) -> ThresholdsView:
    """The ladder of the plan in force, with the way to each entry."""
    plan, watch = loop.keeper.effective, loop.watch
    used = None if isinstance(watch.used.bytes, Absent) else watch.used.bytes
    return ThresholdsView(
        level=watch.ladder.level,
        signal=plan.signal,
        usage=figure(watch.used.bytes, watch.used.source),
        budget_bytes=plan.total_bytes,
        forecast=forecast(watch.forecast, watch.limit),
        rungs=rung_views(plan, used, watch.limit),
    )


def rung_views(plan: EffectivePlan, used: int | None, limit: int | None) -> tuple[RungView, ...]:
    """The entries of a plan in bytes, lowest first; what is not known has no distance."""

    def distance(entry: int | None) -> int | None:
        return None if used is None or entry is None else entry - used

    def near(headroom: int | None) -> int | None:
        return None if headroom is None or limit is None else limit - headroom

    rule = plan.thresholds.collect
    entry = plan.percent_bytes(rule.percent)
    collect = RungView(
        name=_COLLECT,
        action=ActionKind.COLLECT.value,
        percent=rule.percent,
        entry_bytes=entry,
        release_bytes=entry,
        free_bytes=0,
        cooldown_seconds=rule.cooldown_seconds,
        distance_bytes=distance(entry),
        headroom_bytes=rule.headroom_bytes,
        headroom_distance_bytes=distance(near(rule.headroom_bytes)),
        seconds_to_limit=rule.seconds_to_limit,
    )
    ladder = (
        RungView(
            name=level.value,
            action=rung.action.value,
            percent=rung.percent,
            entry_bytes=plan.percent_bytes(rung.percent),
            release_bytes=plan.percent_bytes(rung.release_percent),
            free_bytes=plan.percent_bytes(rung.free_percent),
            cooldown_seconds=rung.cooldown_seconds,
            distance_bytes=distance(plan.percent_bytes(rung.percent)),
            headroom_bytes=rung.headroom_bytes,
            headroom_distance_bytes=distance(near(rung.headroom_bytes)),
            seconds_to_limit=rung.seconds_to_limit,
        )
        for level, rung in rungs(plan).items()
    )
    return (collect, *ladder)
