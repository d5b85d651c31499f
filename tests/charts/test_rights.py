"""What the chart lets whom do: the controller no more than was recorded, people what their role says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from charts.rendering import NAMESPACE, NAMESPACED, VALUE_SETS, Chart, Manifests

RECORDED = Path(__file__).parents[1] / "cluster" / "controller_rights.json"
CONTROLLER, KEYS = "membudget-controller", "membudget-controller-keys"
ACCOUNT = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE}
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass"}


def ordered(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the recorded ones are."""
    return sorted(rules, key=lambda rule: json.dumps(rule, sort_keys=True))


def bound(rendered: Manifests, kind: str, role: str, namespace: str | None) -> list[dict[str, Any]]:
    """To whom a role is bound."""
    (binding,) = [
        found
        for found in rendered.of(f"{kind}Binding")
        if found["metadata"].get("namespace") == namespace and found["roleRef"]["name"] == role
    ]
    assert {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role} == binding["roleRef"]
    return binding["subjects"]


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_nobody_may_do_everything_to_anything(chart: Chart, values: Any) -> None:
    """R-T05: no wildcard in any role, and a Secret only by its name."""
    roles = [role for role in chart.render(values).objects if role["kind"] in {"Role", "ClusterRole"}]
    rules = [rule for role in roles for rule in role["rules"]]
    assert rules
    assert [] == [rule for rule in rules for part in rule.values() if "*" in part]
    secrets = [rule for rule in rules if "secrets" in rule["resources"]]
    assert [[KEYS]] == [rule["resourceNames"] for rule in secrets]


def test_the_controller_may_do_what_an_api_server_was_seen_to_let_it_do(chart: Chart) -> None:
    """R-P08: the chart's roles are those of the recorded review, which the cluster tests hold against the real one."""
    recorded = json.loads(RECORDED.read_text())
    rendered = chart.render({})
    everywhere = rendered.one("ClusterRole", CONTROLLER)["rules"]
    own = rendered.one("Role", KEYS)
    assert recorded["any namespace"] == ordered(everywhere)
    assert recorded["own namespace"] == ordered(everywhere + own["rules"])
    assert NAMESPACE == own["metadata"]["namespace"]


def test_its_roles_are_bound_to_its_account_and_to_nobody_else(chart: Chart) -> None:
    """R-T05: the account that its pod runs as."""
    rendered = chart.render({})
    assert [[ACCOUNT], [ACCOUNT]] == [
        bound(rendered, "ClusterRole", CONTROLLER, None),
        bound(rendered, "Role", KEYS, NAMESPACE),
    ]
    spec = rendered.one("Deployment", CONTROLLER)["spec"]["template"]["spec"]
    assert rendered.has("ServiceAccount", spec["serviceAccountName"])
    assert CONTROLLER == spec["serviceAccountName"]


def test_an_install_for_single_namespaces_makes_nothing_for_the_whole_cluster(chart: Chart) -> None:
    """R-T05: the controller has no right outside of these; each namespace has a Role with the same rules."""
    rendered = chart.render(NAMESPACED)
    assert [] == [found["metadata"]["name"] for found in rendered.objects if found["kind"] in CLUSTER_SCOPED]
    roles = [role for role in rendered.of("Role") if role["metadata"]["name"] == CONTROLLER]
    assert ["search", "2nd-team"] == [role["metadata"]["namespace"] for role in roles]
    recorded = json.loads(RECORDED.read_text())["any namespace"]
    of_namespaces = [rule for rule in recorded if "customresourcedefinitions" not in rule["resources"]]
    assert [of_namespaces] * 2 == [ordered(role["rules"]) for role in roles]
    assert [[ACCOUNT]] * 2 == [bound(rendered, "Role", CONTROLLER, name) for name in ("search", "2nd-team")]


@pytest.mark.parametrize("namespaces", [[], ["search"]], ids=["everywhere", "one namespace"])
def test_pods_may_be_resized_only_where_the_values_say_so(chart: Chart, namespaces: list[str]) -> None:
    """R-P08: one more right, for the limit of a pod and nothing else of it."""
    roles: list[list[dict[str, Any]]] = []
    for resize in (False, True):
        rendered = chart.render({"controller": {"watchNamespaces": namespaces, "resizePods": resize}})
        kind = "Role" if namespaces else "ClusterRole"
        roles.append(rendered.one(kind, CONTROLLER)["rules"])
    assert [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}] == [
        rule for rule in roles[1] if rule not in roles[0]
    ]


def test_people_get_policies_with_the_roles_they_have(chart: Chart) -> None:
    """R-P01: who may view a namespace reads its policies, who may edit or administer it writes them."""
    rendered = chart.render({})
    group = "rbac.authorization.k8s.io/aggregate-to-"
    found = {
        role["metadata"]["name"]: (
            {label.removeprefix(group) for label in role["metadata"]["labels"] if label.startswith(group)},
            [(rule["apiGroups"], rule["resources"], set(rule["verbs"])) for rule in role["rules"]],
        )
        for role in rendered.of("ClusterRole")
        if role["metadata"]["name"] != CONTROLLER
    }
    what = (["membudget.dev"], ["memorypolicies"])
    assert {
        "membudget-view": ({"view"}, [(*what, {"get", "list", "watch"})]),
        "membudget-edit": ({"edit", "admin"}, [(*what, {"create", "update", "patch", "delete", "deletecollection"})]),
    } == found
    assert not chart.render(VALUE_SETS["least"]).has("ClusterRole", "membudget-view")
