"""What the types of a policy cannot say to the API server: rules across fields, kinds of lists, defaults.

Covers: CEL rules whose refusal a person understands, each placed at the field to change, and the text of every
default. The built-in figures come from `profiles`, none is repeated here. Does not build schemas (`crd_schema`).
The same contradictions are refused without an API server by `policy`, `compile` and `resolve`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from membudget_contract.compile import compile_policy
from membudget_contract.plan import CACHED_QUERIES_EACH, LOADED_FILES_EACH, EffectivePlan
from membudget_contract.policy import MemoryPolicy, PolicySpec, Priority, ProfileName
from membudget_contract.policy_resize import ENGINE_CONTAINER, ResizeMode
from membudget_contract.profiles import BUILT_IN_ALERTS, BUILT_IN_THRESHOLDS, PROFILES
from membudget_contract.quantities import MIB, format_bytes
from membudget_contract.resolve import resolve

Schema = dict[str, Any]

_RUNGS: Final = ("soft", "hard", "emergency")


def spec_additions() -> dict[str, Schema]:
    """By path below `spec`, what its schema has besides what the types say.

    `mode` is filled in by the API server so that `kubectl get` always shows it. What a profile or the ladder says is
    not: a filled-in value would count as the policy's own, and would stay when the author changes the profile.
    """
    return {
        "": {"required": ["selector"], "x-kubernetes-validations": [_components_fit(), _total_fits_the_limit()]},
        "mode": {"default": str(compile_policy(None).mode)},
        "selector": {"x-kubernetes-map-type": "atomic", "x-kubernetes-validations": [_selector_says_something()]},
        "selector.matchExpressions": {"x-kubernetes-list-type": "atomic"},
        "selector.matchExpressions[]": {"x-kubernetes-validations": [_operator_has_its_values()]},
        "selector.matchExpressions[].values": {"x-kubernetes-list-type": "atomic"},
        "budget.components": {"x-kubernetes-validations": [_percents_fit()]},
        "budget.baseLimit": {"x-kubernetes-validations": [_in_bytes("libraries do not shrink with a budget")]},
        "thresholds": {
            "x-kubernetes-validations": [*_releases_below_entries(), *_entries_rise(), *_higher_rungs_are_closer()]
        },
        **{
            f"thresholds.{name}.headroom": {"x-kubernetes-validations": [_in_bytes("it is a distance to the limit")]}
            for name in ("collect", *_RUNGS)
        },
        **{
            f"alerts.{path}": {"x-kubernetes-validations": [_in_bytes("growth has no whole")]}
            for path in ("growth.bytes", "leak.growth", "leak.perSecond", "leak.perHour")
        },
        "alerts.disabled": {"x-kubernetes-list-type": "atomic"},
        "collections": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        "eviction.excludeCollections": {"x-kubernetes-list-type": "atomic"},
        "spill.maxSize": {"x-kubernetes-validations": [_in_bytes("a folder has no budget")]},
        "resize": {"x-kubernetes-validations": [_shrinking_has_its_limit()]},
        "resize.limit": {"x-kubernetes-validations": [_in_bytes("it is what percents are of")]},
        "gc.thresholds": {"x-kubernetes-list-type": "atomic"},
    }


STATUS_ADDITIONS: Final[Mapping[str, Schema]] = {
    "conditions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
}


def default_texts() -> dict[str, str]:
    """By path below `spec`, what holds where the field is left out."""
    plans = {name: _plan_of(name) for name in ProfileName}
    texts = {path: _by_profile(plans, read) for path, read in _VALUES.items()}
    for name in ("collect", *_RUNGS):
        for field in msgspec.structs.fields(getattr(BUILT_IN_THRESHOLDS, name)):
            value = getattr(getattr(BUILT_IN_THRESHOLDS, name), field.name)
            if value is not None:
                texts[f"thresholds.{name}.{field.encode_name}"] = str(value)
    return (
        texts
        | _alert_texts()
        | {
            "precedence": "0",
            "rollout.maxPercent": "100, all pods at once",
            "rollout.pauseSeconds": "0",
            "reload.index": "none, nothing is asked for",
            "resize.mode": str(ResizeMode.OFF),
            "resize.limit": "none, required where mode is ShrinkFirst",
            "resize.container": ENGINE_CONTAINER,
            "profile": str(PolicySpec().profile),
            "collections[].priority": str(Priority.MEDIUM),
            "collections[].maxLoadedFiles": str(LOADED_FILES_EACH),
            "collections[].maxCachedQueries": str(CACHED_QUERIES_EACH),
        }
    )


_VALUES: Final[Mapping[str, Callable[[EffectivePlan], str]]] = {
    "mode": lambda plan: str(plan.mode),
    "budget.total": lambda plan: format_bytes(plan.total_bytes),
    "budget.signal": lambda plan: str(plan.signal),
    "budget.components": lambda plan: " ".join(
        f"{name}={round(amount / MIB)}Mi" for name, amount in plan.components.items()
    ),
    "budget.baseLimit": lambda plan: format_bytes(plan.base_limit_bytes),
    "index.memoryMapped": lambda plan: str(plan.index_mapped).lower(),
    "alerts.enabled": lambda plan: str(plan.alerts.enabled).lower(),
    "caches.maxLoadedFiles": lambda plan: str(plan.max_loaded_files),
    "caches.maxCachedQueries": lambda plan: str(plan.max_cached_queries),
    "caches.compression": lambda plan: str(plan.cache_compression).lower(),
    "spill.maxSize": lambda plan: format_bytes(plan.spill_max_bytes),
    "sampling.intervalSeconds": lambda plan: str(plan.sampling_interval_seconds),
    "gc.thresholds": lambda plan: msgspec.json.encode(plan.gc_thresholds).decode(),
}


def _alert_texts() -> dict[str, str]:
    rules = BUILT_IN_ALERTS
    amounts = {
        "growth.bytes": rules.growth_bytes,
        "leak.growth": rules.leak_growth_bytes,
        "leak.perSecond": rules.leak_bytes_per_second,
        "leak.perHour": rules.leak_bytes_per_hour,
    }
    numbers = {
        "usagePercent": rules.usage_percent,
        "growth.seconds": rules.growth_seconds,
        "secondsToLimit": rules.seconds_to_limit,
        "slowSpillSeconds": rules.slow_spill_seconds,
        "residentOverHeapPercent": rules.resident_over_heap_percent,
        "evictions.count": rules.evictions_count,
        "evictions.seconds": rules.evictions_seconds,
    }
    texts = {path: format_bytes(amount) for path, amount in amounts.items()}
    texts |= {path: str(number) for path, number in numbers.items()}
    return {f"alerts.{path}": text for path, text in (texts | {"usage": "14/15 of the total"}).items()}


def _plan_of(profile: ProfileName) -> EffectivePlan:
    policy = MemoryPolicy(name=profile.lower(), namespace=None, spec=PolicySpec(profile=profile))
    return resolve(compile_policy(policy), environment={}, limit=None)


def _by_profile(plans: Mapping[ProfileName, EffectivePlan], read: Callable[[EffectivePlan], str]) -> str:
    values = {name: read(plan) for name, plan in plans.items()}
    if len(set(values.values())) == 1:
        return values[ProfileName.PRODUCTION]
    return ", ".join(f"{value} ({name})" for name, value in values.items())


def _selector_says_something() -> Schema:
    return {
        "rule": "self.?matchLabels.orValue({}).size() + self.?matchExpressions.orValue([]).size() > 0",
        "message": "must name at least one label in matchLabels or one requirement in matchExpressions; "
        "an empty selector selects no pod",
    }


def _operator_has_its_values() -> Schema:
    return {
        "rule": "(self.operator in ['In', 'NotIn']) == (self.?values.orValue([]).size() > 0)",
        "fieldPath": ".values",
        "message": "operators In and NotIn need one value or more, Exists and DoesNotExist take none",
    }


def _components_fit() -> Schema:
    """Sums of doubles, exact below 2^53 bytes: CEL has no sum of quantities. Percents are not compared here.

    Written with `has` in place of optional values, of which the API server knows no length when it bounds the cost.
    """
    total = f"(has(self.budget.total) ? self.budget.total : {_profile_total()})"
    sum_of_bytes = (
        "self.budget.components.map(name, self.budget.components[name]).filter(amount, isQuantity(amount))"
        ".map(amount, quantity(amount).asApproximateFloat()).sum()"
    )
    return {
        "rule": f"!has(self.budget) || !has(self.budget.components) || !isQuantity({total}) "
        f"|| {sum_of_bytes} <= quantity({total}).asApproximateFloat()",
        "fieldPath": ".budget.components",
        "message": "components given in bytes must fit together into budget.total; where that is left out it is "
        + default_texts()["budget.total"],
    }


def _profile_total() -> str:
    """The profile's total as CEL; for a profile there is not, that of Production: its refusal comes from the enum."""
    others = [name for name in ProfileName if name is not ProfileName.PRODUCTION]
    choices = "".join(f"self.profile == '{name}' ? '{PROFILES[name].total}' : " for name in others)
    return f"({choices}'{PROFILES[ProfileName.PRODUCTION].total}')"


def _total_fits_the_limit() -> Schema:
    """A total in percent is one of the limit, and fits."""
    total = f"(has(self.budget) && has(self.budget.total) ? self.budget.total : {_profile_total()})"
    asked = (
        f"has(self.resize) && has(self.resize.limit) && has(self.resize.mode) && {_is_shrinking('self.resize.mode')}"
    )
    return {
        "rule": f"!({asked}) || !isQuantity({total}) || !isQuantity(self.resize.limit) "
        f"|| !quantity({total}).isGreaterThan(quantity(self.resize.limit))",
        "fieldPath": ".resize.limit",
        "message": "budget.total must fit into the limit; where it is left out it is "
        + default_texts()["budget.total"],
    }


def _shrinking_has_its_limit() -> Schema:
    return {
        "rule": f"!has(self.mode) || !{_is_shrinking('self.mode')} || has(self.limit)",
        "fieldPath": ".limit",
        "message": "resize.limit must be given where resize.mode is ShrinkFirst",
    }


def _is_shrinking(mode: str) -> str:
    return f"({mode} == '{ResizeMode.SHRINK_FIRST}')"


def _percents_fit() -> Schema:
    percents = "self.map(name, self[name]).filter(amount, amount.matches('^[0-9]{1,3}%$'))"
    return {
        "rule": f"{percents}.map(amount, int(amount.replace('%', ''))).sum() <= 100",
        "message": "components given in percent must together be at most 100%",
    }


def _in_bytes(why_no_percent: str) -> Schema:
    return {
        "rule": "!self.endsWith('%')",
        "message": f"must be bytes like 64Mi, not a percent: {why_no_percent}",
    }


def _built_in(rung: str, field: str) -> int:
    figures: dict[str, int] = msgspec.to_builtins(getattr(BUILT_IN_THRESHOLDS, rung))
    return figures[field]


def _value(rung: str, field: str) -> str:
    """The rung's value as CEL, the built-in one where the policy has none."""
    return f"self.?{rung}.?{field}.orValue({_built_in(rung, field)})"


def _releases_below_entries() -> list[Schema]:
    return [
        {
            "rule": f"{_value(rung, 'releasePercent')} < {_value(rung, 'percent')}",
            "fieldPath": f".{rung}.releasePercent",
            "message": f"{rung}.releasePercent must lie below {rung}.percent; where they are left out they are "
            f"{_built_in(rung, 'releasePercent')} and {_built_in(rung, 'percent')}",
        }
        for rung in _RUNGS
    ]


def _entries_rise() -> list[Schema]:
    return [
        {
            "rule": f"{_value(lower, 'percent')} < {_value(rung, 'percent')}",
            "fieldPath": f".{rung}.percent",
            "message": f"{rung}.percent must lie above {lower}.percent; where they are left out they are "
            f"{_built_in(rung, 'percent')} and {_built_in(lower, 'percent')}",
        }
        for lower, rung in itertools.pairwise(_RUNGS)
    ]


def _higher_rungs_are_closer() -> list[Schema]:
    """Of the distances to the limit, where two rungs have one; with `has`, since optional values have no known cost."""
    return [
        {
            "rule": f"!({_has(lower, field)} && {_has(rung, field)})"
            f" || {compare(f'self.{rung}.{field}', f'self.{lower}.{field}')}",
            "fieldPath": f".{rung}.{field}",
            "message": f"{rung}.{field} must be less than {lower}.{field}: a higher rung is closer to the limit",
        }
        for field, compare in (("headroom", _less_bytes), ("secondsToLimit", "{} < {}".format))
        for lower, rung in itertools.combinations(_RUNGS, 2)
    ]


def _has(rung: str, field: str) -> str:
    return f"has(self.{rung}) && has(self.{rung}.{field})"


def _less_bytes(amount: str, other: str) -> str:
    """What is no quantity is refused at its own field."""
    return f"!isQuantity({amount}) || !isQuantity({other}) || quantity({amount}).isLessThan(quantity({other}))"
