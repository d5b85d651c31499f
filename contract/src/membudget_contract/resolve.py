"""From a plan to bytes: environment of the pod, the live limit, a `configure` call (R-P03, R-P05).

Covers: percents of the limit, the split by component, the last two layers, the floor. Does not read the limit or
the environment: both are arguments. Pure; the sidecar runs it again whenever one of them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from membudget_contract.errors import (
    BudgetBelowFloor,
    EnvironmentInvalid,
    LooserThanPlan,
    NoLimit,
    PolicyInvalid,
)
from membudget_contract.plan import ROOM_MARGIN_PERCENT, EffectivePlan, Layer, Message, Plan
from membudget_contract.policy import Mode, Signal
from membudget_contract.quantities import Amount


class Override(Message, frozen=True, kw_only=True):
    """A `configure` call in force: bytes, only tighter than the plan."""

    total_bytes: int | None = None
    components: dict[str, int] = {}


NO_OVERRIDE: Final = Override()


def resolve(
    plan: Plan, *, environment: Mapping[str, str], limit: int | None, override: Override = NO_OVERRIDE
) -> EffectivePlan:
    """The plan in bytes.

    Args:
        plan: what the policy was compiled to.
        environment: the variables of the sidecar's container.
        limit: the engine container's live limit in bytes, None where there is none or it could not be read.
        override: a `configure` call in force.

    Raises:
        NoLimit: the total is a percent and there is no limit.
        EnvironmentInvalid: a variable that refines the plan cannot be read.
        PolicyInvalid: the components ask for more than the total.
        LooserThanPlan: the override asks for more than the plan allows.
    """
    refined, layers = _with_environment(plan, environment)
    total = _total_bytes(refined.total, limit)
    if override.total_bytes is not None:
        total = _tighter("budget.total", total, override.total_bytes)
        layers["budget.total"] = Layer.CONFIGURE
    components = _split(total, refined.split, {name: Amount(text) for name, text in refined.given.items()})
    for name, asked in override.components.items():
        if name not in components:
            raise LooserThanPlan(f"{name!r} is no component of this plan; there are {', '.join(components)}")
        components[name] = _tighter(f"budget.components.{name}", components[name], asked)
        layers[f"budget.components.{name}"] = Layer.CONFIGURE
    shared = {
        field.name: getattr(refined, field.name)
        for field in msgspec.structs.fields(EffectivePlan)
        if field.name not in {"total_bytes", "components", "layers"}
    }
    return EffectivePlan(**shared, total_bytes=total, components=components, layers=layers)


def check_floor(plan: EffectivePlan, floor_bytes: int) -> None:
    """Refuse a total under which nothing could be given back to reach it.

    Args:
        plan: the plan about to be applied.
        floor_bytes: memory that no action frees: what is not managed, and Critical data.

    Raises:
        BudgetBelowFloor: with a total under which the ladder would be silent.
    """
    if plan.total_bytes < floor_bytes:
        raise BudgetBelowFloor(plan.total_bytes, floor_bytes, plan.thresholds.soft.percent - ROOM_MARGIN_PERCENT)


def _with_environment(plan: Plan, environment: Mapping[str, str]) -> tuple[Plan, dict[str, Layer]]:
    """The plan with the fields that `MEMBUDGET_*` variables name, and the layers that follow."""
    layers = dict(plan.layers)
    changes: dict[str, object] = {}
    for variable, (path, field, read) in ENVIRONMENT_FIELDS.items():
        text = environment.get(variable)
        if text is None:
            continue
        try:
            changes[field] = read(text)
        except ValueError as error:
            raise EnvironmentInvalid(variable, str(error)) from None
        layers[path] = Layer.ENVIRONMENT
    return msgspec.structs.replace(plan, **changes), layers


def _byte_count(text: str) -> int:
    byte_count = Amount(text).byte_count
    if byte_count is None:
        raise ValueError(f"{text} must be bytes like 100Mi, not a percent")
    return byte_count


def _interval(text: str) -> int:
    seconds = int(text)
    if not 1 <= seconds <= 300:  # noqa: PLR2004  the bounds of spec.sampling.intervalSeconds
        raise ValueError(f"{seconds} must lie between 1 and 300 seconds")
    return seconds


ENVIRONMENT_FIELDS: Final[Mapping[str, tuple[str, str, Callable[[str], object]]]] = {
    "MEMBUDGET_MODE": ("mode", "mode", Mode),
    "MEMBUDGET_SIGNAL": ("budget.signal", "signal", Signal),
    "MEMBUDGET_TOTAL": ("budget.total", "total", lambda text: str(Amount(text))),
    "MEMBUDGET_BASE_LIMIT": ("budget.baseLimit", "base_limit_bytes", _byte_count),
    "MEMBUDGET_SAMPLING_INTERVAL_SECONDS": (
        "sampling.intervalSeconds",
        "sampling_interval_seconds",
        _interval,
    ),
}
"""Variable -> (path in the policy, field of the plan, how it is read)."""


def _total_bytes(text: str, limit: int | None) -> int:
    amount = Amount(text)
    if amount.percent is not None and limit is None:
        raise NoLimit(f"a total of {text} needs a container limit, and none is known; give bytes like 150Mi")
    return amount.of(limit or 0)


def _tighter(path: str, allowed: int, asked: int) -> int:
    if asked > allowed:
        raise LooserThanPlan(
            f"{path}: {asked} bytes is more than the plan's {allowed}; configure may only tighten, "
            "change the policy to allow more"
        )
    return asked


def _split(total: int, ratio: Mapping[str, int], given: Mapping[str, Amount]) -> dict[str, int]:
    """Ceilings by component: what is given stands, the others share the rest by the profile's ratio."""
    fixed = {name: amount.of(total) for name, amount in given.items()}
    left = total - sum(fixed.values())
    if left < 0:
        raise PolicyInvalid(
            "spec.budget.components", f"ask for {sum(fixed.values())} bytes of a total of {total} bytes"
        )
    shared = split_by_ratio(left, {name: parts for name, parts in ratio.items() if name not in fixed})
    return {name: fixed[name] if name in fixed else shared[name] for name in dict.fromkeys((*ratio, *fixed))}


def split_by_ratio(whole: int, ratio: Mapping[str, int]) -> dict[str, int]:
    """Whole parts of `whole` that sum to it exactly: largest remainder method, ties by the ratio's order."""
    parts = sum(ratio.values())
    if parts == 0:
        return dict.fromkeys(ratio, 0)
    shares = {name: whole * part // parts for name, part in ratio.items()}
    by_remainder = sorted(ratio, key=lambda name: whole * ratio[name] % parts, reverse=True)
    for name in by_remainder[: whole - sum(shares.values())]:
        shares[name] += 1
    return shares
