"""A budget never stands above the container's limit: the kernel would kill before the ladder begins.

Pure. Covers: whether a plan asks for more than the live limit, and what it means then. Does not read the limit
(`cgroup`) nor decide whether such a plan is refused (an order, `plan_keeper.check`) or cut (a limit that fell, or that
was not known when the plan came).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from membudget_contract.plan import EffectivePlan, Plan
from membudget_contract.quantities import Amount
from membudget_contract.resolve import Override, resolve
from membudget_sidecar.errors import BudgetOverLimit

_TOTAL_VARIABLE: Final = "MEMBUDGET_TOTAL"


def over_limit(plan: Plan, environment: Mapping[str, str], limit: int | None) -> BudgetOverLimit | None:
    """What is wrong with a total above the limit; None when it fits, or no limit is known.

    Raises:
        ContractError: the plan cannot be resolved at all.
    """
    asked = resolve(plan, environment=environment, limit=limit).total_bytes
    return None if limit is None or asked <= limit else BudgetOverLimit(asked, limit)


def resolve_within_limit(
    plan: Plan, environment: Mapping[str, str], limit: int | None, override: Override
) -> EffectivePlan:
    """The plan in bytes, cut to the limit if it asks for more.

    Raises:
        ContractError: as `resolve` does.
    """
    if over_limit(plan, environment, limit) is not None:
        # Ceilings in bytes were meant for the total as written; those in percent follow the one that is left.
        given = {name: text for name, text in plan.given.items() if Amount(text).percent is not None}
        plan = msgspec.structs.replace(plan, total=str(limit), given=given)
        environment = without_total(environment)
    return resolve(plan, environment=environment, limit=limit, override=override)


def without_total(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the plan's own total."""
    return {name: text for name, text in environment.items() if name != _TOTAL_VARIABLE}
