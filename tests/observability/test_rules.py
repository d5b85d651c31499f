"""The rules are rendered from code, valid, and each alert is held against promtool's unit tests in `alerts/`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_observability import rule_file
from membudget_observability.alerting import ALERTS, AlertRule, Severity
from membudget_observability.metrics_page import HISTOGRAMS
from membudget_observability.recording import RECORDINGS
from observability.requirement import find_program

UNIT_TESTS = Path(__file__).parent / "alerts"
METRICS = {value.name for value in vars(metric_names).values() if isinstance(value, Metric)}
SERIES = METRICS | {f"{metric.name}_bucket" for metric in HISTOGRAMS}
RECORDED = {recording.name for recording in RECORDINGS}
EXPRESSIONS = {rule.name: rule.expression for rule in (*RECORDINGS, *ALERTS)}


def named(expression: str) -> set[str]:
    """Metrics and recorded series that an expression asks for."""
    return set(re.findall(r"(?:[a-z_]+:)?membudget_[a-z_]+(?::[a-z0-9_]+)?", expression))


def test_the_file_that_the_chart_ships_is_what_the_code_renders() -> None:
    """R-T04: `make observability` after a change."""
    assert rule_file.rendered() == rule_file.FILE.read_text()


def test_a_test_may_shorten_times_and_nothing_else() -> None:
    """R-T04: the rules that fire in a test are those that are shipped."""
    short = yaml.safe_load(rule_file.rendered(lasting="1s", interval="1s"))["groups"]
    shipped = yaml.safe_load(rule_file.rendered())["groups"]
    for group in short:
        assert group.pop("interval") == "1s"
    for rule, as_shipped in zip(short[1]["rules"], shipped[1]["rules"], strict=True):
        assert rule.pop("for") == "1s"
        del as_shipped["for"]
    assert shipped == short


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_rule_asks_only_for_metrics_that_are_exported(name: str) -> None:
    """R-T04: a metric that is renamed breaks this, not an alert at night."""
    assert named(EXPRESSIONS[name]) <= SERIES | RECORDED


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_a_recording_is_named_by_level_metric_and_operations(recording: Any) -> None:
    """R-T04: Prometheus' own practice."""
    assert re.fullmatch(r"(instance|instance_cache|policy):membudget_[a-z_]+:[a-z0-9_]+", recording.name)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_what_is_wrong_where_and_what_to_do(alert: AlertRule) -> None:
    """R-T04: a static summary, a description with the place, how urgent, and a page."""
    rendered = next(
        rule
        for group in yaml.safe_load(rule_file.rendered())["groups"]
        for rule in group["rules"]
        if rule.get("alert") == alert.name
    )
    notes = rendered["annotations"]
    assert re.fullmatch(r"Membudget([A-Z][a-z]+)+", alert.name)
    assert rendered["labels"]["severity"] in set(Severity)
    assert re.fullmatch(r"[A-Z][^{}]+\.", notes["summary"])
    assert "$labels.pod" in notes["description"]
    assert notes["runbook_url"].endswith(f"/{alert.name}")
    assert re.fullmatch(r"\d+m", rendered["for"])


@pytest.mark.prometheus
def test_promtool_finds_nothing_wrong() -> None:
    """R-T04: `promtool check rules`, its lint included."""
    command = [find_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(rule_file.FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (checked.returncode, checked.stderr)
    assert f"{len(EXPRESSIONS)} rules found" in checked.stdout


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_has_unit_tests_in_which_it_fires_and_in_which_it_does_not(alert: AlertRule) -> None:
    """R-T04: both sides of every threshold, and the time before `for` is over."""
    groups = yaml.safe_load((UNIT_TESTS / f"{alert.name}.yaml").read_text())["tests"]
    looks = [look for group in groups for look in group["alert_rule_test"]]
    assert {look["alertname"] for look in looks} == {alert.name}
    assert {bool(look["exp_alerts"]) for look in looks} == {True, False}
    assert any(not any(look["exp_alerts"] for look in group["alert_rule_test"]) for group in groups)


def test_there_are_no_unit_tests_of_an_alert_that_is_gone() -> None:
    """R-T04: one file for each."""
    assert sorted(path.stem for path in UNIT_TESTS.iterdir()) == sorted(alert.name for alert in ALERTS)


@pytest.mark.prometheus
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_promtool_sees_the_alert_fire_and_not_fire(alert: AlertRule) -> None:
    """R-T04: `promtool test rules`, on the file that the chart ships."""
    command = [find_program("promtool"), "test", "rules", str(UNIT_TESTS / f"{alert.name}.yaml")]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
