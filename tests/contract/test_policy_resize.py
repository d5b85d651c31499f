"""What a policy may ask of the memory limit of its pods (goal 1, R-P05)."""

from __future__ import annotations

from typing import Any

import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.errors import PolicyInvalid
from membudget_contract.plan import Plan
from membudget_contract.policy import API_VERSION, KIND, parse_policy


def compiled(**spec: Any) -> Plan:
    """As the controller and file mode read it."""
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec}
    return compile_policy(parse_policy(document))


def shrink_to(limit: str | None) -> dict[str, str]:
    """The part of the spec."""
    return {"mode": "ShrinkFirst"} | ({} if limit is None else {"limit": limit})


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"resize": shrink_to(None)}, "spec.resize.limit: is missing: ShrinkFirst needs the limit to go to"),
        ({"resize": shrink_to("75%")}, "spec.resize.limit: 75% must be bytes like 120Mi, not a percent"),
        ({"resize": {"limit": "75%"}}, "spec.resize.limit: 75% must be bytes like 120Mi, not a percent"),
        (
            {"budget": {"total": "121Mi"}, "resize": shrink_to("120Mi")},
            "spec.resize.limit: 120Mi is less than the budget of 121Mi, which must fit into it",
        ),
        ({"resize": shrink_to("149Mi")}, "spec.resize.limit: 149Mi is less than the budget of 150Mi"),
    ],
)
def test_a_limit_that_cannot_hold_is_refused_by_name(spec: dict[str, Any], told: str) -> None:
    """R-P05: with the profile's total where the policy has none."""
    with pytest.raises(PolicyInvalid) as refused:
        compiled(**spec)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"budget": {"total": "120Mi"}, "resize": shrink_to("120Mi")},
        {"budget": {"total": "100%"}, "resize": shrink_to("8Mi")},
        {"budget": {"total": "150Mi"}, "resize": {"limit": "120Mi"}},
        {"resize": {"mode": "Off"}},
    ],
)
def test_a_limit_that_holds_changes_nothing_of_the_plan(spec: dict[str, Any]) -> None:
    """Without a cluster it means nothing: only the controller makes bytes of a percent of it."""
    assert compiled(**{**spec, "resize": {}}) == compiled(**spec)
