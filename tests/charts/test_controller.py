"""The controller's deployment, its budget for disruptions and its NetworkPolicy, as rendered."""

from __future__ import annotations

from typing import Any

import pytest

from charts import security
from charts.programs import read
from charts.rendering import FILES, NAMESPACED, VALUE_SETS, Chart
from membudget_controller.handlers import EXIT_SECONDS

NAME = "membudget-controller"
PORT = read("controller", []).port
SELECTOR = {
    "app.kubernetes.io/name": "membudget",
    "app.kubernetes.io/instance": "kept",
    "app.kubernetes.io/component": "controller",
}


def deployment(chart: Chart, values: Any = None) -> dict[str, Any]:
    """Its spec."""
    return chart.render(values or {}).one("Deployment", NAME)["spec"]


def pod(chart: Chart, values: Any = None) -> dict[str, Any]:
    """Its pod's spec."""
    return deployment(chart, values)["template"]["spec"]


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_its_pod_is_restricted_whatever_the_values(chart: Chart, values: Any) -> None:
    """R-T06: non-root, no capability, a read-only root; exactly this, nothing beside it."""
    spec = pod(chart, values)
    (container,) = security.containers(spec)
    assert (security.POD, security.CONTAINER, []) == (
        spec["securityContext"],
        container["securityContext"],
        security.opened(spec),
    )


def test_there_is_one_and_never_two(chart: Chart) -> None:
    """R-P08: orders are numbered by one hand, so the old one ends before the new one begins."""
    spec = deployment(chart)
    assert (1, {"type": "Recreate"}) == (spec["replicas"], spec["strategy"])


def test_it_ends_by_itself_before_the_kubelet_kills_it(chart: Chart) -> None:
    """R-T05: the grace period is longer than the controller's own last resort."""
    assert EXIT_SECONDS < pod(chart)["terminationGracePeriodSeconds"] == 10


def test_its_probes_ask_what_it_answers(chart: Chart) -> None:
    """R-T05: 2 minutes to begin, alive every 20 s and slow for up to 5, ready every 5 s."""
    (container,) = pod(chart)["containers"]
    assert [{"name": "metrics", "containerPort": PORT}] == container["ports"]
    alive, ready = ({"path": path, "port": "metrics"} for path in ("/healthz", "/readyz"))
    assert {
        "startupProbe": {"httpGet": alive, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 20, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5},
    } == {name: part for name, part in container.items() if name.endswith("Probe")}


def test_it_writes_to_a_small_folder_only_and_knows_its_namespace(chart: Chart) -> None:
    """R-T06: what a read-only root leaves it."""
    spec = pod(chart)
    (container,) = spec["containers"]
    assert [{"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}] == spec["volumes"]
    assert [{"name": "tmp", "mountPath": "/tmp"}] == container["volumeMounts"]
    own = {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    assert [own] == container["env"]


def test_it_follows_the_namespaces_of_the_values(chart: Chart) -> None:
    """R-T05: as arguments that the program takes; without any it follows all."""
    (container,) = pod(chart, NAMESPACED)["containers"]
    assert ["search", "2nd-team"] == read("controller", container["args"]).watch
    assert "args" not in pod(chart)["containers"][0]


def test_its_image_is_of_the_charts_version_unless_said_otherwise(chart: Chart) -> None:
    """R-T05: registry, tag, pull policy and credentials are the values'."""
    plain, chosen = pod(chart), pod(chart, VALUE_SETS["everything"])
    assert "membudget-controller:0.1.0" == plain["containers"][0]["image"]
    assert "registry.example.com:5000/team/membudget-controller:1.2.3" == chosen["containers"][0]["image"]
    pulls = [(spec["containers"][0]["imagePullPolicy"], spec.get("imagePullSecrets")) for spec in (plain, chosen)]
    assert [("IfNotPresent", None), ("Always", [{"name": "credentials"}])] == pulls


def test_its_resources_are_the_values(chart: Chart) -> None:
    """R-T05: what is said is added to the default."""
    requests, limits = {"cpu": "50m", "memory": "96Mi"}, {"memory": "256Mi"}
    assert {"requests": requests, "limits": limits} == pod(chart)["containers"][0]["resources"]
    chosen = pod(chart, VALUE_SETS["everything"])["containers"][0]["resources"]
    assert {"requests": requests, "limits": {"cpu": 1, **limits}} == chosen


@pytest.mark.parametrize("field", ["nodeSelector", "tolerations", "affinity", "priorityClassName"])
def test_it_is_placed_as_the_values_say(chart: Chart, field: str) -> None:
    """R-T05: word for word, and not at all where nothing is said."""
    chosen: Any = VALUE_SETS["everything"]["controller"]
    assert (chosen[field], None) == (pod(chart, VALUE_SETS["everything"])[field], pod(chart).get(field))


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_what_selects_its_pod_finds_it_whatever_labels_are_added(chart: Chart, values: Any) -> None:
    """R-T05: deployment, disruption budget and NetworkPolicy by the same labels, which no value can change."""
    rendered = chart.render(values)
    spec = rendered.one("Deployment", NAME)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert (SELECTOR, {}) == (spec["selector"]["matchLabels"], dict(SELECTOR.items() - labels.items()))
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert all(
            {"matchLabels": SELECTOR} == found["spec"][field]
            for found in rendered.of(kind)
            if found["metadata"]["name"] == NAME
        )


def test_added_labels_and_annotations_are_on_its_pod(chart: Chart) -> None:
    """R-T05: a mesh or a billing system asks for them."""
    metadata = deployment(chart, VALUE_SETS["everything"])["template"]["metadata"]
    assert ("search", {"example.com/note": "yes"}) == (metadata["labels"]["team"], metadata["annotations"])


def test_its_disruption_budget_never_blocks_a_drain(chart: Chart) -> None:
    """R-T05: with one replica, `minAvailable: 1` would keep a node from being emptied."""
    assert 1 == chart.render({}).one("PodDisruptionBudget", NAME)["spec"]["maxUnavailable"]
    assert not chart.render(VALUE_SETS["least"]).of("PodDisruptionBudget")


def test_nothing_else_reaches_it_and_it_reaches_nothing_else(chart: Chart) -> None:
    """R-S10, R-T05: in: its one port. Out: sidecars, the API server, names."""
    spec = chart.render({}).one("NetworkPolicy", NAME)["spec"]
    assert ["Ingress", "Egress"] == spec["policyTypes"]
    assert [{"ports": [{"port": PORT, "protocol": "TCP"}]}] == spec["ingress"]
    out = {(port["port"], port["protocol"]) for rule in spec["egress"] for port in rule["ports"]}
    assert {(9465, "TCP"), (443, "TCP"), (6443, "TCP"), (53, "UDP"), (53, "TCP")} == out
    assert not chart.render(VALUE_SETS["least"]).of("NetworkPolicy")


def test_who_may_scrape_it_is_the_values(chart: Chart) -> None:
    """R-T05: as written."""
    spec = chart.render(VALUE_SETS["everything"]).one("NetworkPolicy", NAME)["spec"]
    assert [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}] == spec["ingress"][0]["from"]


def test_the_files_of_the_chart_are_all_used() -> None:
    """A file that no template reads is left over."""
    templates = "".join(path.read_text() for path in (FILES.parent / "templates").iterdir())
    names = [path.name for path in FILES.iterdir()]
    assert [] == [name for name in names if f"files/{name}" not in templates]
