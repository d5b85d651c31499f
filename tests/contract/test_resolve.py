"""From a plan to bytes: the last layers, percents of a live limit, splits that lose no byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.compile import compile_policy
from membudget_contract.errors import (
    BudgetBelowFloor,
    EnvironmentInvalid,
    LooserThanPlan,
    NoLimit,
    PolicyInvalid,
)
from membudget_contract.plan import EffectivePlan, Layer, Plan
from membudget_contract.policy import API_VERSION, KIND, Mode, Priority, Signal, parse_policy
from membudget_contract.quantities import MIB
from membudget_contract.resolve import NO_OVERRIDE, Override, check_floor, resolve, split_by_ratio

Document = dict[str, object]


def compiled(spec: Document) -> Plan:
    """The plan of a policy with this spec."""
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "retrieval"}, "spec": spec}
    return compile_policy(parse_policy(document))


def resolved(
    budget: Document, *, total: str | None = None, limit: int | None = None, override: Override = NO_OVERRIDE
) -> EffectivePlan:
    """The effective plan of a policy with this budget, and MEMBUDGET_TOTAL where one is given."""
    environment = {} if total is None else {"MEMBUDGET_TOTAL": total}
    return resolve(compiled({"budget": budget}), environment=environment, limit=limit, override=override)


def test_a_total_is_traced_through_every_layer() -> None:
    """R-P05: profile < policy < environment < configure."""
    tighter = Override(total_bytes=90 * MIB)
    found = [
        resolved({}),
        resolved({"total": "200Mi"}),
        resolved({"total": "200Mi"}, total="100Mi"),
        resolved({"total": "200Mi"}, total="100Mi", override=tighter),
    ]
    assert [(plan.total_bytes // MIB, plan.layers["budget.total"]) for plan in found] == [
        (150, Layer.PROFILE),
        (200, Layer.POLICY),
        (100, Layer.ENVIRONMENT),
        (90, Layer.CONFIGURE),
    ]


def test_a_collection_override_is_traced() -> None:
    """R-P05: the layer between policy and environment."""
    plan = resolve(compiled({"collections": [{"name": "a", "priority": "High"}]}), environment={}, limit=None)
    assert (plan.priority_of("a"), plan.layers["collections.a.priority"]) == (Priority.HIGH, Layer.COLLECTION)
    assert plan.priority_of("not named") == Priority.MEDIUM


def test_every_variable_refines_its_value() -> None:
    """R-P05: the environment of the sidecar's container is finer than the policy."""
    environment = {
        "MEMBUDGET_MODE": "Observe",
        "MEMBUDGET_SIGNAL": "ResidentSetSize",
        "MEMBUDGET_TOTAL": "64Mi",
        "MEMBUDGET_BASE_LIMIT": "90Mi",
        "MEMBUDGET_SAMPLING_INTERVAL_SECONDS": "3",
        "MEMBUDGET_UNKNOWN": "is not for the plan",
    }
    plan = resolve(compiled({"mode": "Enforce"}), environment=environment, limit=None)
    assert (plan.mode, plan.signal) == (Mode.OBSERVE, Signal.RESIDENT_SET_SIZE)
    assert (plan.total_bytes, plan.sampling_interval_seconds) == (64 * MIB, 3)
    assert plan.base_limit_bytes == 90 * MIB
    refined = {path for path, layer in plan.layers.items() if layer is Layer.ENVIRONMENT}
    assert refined == {"mode", "budget.signal", "budget.total", "budget.baseLimit", "sampling.intervalSeconds"}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MEMBUDGET_MODE", "off"),
        ("MEMBUDGET_MODE", ""),
        ("MEMBUDGET_SIGNAL", "rss"),
        ("MEMBUDGET_TOTAL", "1Zi"),
        ("MEMBUDGET_TOTAL", "101%"),
        ("MEMBUDGET_BASE_LIMIT", "75%"),
        ("MEMBUDGET_BASE_LIMIT", "1Zi"),
        ("MEMBUDGET_SAMPLING_INTERVAL_SECONDS", "0"),
        ("MEMBUDGET_SAMPLING_INTERVAL_SECONDS", "301"),
        ("MEMBUDGET_SAMPLING_INTERVAL_SECONDS", "1.5"),
        ("MEMBUDGET_SAMPLING_INTERVAL_SECONDS", "9" * 5000),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(variable: str, text: str) -> None:
    """R-P05: a typing error is no silent default."""
    with pytest.raises(EnvironmentInvalid, match=variable) as refused:
        resolve(compile_policy(None), environment={variable: text}, limit=None)
    assert refused.value.variable == variable


@pytest.mark.parametrize(("limit", "total"), [(400, 300), (1000, 750), (1001, 750)])
def test_a_percent_of_the_limit_follows_the_limit(limit: int, total: int) -> None:
    """R-P03: an in-place resize of the container changes the budget."""
    assert resolved({"total": "75%"}, limit=limit).total_bytes == total


def test_a_total_in_bytes_does_not_follow_the_limit() -> None:
    """R-P03: bytes are bytes, with a limit and without one."""
    assert resolved({"total": "150Mi"}, limit=100).total_bytes == resolved({"total": "150Mi"}).total_bytes


@pytest.mark.parametrize(("policy", "variable"), [("75%", None), ("150Mi", "75%")])
def test_a_percent_without_a_limit_is_refused(policy: str, variable: str | None) -> None:
    """R-P03: no limit is not an endless one."""
    with pytest.raises(NoLimit):
        resolved({"total": policy}, total=variable)


def test_given_components_stand_and_the_others_share_the_rest() -> None:
    """R-P02: bytes, percents and a component that the engine brings."""
    plan = resolved({"total": "150Mi", "components": {"index": "45Mi", "sqlite": "10%"}})
    assert {name: amount // MIB for name, amount in plan.components.items()} == {
        "index": 45,
        "semanticCache": 30,
        "historyCache": 22,
        "embeddingBuffer": 15,
        "working": 22,
        "sqlite": 15,
    }
    assert sum(plan.components.values()) == plan.total_bytes


def test_components_over_the_total_are_refused() -> None:
    """R-P02: with the bytes of both in the answer."""
    with pytest.raises(PolicyInvalid, match="157286401 bytes of a total of 157286400") as refused:
        resolved({"components": {"index": "75Mi", "working": "78643201"}})
    assert refused.value.field == "spec.budget.components"


def test_a_tighter_component_is_taken_and_traced() -> None:
    """R-P05: configure is the finest layer."""
    plan = resolved({}, override=Override(components={"semanticCache": 10 * MIB}))
    assert plan.components["semanticCache"] == 10 * MIB
    assert plan.layers["budget.components.semanticCache"] is Layer.CONFIGURE
    assert plan.layers["budget.components.index"] is Layer.PROFILE


@pytest.mark.parametrize(
    "override",
    [
        Override(total_bytes=150 * MIB + 1),
        Override(components={"index": 30 * MIB + 1}),
        Override(components={"sqlite": 1}),
        Override(total_bytes=75 * MIB, components={"index": 15 * MIB + 1}),
    ],
)
def test_a_looser_override_is_refused(override: Override) -> None:
    """R-P05: configure only tightens, also beside its own total."""
    with pytest.raises(LooserThanPlan):
        resolved({}, override=override)


def test_an_override_of_the_same_bytes_is_no_loosening() -> None:
    """R-P05: the plan's own figures may be asked for."""
    assert resolved({}, override=Override(total_bytes=150 * MIB)).total_bytes == 150 * MIB


@pytest.mark.parametrize(("soft", "floor", "advised"), [(80, 65, 84), (80, 78, 100), (60, 65, 113), (2, 1, 100)])
def test_a_total_below_the_floor_is_refused_with_one_that_can_be_lived_with(
    soft: int, floor: int, advised: int
) -> None:
    """R-P05: refused only below the floor itself; advised is what has it under the soft entry less the margin."""
    thresholds: Document = {"soft": {"percent": soft, "releasePercent": 1}}
    spec: Document = {"budget": {"total": f"{floor}Mi"}, "thresholds": thresholds}
    plan = resolve(compiled(spec), environment={}, limit=None)
    check_floor(plan, floor * MIB)
    with pytest.raises(BudgetBelowFloor, match=f"ask for at least {advised}Mi,"):
        check_floor(msgspec.structs.replace(plan, total_bytes=floor * MIB - 1), floor * MIB)


def test_the_split_gives_the_remainder_to_the_largest_fraction() -> None:
    """R-P02: ties go by the order of the profile."""
    assert split_by_ratio(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert split_by_ratio(10, {"a": 5, "b": 26, "c": 69}) == {"a": 0, "b": 3, "c": 7}
    assert split_by_ratio(10, {"a": 0}) == {"a": 0}
    assert split_by_ratio(10, {}) == {}


RATIOS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**6), min_size=1).filter(
    lambda ratio: sum(ratio.values()) > 0
)


@given(st.integers(0, 2**63 - 1), RATIOS)
def test_a_split_sums_to_the_whole_and_stays_within_a_byte_of_its_share(whole: int, ratio: dict[str, int]) -> None:
    """R-P02: no byte is lost, whatever the ratio."""
    shares = split_by_ratio(whole, ratio)
    assert sum(shares.values()) == whole
    parts = sum(ratio.values())
    assert all(-parts < shares[name] * parts - whole * part < parts for name, part in ratio.items())


@given(
    st.integers(1, 2**50),
    st.dictionaries(st.sampled_from(["index", "historyCache", "sqlite", "arena"]), st.integers(1, 60), max_size=3),
)
def test_components_sum_to_the_total_or_are_refused(total: int, percents: dict[str, int]) -> None:
    """R-P02: while one component is left to share, nothing is left over."""
    budget: Document = {"total": str(total), "components": {name: f"{percent}%" for name, percent in percents.items()}}
    try:
        plan = resolved(budget)
    except PolicyInvalid:
        assert sum(percents.values()) > 100
        return
    assert sum(plan.components.values()) == plan.total_bytes == total
