"""Monitors, rules and dashboards: what the Prometheus operator and Grafana's sidecar find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.rendering import CHART, FILES, MONITORED, NAMESPACE, NAMESPACED, Chart, Values
from charts.tools import Tools

SHIPPED = {".json", ".md", ".tpl", ".txt", ".yaml"}
ON: Values = {"observability": MONITORED, "example": {"enabled": True}}
RULES = {"groups": [{"name": "g", "rules": [
    {"alert": "A", "expr": "up == 0", "annotations": {
        "description": "{{ $value | humanize }} of {{ $labels.pod }}",
        "runbook_url": "https://membudget.dev/runbooks/A"}}]}]}  # fmt: skip
DASHBOARD = {"title": "Fleet", "panels": [{"targets": [{"legendFormat": "{{pod}}"}]}]}


@pytest.fixture
def copied(tools: Tools, tmp_path: Path) -> tuple[Chart, Path]:
    """A chart of the test's own, without rules and dashboards, and its folder."""
    folder = tmp_path / "membudget"
    shutil.copytree(CHART, folder, ignore=shutil.ignore_patterns("rules", "dashboards"))
    return Chart(tools.helm, folder), folder / "files"


def monitored(chart: Chart, values: Values) -> dict[str, dict[str, Any]]:
    """PodMonitor -> its spec."""
    return {found["metadata"]["name"]: found["spec"] for found in chart.render(values).of("PodMonitor")}


def test_nothing_of_it_is_there_unless_asked_for(chart: Chart) -> None:
    """R-T05: the kinds are of an operator that a cluster may not have."""
    rendered = chart.render({})
    assert [] == rendered.of("PodMonitor") + rendered.of("PrometheusRule") + rendered.of("ConfigMap")


def test_every_port_that_is_scraped_is_one_that_a_pod_has(chart: Chart) -> None:
    """R-S10, R-T05: by the names of the ports in our own pods."""
    rendered = chart.render(ON)
    ports = {
        port["name"]
        for deployment in rendered.of("Deployment")
        for part in ("initContainers", "containers")
        for container in deployment["spec"]["template"]["spec"].get(part, [])
        for port in container.get("ports", [])
    }
    endpoints = {name: spec["podMetricsEndpoints"] for name, spec in monitored(chart, ON).items()}
    assert {"membudget-sidecar": "membudget", "membudget-engine": "http", "membudget-controller": "metrics"} == {
        name: found[0]["port"] for name, found in endpoints.items()
    }
    assert ({"membudget", "http", "metrics"}, {("/metrics", "15s")}) == (
        ports,
        {(found[0]["path"], found[0]["interval"]) for found in endpoints.values()},
    )


def test_pods_are_scraped_where_they_are_followed(chart: Chart) -> None:
    """R-T05: in all namespaces, or in those that the controller watches; the controller in its own."""
    everywhere = monitored(chart, ON)
    single = monitored(chart, {**NAMESPACED, "observability": {"podMonitor": {"enabled": True}}})
    for name in ("membudget-sidecar", "membudget-engine"):
        assert {"matchLabels": {"membudget.dev/managed": "true"}} == everywhere[name]["selector"]
        assert ({"any": True}, {"matchNames": ["search", "2nd-team"]}) == (
            everywhere[name]["namespaceSelector"],
            single[name]["namespaceSelector"],
        )
    assert "namespaceSelector" not in everywhere["membudget-controller"]


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_what_an_operator_selects_by_is_on_them(chart: Chart, kind: str) -> None:
    """R-T05: kube-prometheus-stack takes only what has its release label; our own labels stay."""
    labels = [found["metadata"]["labels"] for found in chart.render(ON).of(kind)]
    assert labels
    assert {("stack", "membudget")} == {(each["release"], each["app.kubernetes.io/name"]) for each in labels}


def test_without_files_there_are_no_rules_and_no_dashboards(copied: tuple[Chart, Path]) -> None:
    """R-T05: an empty object would be refused by the operator."""
    rendered = copied[0].render(ON)
    assert [] == rendered.of("PrometheusRule") + rendered.of("ConfigMap")


def test_each_file_of_rules_is_one_object_word_for_word(copied: tuple[Chart, Path]) -> None:
    """R-T04, R-T05: Prometheus' own templates are not read by helm; only where runbooks are is the values'."""
    chart, files = copied
    (files / "rules").mkdir()
    for name in ("membudget", "more"):
        (files / "rules" / f"{name}.yaml").write_text("# Generated.\n" + yaml.safe_dump(RULES))
    rendered = chart.render(ON)
    assert {"membudget", "membudget-more"} == {found["metadata"]["name"] for found in rendered.of("PrometheusRule")}
    expected = json.loads(json.dumps(RULES).replace("membudget.dev", "example.com"))
    assert [expected] * 2 == [found["spec"] for found in rendered.of("PrometheusRule")]


def test_each_dashboard_is_a_config_map_that_grafana_finds(copied: tuple[Chart, Path]) -> None:
    """R-T04, R-T05: byte for byte, under the label of Grafana's sidecar."""
    chart, files = copied
    (files / "dashboards").mkdir()
    text = json.dumps(DASHBOARD, indent=2)
    (files / "dashboards" / "fleet.json").write_text(text + "\n")
    found = chart.render(ON).one("ConfigMap", "membudget-fleet-dashboard")
    assert ({"fleet.json": text}, "1", {"grafana_folder": "Memory"}, NAMESPACE) == (
        found["data"],
        found["metadata"]["labels"]["grafana_dashboard"],
        found["metadata"]["annotations"],
        found["metadata"]["namespace"],
    )
    labelled = {"observability": {"dashboards": {"enabled": True, "label": "mine", "labelValue": "yes"}}}
    labels = chart.render(labelled).one("ConfigMap", "membudget-fleet-dashboard")["metadata"]["labels"]
    assert ("yes", None) == (labels["mine"], labels.get("grafana_dashboard"))


def test_all_that_the_chart_ships_is_rendered(chart: Chart) -> None:
    """R-T04, R-T05: every file of rules and every dashboard, whole; runbooks where the values say."""
    rendered = chart.render(ON)
    rules = [yaml.safe_load(path.read_text()) for path in sorted((FILES / "rules").glob("*.yaml"))]
    groups = [group for found in rendered.of("PrometheusRule") for group in found["spec"]["groups"]]
    assert [group["name"] for each in rules for group in each["groups"]] == [group["name"] for group in groups]
    books = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert [] == [book for book in books if not book.startswith("https://example.com/runbooks/")]
    dashboards = {path.name: json.loads(path.read_text()) for path in (FILES / "dashboards").glob("*.json")}
    shown = {name: json.loads(text) for found in rendered.of("ConfigMap") for name, text in found["data"].items()}
    assert dashboards == shown


def test_all_that_is_installed_fits_into_what_helm_keeps_of_it(chart: Chart) -> None:
    """R-T05: a release is kept in one Secret of at most 1 MiB, compressed and then twice base64."""
    import base64
    import gzip

    whole = json.dumps([chart.template(ON).stdout, *(p.read_text() for p in CHART.rglob("*") if p.suffix in SHIPPED)])
    assert len(base64.b64encode(base64.b64encode(gzip.compress(whole.encode())))) < 2**20
