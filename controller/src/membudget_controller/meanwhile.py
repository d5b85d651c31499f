"""What a pod is told until it has its higher limit: everything that its policy says now, within the budget that it has.

Covers: that plan, and when there is none. Pure. Does not decide who waits (`shrink`) nor send. Neighbour: `resizes`
asks it for every pod that waits.

The budget that a pod has is what its controller last had it acknowledge, else what it reported since it holds what it
holds: after a restart the report is all there is. A budget that does not fit under the present limit is not told.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from membudget_contract.errors import ContractError
from membudget_contract.plan import Plan, plan_hash
from membudget_contract.quantities import Amount
from membudget_contract.resolve import resolve
from membudget_controller.progress import Progress
from membudget_controller.targets import Target


def until_then(target: Target, known: Progress, carried: int | None) -> Target | None:
    """The target until the limit has risen; None where nothing that is known to fit can be told.

    Args:
        target: what the pod is to hold in the end, its total in bytes.
        known: what came of the exchanges with it.
        carried: the limit that the kernel holds its container to, in bytes.
    """
    budget = _budget(known)
    if budget is None or carried is None:
        return None
    wanted = target.desired.plan
    plan = msgspec.structs.replace(wanted, total=str(min(budget, carried, Amount(wanted.total).of(0))))
    if not _is_whole(plan):
        return None
    return replace(target, desired=replace(target.desired, plan=plan, plan_hash=plan_hash(plan)))


def _budget(known: Progress) -> int | None:
    order, report, reported_at = known.order, known.report, known.reported_at
    if known.held is None:
        return None
    if order is not None and order.desired.content == known.held:
        amount = Amount(order.desired.plan.total).byte_count
        if amount is not None:
            return amount
    return report.budget_bytes if report and reported_at is not None and reported_at >= known.held_since else None


def _is_whole(plan: Plan) -> bool:
    """Components given in bytes may need the larger total."""
    try:
        resolve(plan, environment={}, limit=None)
    except ContractError:
        return False
    return True
