"""Checks of one policy by itself: what contradicts itself, and what is too tight for the container's limit.

Pure. Covers: a compiled plan under a limit that is known or not. Does not cover reading policies (`command`), what the
parser refuses already (`membudget_contract.policy`) nor pods (`pod_checks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from membudget_cli.figures import mebibytes
from membudget_cli.lint.findings import Finding, error, warning
from membudget_contract.errors import ContractError, NoLimit
from membudget_contract.plan import EffectivePlan, Plan, Rung
from membudget_contract.policy import Mode, Signal
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.profiles import INDEX
from membudget_contract.quantities import MIB
from membudget_contract.resolve import resolve
from membudget_sidecar.deciding.pace import WORST_BYTES_PER_SECOND, guaranteed_bytes_per_second

SLIP_BYTES: Final = 8 * MIB
"""No Python process with FAISS fits in less: a total below it is a unit forgotten, as in `150`."""


def check_plan(plan: Plan, limit: int | None) -> list[Finding]:
    """What is to be said of a plan in a container with this memory limit; None: it is not known."""
    try:
        effective = resolve(plan, environment={}, limit=limit)
    except NoLimit:
        detail = f"{plan.total} of the container's limit: give --limit or --cluster to check the figures"
        return [*_of_rules(plan), warning("LimitUnknown", "spec.budget.total", detail)]
    except ContractError as refused:
        return [error(refused.reason, "spec.budget", str(refused))]
    return [*_of_rules(plan), *_of_bytes(effective), *_of_limit(effective, limit)]


def _of_rules(plan: Plan) -> Iterator[Finding]:
    spilling = [name for name, rung in _rungs(plan) if rung.action is RungAction.SPILL]
    if spilling and plan.spill_max_bytes == 0:
        yield warning("NothingToSpillTo", "spec.spill.maxSize", f"is 0, but {_joined(spilling)} would spill")
    if plan.signal is Signal.RESIDENT_SET_SIZE and plan.index_mapped:
        yield warning(
            "MappedPagesCount",
            "spec.budget.signal",
            "under ResidentSetSize the pages of a mapped index count, which the kernel can drop at no cost; "
            "Unreclaimable leaves them out",
        )
    if plan.mode is Mode.OBSERVE:
        yield warning("Observes", "spec.mode", "Observe: everything is decided and exported, nothing is done")
    yield from _of_alerts(plan)


def _of_alerts(plan: Plan) -> Iterator[Finding]:
    emergency = plan.thresholds.emergency.percent
    if plan.alerts.enabled and plan.alerts.usage_percent >= emergency:
        detail = f"{plan.alerts.usage_percent} %: emergency evicts at {emergency} %, so nobody hears of it before"
        yield warning("AlertTooLate", "spec.alerts.usagePercent", detail)


def _of_bytes(plan: EffectivePlan) -> Iterator[Finding]:
    if plan.total_bytes < SLIP_BYTES:
        detail = f"{plan.total_bytes} bytes, in which no engine runs; was a unit like Mi forgotten?"
        yield error("UnitForgotten", "spec.budget.total", detail)
        return
    for name, ceiling in plan.components.items():
        if ceiling == 0 and not (name == INDEX and plan.index_mapped and plan.signal is not Signal.RESIDENT_SET_SIZE):
            yield warning("EmptyComponent", f"spec.budget.components.{name}", "is 0: everything of it is refused")


def _of_limit(plan: EffectivePlan, limit: int | None) -> Iterator[Finding]:
    if limit is None:
        return
    if plan.total_bytes > limit:
        yield error(
            "BudgetOverLimit",
            "spec.budget.total",
            f"{mebibytes(plan.total_bytes)} in a container limited to {mebibytes(limit)}: the kernel kills first; ask "
            f"for at most {limit // MIB}Mi, or for a percent like 97%",
        )
        return
    lowest = 0
    for name, rung in _rungs(plan):
        entry = plan.percent_bytes(rung.percent)
        if rung.headroom_bytes is not None and limit - rung.headroom_bytes <= lowest:
            yield error(
                "RungsOutOfOrder",
                f"spec.thresholds.{name}.headroom",
                f"{mebibytes(rung.headroom_bytes)} under a limit of {mebibytes(limit)} is entered at "
                f"{mebibytes(max(0, limit - rung.headroom_bytes))}, no higher than the rung below it",
            )
        lowest = min(entry, limit - (rung.headroom_bytes or 0))
    yield from _of_headroom(limit - lowest)


def _of_headroom(headroom: int) -> Iterator[Finding]:
    """`headroom` is what lies between the last rung's entry and the limit."""
    rate = guaranteed_bytes_per_second(headroom)
    if rate < WORST_BYTES_PER_SECOND:
        yield warning(
            "LittleHeadroom",
            "spec.thresholds.emergency",
            f"{mebibytes(headroom)} from its entry to the limit answer growth up to {rate / MIB:.0f} MiB/s; with "
            f"headroom: 16Mi, or a total of at most 97%, it is {WORST_BYTES_PER_SECOND // MIB} MiB/s",
        )


def _rungs(plan: Plan | EffectivePlan) -> tuple[tuple[str, Rung], ...]:
    thresholds = plan.thresholds
    return (("soft", thresholds.soft), ("hard", thresholds.hard), ("emergency", thresholds.emergency))


def _joined(names: list[str]) -> str:
    return " and ".join(names)
