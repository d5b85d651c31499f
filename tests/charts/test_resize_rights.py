"""The right to resize pods: there only where values grant it, and then in the roles that the controller has anyway."""

from __future__ import annotations

from typing import Any

import pytest

from charts.rendering import Chart

RIGHT = {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}


def resizing_rules(chart: Chart, **controller: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every rule about pods/resize that is rendered, with the kind of its role."""
    rendered = chart.render({"controller": controller})
    roles = [*rendered.of("ClusterRole"), *rendered.of("Role")]
    return [
        (role["kind"], rule)
        for role in roles
        for rule in role["rules"]
        if "pods/resize" in rule.get("resources", ()) or "*" in rule.get("resources", ())
    ]


def test_no_installation_may_resize_pods_unless_it_is_told_to(chart: Chart) -> None:
    """Shrink first is opt-in: by default nobody has the right."""
    assert [] == resizing_rules(chart)


@pytest.mark.parametrize(("watched", "kinds"), [([], ["ClusterRole"]), (["search", "other"], ["Role", "Role"])])
def test_where_values_grant_it_it_is_the_subresource_alone(chart: Chart, watched: list[str], kinds: list[str]) -> None:
    """R-P08: patch, of nothing but resources; in single namespaces, in each of them and not beyond."""
    expected = [(kind, RIGHT) for kind in kinds]
    assert expected == resizing_rules(chart, resizePods=True, watchNamespaces=watched)
