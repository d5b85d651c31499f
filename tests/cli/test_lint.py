"""`membudget lint`: what a policy gets told before anybody applies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.local_stack import run
from membudget_cli.lint.plan_checks import check_plan
from membudget_cli.lint.pod_checks import PodSeen, check_pods
from membudget_contract.compile import compile_policy
from membudget_contract.policy import MemoryPolicy, parse_policy
from membudget_contract.quantities import MIB


def written(**spec: Any) -> dict[str, Any]:
    """A policy that says what the test is about and nothing else."""
    return {
        "apiVersion": "membudget.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": "checked", "namespace": "search"},
        "spec": {"selector": {"matchLabels": {"app": "retrieval"}}} | spec,
    }


def policy(**spec: Any) -> MemoryPolicy:
    """The same, parsed."""
    return parse_policy(written(**spec))


def checks(limit: int | None, **spec: Any) -> set[tuple[str, str, str]]:
    """What is found: how bad, which check, where."""
    found = check_plan(compile_policy(policy(**spec)), limit)
    return {(finding.severity.value, finding.check, finding.subject) for finding in found}


def test_a_sound_policy_gets_no_word() -> None:
    """R-T03: the built-in profile in a container with room beside it."""
    assert set() == checks(256 * MIB)


@pytest.mark.parametrize(
    ("limit", "spec", "expected"),
    [
        (128 * MIB, {}, ("Error", "BudgetOverLimit", "spec.budget.total")),
        (None, {"budget": {"total": "90%"}}, ("Warning", "LimitUnknown", "spec.budget.total")),
        (512 * MIB, {"budget": {"total": "150"}}, ("Error", "UnitForgotten", "spec.budget.total")),
        (512 * MIB, {"budget": {"total": "100%"}}, ("Warning", "LittleHeadroom", "spec.thresholds.emergency")),
        (512 * MIB, {"mode": "Observe"}, ("Warning", "Observes", "spec.mode")),
        (512 * MIB, {"spill": {"maxSize": "0"}}, ("Warning", "NothingToSpillTo", "spec.spill.maxSize")),
        (512 * MIB, {"budget": {"signal": "ResidentSetSize"}}, ("Warning", "MappedPagesCount", "spec.budget.signal")),
        (512 * MIB, {"alerts": {"usagePercent": 99}}, ("Warning", "AlertTooLate", "spec.alerts.usagePercent")),
        (
            512 * MIB,
            {"thresholds": {"hard": {"headroom": "500Mi"}}},
            ("Error", "RungsOutOfOrder", "spec.thresholds.hard.headroom"),
        ),
        (
            512 * MIB,
            {"budget": {"components": {"semanticCache": "0"}}},
            ("Warning", "EmptyComponent", "spec.budget.components.semanticCache"),
        ),
    ],
)
def test_each_contradiction_and_each_tightness_is_told(
    limit: int | None, spec: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    """R-T03: one finding each, with the field as the author wrote it."""
    assert {expected} == checks(limit, **spec)


def test_headroom_in_bytes_silences_what_percent_alone_cannot_answer() -> None:
    """R-T03: the advice that the finding gives is enough."""
    advised = {"emergency": {"headroom": "16Mi"}}
    assert set() == checks(512 * MIB, budget={"total": "100%"}, thresholds=advised)
    assert set() == checks(512 * MIB, budget={"total": "97%"})


@given(total=st.integers(1, 1024), limit=st.integers(16, 1024))
def test_a_budget_over_its_limit_is_always_an_error(total: int, limit: int) -> None:
    """R-T03: and one under it never is."""
    found = {check for _, check, _ in checks(limit * MIB, budget={"total": f"{total}Mi"})}
    assert (total > limit and total >= 8) == ("BudgetOverLimit" in found)


def pod(name: str, *, managed: bool = True, has_sidecar: bool = True, limit: int | None = 256 * MIB) -> PodSeen:
    """One that the policy selects."""
    labels = {"app": "retrieval"} | ({"membudget.dev/managed": "true"} if managed else {})
    return PodSeen(name, labels, has_sidecar=has_sidecar, engine_limit_bytes=limit)


def test_pods_that_opted_in_and_have_a_sidecar_get_no_word() -> None:
    """R-T03."""
    assert [] == check_pods(
        policy(), [pod("a"), pod("b"), PodSeen("other", {}, has_sidecar=False, engine_limit_bytes=1)]
    )


def test_selected_pods_that_cannot_follow_are_named_with_the_reason() -> None:
    """R-T03: without the label, without a sidecar, under another limit than the budget needs."""
    found = check_pods(policy(), [pod("a", managed=False), pod("b", has_sidecar=False), pod("c", limit=100 * MIB)])
    assert {
        ("NotOptedIn", "a"),
        ("NoSidecar", "b"),
        ("BudgetOverLimit", "spec.budget.total in c"),
    } == {(finding.check, finding.subject) for finding in found}


def test_a_selector_that_selects_nothing_is_a_warning() -> None:
    """R-T03: the pods may come later."""
    found = check_pods(policy(), [PodSeen("other", {"app": "web"}, has_sidecar=False, engine_limit_bytes=None)])
    assert [("Warning", "SelectsNothing")] == [(finding.severity.value, finding.check) for finding in found]


def test_findings_decide_the_exit_code_and_come_as_documents(tmp_path: Path) -> None:
    """R-T03: 1 with an error, with --strict with a warning too; JSON and YAML say the same."""
    sound, doubtful, wrong, broken = (tmp_path / f"{name}.yaml" for name in ("sound", "doubtful", "wrong", "broken"))
    sound.write_text(yaml.safe_dump(written()))
    doubtful.write_text(yaml.safe_dump(written(mode="Observe")))
    wrong.write_text(yaml.safe_dump(written(budget={"total": "1Gi"})))
    broken.write_text(yaml.safe_dump(written(budget={"totall": "1Gi"})))
    limit = ("--limit", "512Mi")
    assert [0, 0, 1, 1, 1] == [
        run("lint", str(sound), *limit).returncode,
        run("lint", str(doubtful), *limit).returncode,
        run("lint", str(doubtful), *limit, "--strict").returncode,
        run("lint", str(sound), str(wrong), *limit).returncode,
        run("lint", str(broken)).returncode,
    ]
    as_json, as_yaml = (
        run("lint", str(wrong), str(broken), *limit, "-o", output).stdout for output in ("json", "yaml")
    )
    document = json.loads(as_json)
    assert yaml.safe_load(as_yaml) == document
    assert ["BudgetOverLimit", "Invalid"] == [
        found["check"] for path in (wrong, broken) for found in document[str(path)]
    ]
    assert "totall" in document[str(broken)][0]["detail"] + document[str(broken)][0]["subject"]


def test_without_a_cluster_one_line_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-T03: exit code 1, no traceback."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(written()))
    asked = run("lint", str(tmp_path / "policy.yaml"), "--cluster")
    assert (1, True, False) == (asked.returncode, "set KUBECONFIG" in asked.stderr, "Traceback" in asked.stderr)
