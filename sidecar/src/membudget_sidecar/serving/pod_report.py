"""What the sidecar tells the controller of its pod.

Covers: building the `PodReport` from the loop's snapshots, with the budget that this pod would need. Does not cover who
may ask (`order_gate`) nor what people are told (`status`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.orders import HeldOrder, PodIdentity, PodReport
from membudget_contract.plan import EffectivePlan, Layer, plan_hash
from membudget_contract.recommend import Recommendation, pod_need, recommend
from membudget_sidecar.loop import Loop

_OWN_LAYERS: Final = frozenset({Layer.ENVIRONMENT, Layer.CONFIGURE})


def pod_report(loop: Loop, pod: PodIdentity, held: HeldOrder | None, now: float) -> PodReport:
    """One pod at this moment, `now` by the loop's clock; a figure that could not be read is None."""
    plan, used, used_at = loop.keeper.effective, loop.watch.used.bytes, loop.watch.used_at
    return PodReport(
        pod_uid=pod.uid,
        number=held.number if held else None,
        policy=held.policy if held else None,
        plan_hash=held.plan_hash if held else None,
        effective_plan_hash=plan_hash(plan),
        overridden=is_overridden(plan),
        level=loop.watch.ladder.level.value,
        engine=loop.link.state,
        usage_bytes=used if isinstance(used, int) else None,
        usage_age_seconds=None if used_at is None else max(0.0, now - used_at),
        budget_bytes=plan.total_bytes,
        problem=loop.keeper.problem,
        need=pod_need(recommendation(loop)),
    )


def recommendation(loop: Loop) -> Recommendation:
    """A budget for this pod, from what was seen of its engine."""
    plan, report = loop.keeper.effective, loop.link.report
    seen = loop.watch.use.seen(report.components if report else (), plan.components)
    return recommend(seen, plan.signal, plan.thresholds.soft.percent)


def is_overridden(plan: EffectivePlan) -> bool:
    """Whether this pod's environment or a `configure` call refines what was ordered."""
    return not _OWN_LAYERS.isdisjoint(plan.layers.values())
