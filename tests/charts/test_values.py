"""The values: refused in words that say where and what, and the same in values.yaml, schema and README."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
import yaml

from charts.rendering import CHART, FILES, VALUE_SETS, Chart
from membudget_engine.settings import GRACE_SECONDS

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
OF_OTHERS = {
    "global",  # of a parent chart
    "controller.affinity.nodeAffinity",  # these six are Kubernetes' own, and an API server checks them
    "controller.affinity.podAffinity",
    "controller.affinity.podAntiAffinity",
    "networkPolicy.metricsFrom.podSelector",
    "networkPolicy.metricsFrom.namespaceSelector",
    "networkPolicy.metricsFrom.ipBlock",
    "example.policy.spec.*",  # of the definition, whose rules an API server checks
}
"""Where the schema leaves objects open."""


def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to."""
    return SCHEMA["definitions"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part


def open_objects(part: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all objects that take any property."""
    part = resolved(part)
    if part.get("type") == "array":
        yield from open_objects(part.get("items", {}), path)
    if part.get("type") != "object":
        return
    if "additionalProperties" not in part:
        yield path
    for name, inner in part.get("properties", {}).items():
        yield from open_objects(inner, f"{path}.{name}".lstrip("."))


def test_no_object_takes_what_it_does_not_know() -> None:
    """R-T05: a misspelled value is an error, not a default."""
    found = {
        "example.policy.spec.*" if path.startswith("example.policy.spec.") else path for path in open_objects(SCHEMA)
    }
    assert OF_OTHERS == found


def closed_objects(part: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all objects that take named properties only, each with a dot before it; not those in lists."""
    part = resolved(part)
    if part.get("additionalProperties") is False:
        yield path
        for name, inner in part["properties"].items():
            yield from closed_objects(inner, f"{path}.{name}")


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What the schema describes: the same that the table in the README has."""
    for name, part in schema["properties"].items():
        inner = f"{path}.{name}".lstrip(".")
        if "description" in part:
            yield inner
        else:
            yield from leaves(part, inner)


def paths(values: Mapping[str, Any], described: set[str], path: str = "") -> Iterator[str]:
    """What values.yaml sets, down to where the schema describes it."""
    for name, value in values.items():
        inner = f"{path}.{name}".lstrip(".")
        if inner in described or not isinstance(value, dict):
            yield inner
        else:
            yield from paths(cast("dict[str, Any]", value), described, inner)


def test_values_and_schema_name_the_same() -> None:
    """R-T05: a value without a default is not documented, one without a meaning is not checked."""
    described = set(leaves(SCHEMA))
    assert described == set(paths(DEFAULTS, described))


def test_the_table_in_the_readme_is_theirs() -> None:
    """R-T05: rendered anew it is what stands there (make chart-readme)."""
    script = "import render_values_table as it; print(it.rendered(), end='')"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHART, capture_output=True, text=True, check=True)
    assert done.stdout == (CHART / "README.md").read_text()


def test_the_readme_names_every_template() -> None:
    """R-T05: its table of templates is the folder."""
    readme = (CHART / "README.md").read_text()
    names = [path.stem for path in (CHART / "templates").glob("*.yaml")]
    assert [] == [name for name in names if f"`{name}`" not in readme]


def test_a_policy_in_the_values_has_the_fields_of_the_definition() -> None:
    """R-P01: all of a policy's spec but the selector, which is the example's own."""
    (definition,) = FILES.glob("memorypolicies.*.yaml")
    (version,) = yaml.safe_load(definition.read_text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    own = SCHEMA["properties"]["example"]["properties"]["policy"]["properties"]["spec"]
    assert {name: part["type"] for name, part in spec.items() if name != "selector"} == {
        name: part["type"] for name, part in own["properties"].items()
    }


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_helm_finds_nothing_to_say(chart: Chart, values: Any) -> None:
    """R-T05: lint, strictly."""
    assert "" == chart.lint(values)


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value as the mapping that holds it."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def refusals(chart: Chart, values: Any) -> list[str]:
    """The lines in which helm says what is wrong with them."""
    return [line for line in chart.refusal(values).splitlines() if line.startswith("- at ")]


REFUSED: list[tuple[str, Any, str, str]] = [
    ("crds.enabled", "yes", "at '/crds/enabled'", "got string, want boolean"),
    ("images.pullPolicy", "always", "at '/images/pullPolicy'", "must be one of 'Always', 'IfNotPresent', 'Never'"),
    ("images.pullSecrets", ["mine"], "at '/images/pullSecrets/0'", "got string, want object"),
    ("images.pullSecrets", [{}], "at '/images/pullSecrets/0'", "missing property 'name'"),
    ("controller.repository", "", "at '/controller/repository'", "minLength"),
    ("controller.tag", "a b", "at '/controller/tag'", "'a b' does not match pattern"),
    ("controller.watchNamespaces", ["Team"], "at '/controller/watchNamespaces/0'", "'Team' does not match pattern"),
    ("controller.watchNamespaces", ["a", "a"], "at '/controller/watchNamespaces'", "items at 0 and 1 are equal"),
    (
        "controller.resources.limits.memory",
        "1 GB",
        "at '/controller/resources/limits/memory'",
        "does not match pattern",
    ),
    ("controller.resources.limits.memory", -1, "at '/controller/resources/limits/memory'", "minimum"),
    ("controller.podLabels", {"a": 1}, "at '/controller/podLabels/a'", "got number, want string"),
    ("controller.tolerations", [{"effect": "Never"}], "at '/controller/tolerations/0/effect'", "must be one of"),
    ("networkPolicy.metricsFrom", [{}], "at '/networkPolicy/metricsFrom/0'", "minProperties"),
    ("observability.podMonitor.interval", "15", "at '/observability/podMonitor/interval'", "does not match pattern"),
    ("observability.rules.runbookBaseUrl", "x", "at '/observability/rules/runbookBaseUrl'", "does not match pattern"),
    ("observability.dashboards.label", "", "at '/observability/dashboards/label'", "minLength"),
    ("example.name", "Search", "at '/example/name'", "does not match pattern"),
    ("example.replicas", -1, "at '/example/replicas'", "minimum"),
    ("example.replicas", 1.5, "at '/example/replicas'", "got number, want integer"),
    ("example.memoryLimit", "200 MB", "at '/example/memoryLimit'", "'200 MB' does not match pattern"),
    ("example.memoryLimit", 200, "at '/example/memoryLimit'", "got number, want string"),
    ("example.policy.spec.budget", "75%", "at '/example/policy/spec/budget'", "got string, want object"),
]


@pytest.mark.parametrize("path", [*closed_objects(SCHEMA)], ids=lambda path: path or "top")
def test_an_unknown_value_is_refused_wherever_it_stands(chart: Chart, path: str) -> None:
    """R-T05: in every object that has names."""
    (line,) = refusals(chart, nested(f"{path}.x".lstrip("."), 1))
    assert f"- at '{path.replace('.', '/')}': additional properties 'x' not allowed" == line


@pytest.mark.parametrize(("path", "value", "where", "what"), REFUSED)
def test_a_wrong_value_is_refused_where_it_stands(chart: Chart, path: str, value: Any, where: str, what: str) -> None:
    """R-T05: helm says the path and what is wrong with it."""
    (line,) = refusals(chart, nested(path, value))
    assert (f"- {where}", True) == (line.split(": ")[0], what in line), line


def test_the_examples_grace_is_the_engines_default() -> None:
    """R-E17: no value of the chart moves the one without the other."""
    assert (30.0, True) == (GRACE_SECONDS, "grace" not in json.dumps(SCHEMA))
