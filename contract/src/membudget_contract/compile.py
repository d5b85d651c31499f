"""From a policy to a plan: profile < policy < collection override (R-P05).

Covers: merging with the layer of every value, and the order of thresholds. Does not cover what only the pod
knows, the live limit and the environment: that is `resolve`. Pure; the controller runs it, file mode too.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

import msgspec

from membudget_contract.errors import PolicyInvalid
from membudget_contract.plan import (
    BASE_LIMIT_BYTES,
    CACHED_QUERIES,
    CACHED_QUERIES_EACH,
    LOADED_FILES,
    LOADED_FILES_EACH,
    AlertRules,
    CollectionPlan,
    CollectRule,
    Layer,
    Plan,
    Rung,
    Thresholds,
)
from membudget_contract.policy import MemoryPolicy, Mode, PolicySpec, Priority, Signal
from membudget_contract.policy_alerts import AlertsPolicy
from membudget_contract.policy_resize import check_resize
from membudget_contract.policy_thresholds import CollectPolicy, RungPolicy
from membudget_contract.profiles import (
    BUILT_IN_ALERTS,
    BUILT_IN_THRESHOLDS,
    PROFILES,
    SAMPLING_INTERVAL_SECONDS,
    SPILL_MAX_BYTES,
)
from membudget_contract.quantities import Amount

Value = TypeVar("Value")
Rule = TypeVar("Rule", CollectRule, Rung)


def compile_policy(policy: MemoryPolicy | None) -> Plan:
    """The plan of a policy; without one, the built-in Production profile.

    Raises:
        PolicyInvalid: the values contradict each other, as thresholds that do not rise.
    """
    spec = policy.spec if policy else PolicySpec()
    profile = PROFILES[spec.profile]
    merge = _Merge()
    given = spec.budget.components or {}
    plan = Plan(
        policy=_full_name(policy) if policy else None,
        profile=spec.profile,
        mode=merge("mode", Mode.ENFORCE, spec.mode),
        signal=merge("budget.signal", Signal.UNRECLAIMABLE, spec.budget.signal),
        total=str(merge("budget.total", Amount(profile.total), spec.budget.total)),
        split=profile.split,
        given={name: str(amount) for name, amount in given.items()},
        thresholds=_thresholds(merge, spec),
        collections=_collections(merge, spec),
        exclude_collections=merge("eviction.excludeCollections", (), spec.eviction.exclude_collections),
        spill_max_bytes=merge(
            "spill.maxSize",
            SPILL_MAX_BYTES,
            _byte_count("spill.maxSize", spec.spill.max_size, "a folder has no budget"),
        ),
        sampling_interval_seconds=merge(
            "sampling.intervalSeconds", SAMPLING_INTERVAL_SECONDS, spec.sampling.interval_seconds
        ),
        gc_thresholds=merge("gc.thresholds", profile.gc_thresholds, spec.gc.thresholds),
        max_loaded_files=merge("caches.maxLoadedFiles", LOADED_FILES, spec.caches.max_loaded_files),
        max_cached_queries=merge("caches.maxCachedQueries", CACHED_QUERIES, spec.caches.max_cached_queries),
        cache_compression=merge("caches.compression", profile.cache_compression, spec.caches.compression),
        index_mapped=merge("index.memoryMapped", profile.index_mapped, spec.index.memory_mapped),
        reload_index=merge("reload.index", None, spec.reload.index),
        base_limit_bytes=merge(
            "budget.baseLimit",
            BASE_LIMIT_BYTES,
            _byte_count("budget.baseLimit", spec.budget.base_limit, "libraries do not shrink with a budget"),
        ),
        alerts=_alerts(merge, spec.alerts, monitoring=profile.monitoring),
        layers=merge.layers,
    )
    for name in (*profile.split, *given):
        merge.layers[f"budget.components.{name}"] = Layer.POLICY if name in given else Layer.PROFILE
    _check_order(plan.thresholds)
    check_resize(spec.resize, Amount(plan.total))
    return plan


class _Merge:
    """Picks the policy's value where it has one, and remembers the layer."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}

    def __call__(self, path: str, base: Value, refined: Value | None) -> Value:
        self.layers[path] = Layer.PROFILE if refined is None else Layer.POLICY
        return base if refined is None else refined


class _CollectionMerge:
    """As `_Merge`, for the overrides of one collection."""

    def __init__(self, layers: dict[str, Layer], name: str) -> None:
        self._layers = layers
        self._name = name

    def __call__(self, field: str, base: Value, refined: Value | None) -> Value:
        self._layers[f"collections.{self._name}.{field}"] = Layer.PROFILE if refined is None else Layer.COLLECTION
        return base if refined is None else refined


def _full_name(policy: MemoryPolicy) -> str:
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name


def _thresholds(merge: _Merge, spec: PolicySpec) -> Thresholds:
    asked, base = spec.thresholds, BUILT_IN_THRESHOLDS
    return Thresholds(
        collect=_refined(merge, "thresholds.collect", base.collect, asked.collect),
        soft=_refined(merge, "thresholds.soft", base.soft, asked.soft),
        hard=_refined(merge, "thresholds.hard", base.hard, asked.hard),
        emergency=_refined(merge, "thresholds.emergency", base.emergency, asked.emergency),
    )


def _refined(merge: _Merge, path: str, base: Rule, asked: CollectPolicy | RungPolicy) -> Rule:
    """The built-in rule with the fields that the policy names in place of its own."""
    values = {
        field.name: merge(f"{path}.{field.encode_name}", getattr(base, field.name), getattr(asked, field.name))
        for field in msgspec.structs.fields(base)
        if field.name != "headroom_bytes"
    }
    headroom = _byte_count(f"{path}.headroom", asked.headroom, "it is a distance to the container's limit")
    return type(base)(**values, headroom_bytes=merge(f"{path}.headroom", base.headroom_bytes, headroom))


def _alerts(merge: _Merge, asked: AlertsPolicy, *, monitoring: bool) -> AlertRules:
    base = BUILT_IN_ALERTS

    def figure(path: str, built_in: Value, refined: Value | None) -> Value:
        return merge(f"alerts.{path}", built_in, refined)

    def amount(path: str, built_in: int, refined: Amount | None) -> int:
        return figure(path, built_in, _byte_count(f"alerts.{path}", refined, "growth has no whole"))

    return AlertRules(
        enabled=figure("enabled", monitoring, asked.enabled),
        disabled=figure("disabled", base.disabled, asked.disabled),
        usage_percent=figure("usagePercent", base.usage_percent, asked.usage_percent),
        usage=figure("usage", base.usage, str(asked.usage) if asked.usage else None),
        growth_bytes=amount("growth.bytes", base.growth_bytes, asked.growth.bytes),
        growth_seconds=figure("growth.seconds", base.growth_seconds, asked.growth.seconds),
        leak_growth_bytes=amount("leak.growth", base.leak_growth_bytes, asked.leak.growth),
        leak_bytes_per_second=amount("leak.perSecond", base.leak_bytes_per_second, asked.leak.per_second),
        leak_bytes_per_hour=amount("leak.perHour", base.leak_bytes_per_hour, asked.leak.per_hour),
        seconds_to_limit=figure("secondsToLimit", base.seconds_to_limit, asked.seconds_to_limit),
        slow_spill_seconds=figure("slowSpillSeconds", base.slow_spill_seconds, asked.slow_spill_seconds),
        resident_over_heap_percent=figure(
            "residentOverHeapPercent", base.resident_over_heap_percent, asked.resident_over_heap_percent
        ),
        evictions_count=figure("evictions.count", base.evictions_count, asked.evictions.count),
        evictions_seconds=figure("evictions.seconds", base.evictions_seconds, asked.evictions.seconds),
    )


def _collections(merge: _Merge, spec: PolicySpec) -> tuple[CollectionPlan, ...]:
    planned: list[CollectionPlan] = []
    for collection in spec.collections:
        given = _CollectionMerge(merge.layers, collection.name)
        planned.append(
            CollectionPlan(
                name=collection.name,
                priority=given("priority", Priority.MEDIUM, collection.priority),
                max_loaded_files=given("maxLoadedFiles", LOADED_FILES_EACH, collection.max_loaded_files),
                max_cached_queries=given("maxCachedQueries", CACHED_QUERIES_EACH, collection.max_cached_queries),
            )
        )
    return tuple(planned)


def _byte_count(path: str, asked: Amount | None, why_no_percent: str) -> int | None:
    if asked is not None and asked.byte_count is None:
        raise PolicyInvalid(f"spec.{path}", f"{asked} must be bytes like 64Mi, not a percent: {why_no_percent}")
    return asked.byte_count if asked else None


def _check_order(thresholds: Thresholds) -> None:
    """Entries rise from rung to rung, and each rung is left below its entry: without it the ladder would swing.

    So do the distances to the limit: a higher rung is entered closer to it.
    """
    rungs = (("soft", thresholds.soft), ("hard", thresholds.hard), ("emergency", thresholds.emergency))
    for name, rung in rungs:
        if rung.release_percent >= rung.percent:
            raise PolicyInvalid(
                f"spec.thresholds.{name}.releasePercent",
                f"{rung.release_percent} must lie below the entry of {rung.percent} percent",
            )
    for (lower_name, lower), (name, rung) in itertools.pairwise(rungs):
        if rung.percent <= lower.percent:
            raise PolicyInvalid(
                f"spec.thresholds.{name}.percent",
                f"{rung.percent} must lie above {lower_name}.percent, which is {lower.percent}",
            )
    for (lower_name, lower), (name, rung) in itertools.combinations(rungs, 2):
        _check_closer(f"spec.thresholds.{name}.headroom", rung.headroom_bytes, lower_name, lower.headroom_bytes)
        _check_closer(
            f"spec.thresholds.{name}.secondsToLimit", rung.seconds_to_limit, lower_name, lower.seconds_to_limit
        )


def _check_closer(field: str, distance: int | None, lower_name: str, lower: int | None) -> None:
    if distance is not None and lower is not None and distance >= lower:
        raise PolicyInvalid(field, f"{distance} must be less than the {lower} of {lower_name}, a higher rung is closer")
