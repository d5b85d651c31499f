"""What the sidecar tells the controller of its pod.

Covers: building the `PodReport` from the loop's snapshots. Does not cover who may ask (`order_gate`) nor what people
are told (`status`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.orders import HeldOrder, PodIdentity, PodReport
from membudget_contract.plan import EffectivePlan, Layer, plan_hash
from membudget_sidecar.loop import Loop

_OWN_LAYERS: Final = frozenset({Layer.ENVIRONMENT, Layer.CONFIGURE})


def pod_report(loop: Loop, pod: PodIdentity, held: HeldOrder | None) -> PodReport:
    """One pod at this moment; a figure that could not be read is None."""
    plan, used = loop.keeper.effective, loop.watch.used.bytes
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
        budget_bytes=plan.total_bytes,
        problem=loop.keeper.problem,
    )


def is_overridden(plan: EffectivePlan) -> bool:
    """Whether this pod's environment or a `configure` call refines what was ordered."""
    return not _OWN_LAYERS.isdisjoint(plan.layers.values())
