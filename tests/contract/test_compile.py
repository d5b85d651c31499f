"""From a policy to a plan: which value holds, which layer it came from, and which thresholds contradict each other."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.compile import compile_policy
from membudget_contract.errors import PolicyInvalid
from membudget_contract.plan import AlertRules, CollectionPlan, Layer, Plan, plan_hash
from membudget_contract.policy import (
    API_VERSION,
    KIND,
    Mode,
    Priority,
    ProfileName,
    Signal,
    parse_policy,
)
from membudget_contract.policy_alerts import AlertName
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.quantities import MIB

Document = dict[str, object]


def compiled(spec: Document, namespace: str | None = "search") -> Plan:
    """The plan of a policy with this spec."""
    metadata = {"name": "retrieval", "namespace": namespace}
    return compile_policy(parse_policy({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}))


def refused_field(spec: Document) -> str:
    """The field that a refusal names."""
    with pytest.raises(PolicyInvalid) as refused:
        compiled(spec)
    return refused.value.field


def layers_but_profile(plan: Plan) -> dict[str, Layer]:
    """Every path that something refined."""
    return {path: layer for path, layer in plan.layers.items() if layer is not Layer.PROFILE}


EVERYTHING: Document = {
    "mode": "Observe",
    "profile": "Staging",
    "budget": {"total": "75%", "signal": "WorkingSet", "components": {"index": "30Mi", "sqlite": "5%"},
               "baseLimit": "120Mi"},
    "thresholds": {
        "collect": {"percent": 60, "cooldownSeconds": 30, "headroom": "128Mi", "secondsToLimit": 60},
        "soft": {"percent": 70, "releasePercent": 60, "action": "Spill", "freePercent": 6, "cooldownSeconds": 1,
                 "headroom": "64Mi", "secondsToLimit": 30},
        "hard": {"percent": 80, "releasePercent": 70, "action": "Evict", "freePercent": 7, "cooldownSeconds": 2,
                 "headroom": "32Mi", "secondsToLimit": 15},
        "emergency": {"percent": 90, "releasePercent": 80, "action": "Evict", "freePercent": 8, "cooldownSeconds": 3,
                      "headroom": "16Mi", "secondsToLimit": 5},
    },
    "collections": [{"name": "core-api", "priority": "High", "maxLoadedFiles": 500, "maxCachedQueries": 200},
                    {"name": "other"}],
    "eviction": {"excludeCollections": ["pinned"]},
    "index": {"memoryMapped": True},
    "reload": {"index": "build-7"},
    "caches": {"compression": False, "maxLoadedFiles": 900, "maxCachedQueries": 400},
    "spill": {"maxSize": "1Gi"},
    "sampling": {"intervalSeconds": 5},
    "gc": {"thresholds": [900, 11, 12]},
    "rollout": {"maxPercent": 25, "pauseSeconds": 30},
    "alerts": {"enabled": False, "disabled": ["SlowSpill"], "usagePercent": 90, "usage": "95%", "secondsToLimit": 60,
               "growth": {"bytes": "30Mi", "seconds": 40}, "slowSpillSeconds": 3, "residentOverHeapPercent": 300,
               "leak": {"growth": "1Mi", "perSecond": "2Ki", "perHour": "3Mi"},
               "evictions": {"count": 7, "seconds": 77}},
}  # fmt: skip


def test_without_a_policy_the_production_profile_holds() -> None:
    """R-P04: an opted-in pod that no policy selects is not without a budget."""
    plan = compile_policy(None)
    assert (plan.policy, plan.profile, plan.mode, plan.total) == (None, ProfileName.PRODUCTION, Mode.ENFORCE, "150Mi")
    assert plan.signal is Signal.UNRECLAIMABLE
    assert layers_but_profile(plan) == {}


def test_an_empty_policy_differs_from_none_only_in_its_name() -> None:
    """R-P05: profile < policy, and an empty policy refines nothing."""
    plan, none = compiled({}), compile_policy(None)
    assert (plan.policy, plan.layers) == ("search/retrieval", none.layers)
    assert (plan.thresholds, plan.split, plan.given) == (none.thresholds, none.split, none.given)


def test_a_policy_from_a_file_has_no_namespace() -> None:
    """R-P05: its effects are traced to the name alone."""
    assert compiled({}, namespace=None).policy == "retrieval"


def test_every_field_of_a_policy_reaches_the_plan() -> None:
    """R-P05: nothing that may be written is ignored."""
    plan = compiled(EVERYTHING)
    assert (plan.mode, plan.profile, plan.signal, plan.total) == (Mode.OBSERVE, "Staging", "WorkingSet", "75%")
    assert plan.given == {"index": "30Mi", "sqlite": "5%"}
    soft, hard, emergency = plan.thresholds.soft, plan.thresholds.hard, plan.thresholds.emergency
    assert (plan.thresholds.collect.percent, plan.thresholds.collect.cooldown_seconds) == (60, 30)
    assert [rung.percent for rung in (soft, hard, emergency)] == [70, 80, 90]
    assert [rung.release_percent for rung in (soft, hard, emergency)] == [60, 70, 80]
    assert [rung.action for rung in (soft, hard, emergency)] == [RungAction.SPILL, RungAction.EVICT, RungAction.EVICT]
    assert [rung.free_percent for rung in (soft, hard, emergency)] == [6, 7, 8]
    assert [rung.cooldown_seconds for rung in (soft, hard, emergency)] == [1, 2, 3]
    assert plan.collections == (
        CollectionPlan(name="core-api", priority=Priority.HIGH, max_loaded_files=500, max_cached_queries=200),
        CollectionPlan(name="other", priority=Priority.MEDIUM, max_loaded_files=100, max_cached_queries=50),
    )
    assert (plan.exclude_collections, plan.cache_compression) == (("pinned",), False)
    assert (plan.max_loaded_files, plan.max_cached_queries) == (900, 400)
    assert (plan.spill_max_bytes, plan.sampling_interval_seconds) == (2**30, 5)
    assert plan.base_limit_bytes == 120 * MIB
    assert plan.gc_thresholds == (900, 11, 12)
    assert plan.index_mapped
    assert plan.reload_index == "build-7"
    rules = (plan.thresholds.collect, soft, hard, emergency)
    assert [rule.headroom_bytes for rule in rules] == [128 * MIB, 64 * MIB, 32 * MIB, 16 * MIB]
    assert [rule.seconds_to_limit for rule in rules] == [60, 30, 15, 5]
    assert plan.alerts == AlertRules(
        enabled=False,
        disabled=(AlertName.SLOW_SPILL,),
        usage_percent=90,
        usage="95%",
        growth_bytes=30 * MIB,
        growth_seconds=40,
        leak_growth_bytes=MIB,
        leak_bytes_per_second=2048,
        leak_bytes_per_hour=3 * MIB,
        seconds_to_limit=60,
        slow_spill_seconds=3,
        resident_over_heap_percent=300,
        evictions_count=7,
        evictions_seconds=77,
    )


def test_every_value_of_a_full_policy_is_traced_to_it() -> None:
    """R-P05: what the policy names is its own, the rest stays the profile's."""
    layers = compiled(EVERYTHING).layers
    assert {path for path, layer in layers.items() if layer is Layer.PROFILE} == {
        "budget.components.semanticCache",
        "budget.components.historyCache",
        "budget.components.embeddingBuffer",
        "budget.components.working",
        "collections.other.priority",
        "collections.other.maxLoadedFiles",
        "collections.other.maxCachedQueries",
    }
    own = ("priority", "maxLoadedFiles", "maxCachedQueries")
    assert {layers[f"collections.core-api.{field}"] for field in own} == {Layer.COLLECTION}


@pytest.mark.parametrize(
    ("spec", "refined"),
    [
        ({"budget": {"total": "200Mi"}}, "budget.total"),
        ({"budget": {"components": {"index": "30Mi"}}}, "budget.components.index"),
        ({"thresholds": {"soft": {"cooldownSeconds": 10}}}, "thresholds.soft.cooldownSeconds"),
        ({"caches": {"compression": True}}, "caches.compression"),
        ({"mode": "Enforce"}, "mode"),
    ],
)
def test_a_written_value_is_the_policys_even_when_the_profile_says_the_same(spec: Document, refined: str) -> None:
    """R-P05: the next version's profile must not change it silently."""
    assert layers_but_profile(compiled(spec)) == {refined: Layer.POLICY}


def test_an_empty_list_of_exclusions_is_a_value() -> None:
    """R-P07: it is not the same as saying nothing."""
    plan = compiled({"eviction": {"excludeCollections": []}})
    assert layers_but_profile(plan) == {"eviction.excludeCollections": Layer.POLICY}


def test_a_collection_without_a_priority_is_medium() -> None:
    """R-P07: so is a collection that no policy names."""
    plan = compiled({"collections": [{"name": "a"}, {"name": "b", "priority": "Critical"}]})
    assert [(collection.name, collection.priority) for collection in plan.collections] == [
        ("a", Priority.MEDIUM),
        ("b", Priority.CRITICAL),
    ]


@pytest.mark.parametrize(
    ("thresholds", "field"),
    [
        ({"soft": {"percent": 95}}, "hard.percent"),
        ({"soft": {"percent": 93}}, "hard.percent"),
        ({"hard": {"percent": 98}}, "emergency.percent"),
        ({"hard": {"percent": 80, "releasePercent": 70}}, "hard.percent"),
        ({"emergency": {"percent": 90, "releasePercent": 80}}, "emergency.percent"),
    ],
)
def test_thresholds_in_the_wrong_order_are_refused(thresholds: Document, field: str) -> None:
    """R-P06: entries rise from soft to emergency, also against the built-in ones."""
    assert refused_field({"thresholds": thresholds}) == f"spec.thresholds.{field}"


@pytest.mark.parametrize("rung", ["soft", "hard", "emergency"])
@pytest.mark.parametrize("release", [98, 100])
def test_a_release_at_or_above_its_entry_is_refused(rung: str, release: int) -> None:
    """R-P06: without a margin the ladder would swing."""
    assert (
        refused_field({"thresholds": {rung: {"releasePercent": release}}}) == f"spec.thresholds.{rung}.releasePercent"
    )


def test_a_spill_bound_in_percent_is_refused() -> None:
    """R-P05: a folder has no budget that a percent could be of."""
    assert refused_field({"spill": {"maxSize": "75%"}}) == "spec.spill.maxSize"


PERCENTS = st.integers(1, 100)
RUNGS = st.fixed_dictionaries({}, optional={"percent": PERCENTS, "releasePercent": PERCENTS})


def test_a_higher_rung_is_entered_closer_to_the_limit() -> None:
    """R-P06: distances to the live limit fall from soft to emergency, also past a rung that has none."""
    further = {"soft": {"headroom": "32Mi"}, "emergency": {"headroom": "32Mi"}}
    assert refused_field({"thresholds": further}) == "spec.thresholds.emergency.headroom"
    later = {"soft": {"secondsToLimit": 5}, "hard": {"secondsToLimit": 6}}
    assert refused_field({"thresholds": later}) == "spec.thresholds.hard.secondsToLimit"
    compiled({"thresholds": {"soft": {"headroom": "32Mi"}, "hard": {"headroom": "31Mi", "secondsToLimit": 5}}})


@pytest.mark.parametrize(
    "path", ["spill.maxSize", "thresholds.soft.headroom", "alerts.growth.bytes", "alerts.leak.perHour"]
)
def test_what_has_no_whole_is_given_in_bytes(path: str) -> None:
    """R-P06: a percent of nothing in particular is refused by name."""
    spec: object = "5%"
    for name in reversed(path.split(".")):
        spec = {name: spec}
    assert refused_field(cast("Document", spec)) == f"spec.{path}"


@given(st.fixed_dictionaries({}, optional={"soft": RUNGS, "hard": RUNGS, "emergency": RUNGS}))
def test_a_plan_never_holds_thresholds_that_contradict_each_other(thresholds: Document) -> None:
    """R-P06: whatever is written, it is refused or it rises with a margin below each entry."""
    try:
        plan = compiled({"thresholds": thresholds})
    except PolicyInvalid:
        return
    soft, hard, emergency = plan.thresholds.soft, plan.thresholds.hard, plan.thresholds.emergency
    assert soft.percent < hard.percent < emergency.percent
    assert all(rung.release_percent < rung.percent for rung in (soft, hard, emergency))


def test_the_hash_of_a_plan_follows_its_values_alone() -> None:
    """R-P08: an acknowledgement names the plan, not one encoding of it."""
    assert plan_hash(compiled(EVERYTHING)) == plan_hash(compiled(dict(reversed(EVERYTHING.items()))))
    assert plan_hash(compiled(EVERYTHING)) != plan_hash(compiled(EVERYTHING | {"mode": "Enforce"}))
