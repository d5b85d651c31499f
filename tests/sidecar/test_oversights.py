"""What no parser can refuse is said all the same: names that nothing here answers to (R-S09)."""

from __future__ import annotations

import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import CollectionReport, ComponentReport, GcReport, Report
from membudget_contract.plan import CollectionPlan, EffectivePlan
from membudget_contract.policy import Priority
from membudget_contract.resolve import ENVIRONMENT_FIELDS, resolve
from membudget_sidecar.plans.oversights import COLLECTIONS_SECONDS, NAMED, Oversights

PLAN = resolve(compile_policy(None), environment={}, limit=None)
MINUTE = COLLECTIONS_SECONDS


def naming(
    *, components: tuple[str, ...] = (), collections: tuple[str, ...] = (), excluded: tuple[str, ...] = ()
) -> EffectivePlan:
    """A plan that names them."""
    return msgspec.structs.replace(
        PLAN,
        components=PLAN.components | dict.fromkeys(components, 1),
        collections=tuple(CollectionPlan(name=name, priority=Priority.LOW) for name in collections),
        exclude_collections=excluded,
    )


def reporting(*, components: tuple[str, ...] = (), collections: tuple[str, ...] = ()) -> Report:
    """An engine that has them."""
    return Report(
        pid=1,
        managed_bytes=0,
        room_bytes=None,
        plan_hash=None,
        refused=0,
        components=tuple(
            ComponentReport(
                name=name,
                owned_bytes=0,
                mapped_bytes=0,
                budget_bytes=None,
                entries=0,
                evictable_bytes=0,
                critical_bytes=0,
                spilled_bytes=0,
            )
            for name in components
        ),
        collections=tuple(
            CollectionReport(name=name, component="index", priority=Priority.LOW, owned_bytes=0, entries=0)
            for name in collections
        ),
        gc=GcReport(collections=0, collected=0),
    )


def test_the_built_in_plan_and_what_the_engine_registered_are_known() -> None:
    """R-P02: an engine without a history cache is no slip, nor is one with a store of its own."""
    oversights = Oversights({})
    oversights.look(naming(components=("sqlite",)), reporting(components=("index", "sqlite")), 0.0)
    assert () == oversights.warnings


def test_a_component_that_nobody_has_is_named_with_those_there_are() -> None:
    """R-S09: at once, and until the policy is mended."""
    oversights = Oversights({})
    report = reporting(components=("sqlite",))
    oversights.look(naming(components=("semanticCash",)), report, 0.0)
    (warning,) = oversights.warnings
    assert warning == (
        "spec.budget.components: the engine has no semanticCash; "
        "there are index, semanticCache, historyCache, embeddingBuffer, working, sqlite"
    )
    oversights.look(PLAN, report, 1.0)
    assert () == oversights.warnings


def test_without_a_report_nothing_is_said_of_the_engine() -> None:
    """Guarantee 4: what it has is unknown, not nothing; what was said before stays."""
    oversights = Oversights({})
    plan = naming(components=("semanticCash",))
    oversights.look(plan, None, 0.0)
    before = oversights.warnings
    oversights.look(plan, reporting(), 1.0)
    said = oversights.warnings
    oversights.look(plan, None, 2.0)
    assert ((), 1, said) == (before, len(said), oversights.warnings)


def test_collections_are_named_after_a_minute_if_nothing_of_them_was_seen() -> None:
    """R-S09: a collection is reported once it holds something, and known even when it was evicted."""
    oversights = Oversights({})
    plan = naming(collections=("seen", "arhcive", "default"), excluded=("seen", "pined"))
    seen: list[tuple[str, ...]] = []
    for now, report in (
        (10.0, reporting(collections=("seen",))),
        (9.9 + MINUTE, reporting()),
        (10 + MINUTE, reporting()),
    ):
        oversights.look(plan, report, now)
        seen.append(oversights.warnings)
    unseen = (
        "spec.collections: not seen so far: arhcive",
        "spec.eviction.excludeCollections: not seen so far: pined",
    )
    assert [(), (), unseen] == seen


def test_another_engine_has_a_minute_and_names_of_its_own() -> None:
    """Fault 54: what the one before served says nothing."""
    oversights = Oversights({})
    plan = naming(components=("sqlite",), collections=("seen",))
    oversights.look(plan, reporting(components=("sqlite",), collections=("seen",)), 0.0)
    oversights.forget_engine()
    oversights.look(plan, reporting(), MINUTE)
    (component,) = oversights.warnings
    oversights.look(plan, reporting(), 2 * MINUTE)
    assert "no sqlite" in component
    assert [component, "spec.collections: not seen so far: seen"] == list(oversights.warnings)


def test_a_warning_stays_short_whatever_a_policy_names() -> None:
    """R-S11: a thousand collections are a number."""
    oversights = Oversights({})
    plan = naming(collections=tuple(f"c{number}" for number in range(1000)))
    oversights.look(plan, reporting(), 0.0)
    oversights.look(plan, reporting(), MINUTE)
    (warning,) = oversights.warnings
    assert warning.endswith(f"c{NAMED - 1} and {1000 - NAMED} more")


@pytest.mark.parametrize("variable", [*ENVIRONMENT_FIELDS, "MEMBUDGET_POD_UID", "OTHER_TOTAL", "MEMBUDGETS"])
def test_variables_that_are_read_or_not_ours_are_no_slip(variable: str) -> None:
    """R-P05: of the plan, of the pod's identity, of others."""
    assert () == Oversights({variable: "x"}).warnings


def test_a_variable_that_nothing_reads_is_named_with_those_that_are() -> None:
    """R-P05: from the start, and beside whatever else is said; never its value."""
    oversights = Oversights({"MEMBUDGET_TOTALS": "secret", "MEMBUDGET_MODE": "Observe"})
    before = oversights.warnings
    oversights.look(naming(components=("semanticCash",)), reporting(), 0.0)
    oversights.forget_engine()
    assert (
        before
        == oversights.warnings
        == (f"the environment: nothing reads MEMBUDGET_TOTALS; a plan is refined by {', '.join(ENVIRONMENT_FIELDS)}",)
    )
