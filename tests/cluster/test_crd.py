"""The CustomResourceDefinition on a real API server: what it takes, what it refuses in which words, what kubectl shows.

Per field of the spec one accepted and one refused object; the contract, which reads policies with no API server in
between, has to agree with each verdict.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cluster.control_plane import ControlPlane
from contract.schema_paths import definition_schema, leaves
from membudget_contract.compile import compile_policy
from membudget_contract.crd import NAME, custom_resource_definition
from membudget_contract.errors import ContractError
from membudget_contract.policy import API_VERSION, KIND, MemoryPolicy, parse_policy
from membudget_contract.policy_status import (
    Condition,
    ConditionStatus,
    ConditionType,
    PolicyStatus,
    Reason,
)
from membudget_contract.resolve import resolve

pytestmark = pytest.mark.cluster

FILE = Path(__file__).parents[2] / "charts" / "membudget" / "files" / f"{NAME}.yaml"
SPEC = definition_schema(custom_resource_definition())["properties"]["spec"]
LEAVES = dict(leaves(SPEC))
LIMIT = 2**34
PUBLISHED_SECONDS = 30.0

Spec = dict[str, Any]


class Field(NamedTuple):
    """A leaf of the schema, a value it takes and one it does not, where the refusal points and what it says."""

    path: str
    accepted: Any
    refused: Any
    told: str
    named: str | None = None


AMOUNT = "must be bytes like 150Mi, 1.5Gi or 150M, or a percent from 1% to 100%"
COLLECTION = "must be a letter or digit, then letters, digits, '.', '_' and '-', at most 63 in all, like core-api"
IN_BYTES = "must be bytes like 64Mi, not a percent"
PRIORITIES = 'supported values: "Low", "Medium", "High", "Critical"'


def rung(name: str, percent: int, release: int) -> list[Field]:
    """The fields of one rung."""
    return [
        Field(f"thresholds.{name}.percent", percent, 101, "should be less than or equal to 100"),
        Field(f"thresholds.{name}.releasePercent", release, 0, "should be greater than or equal to 1"),
        Field(f"thresholds.{name}.action", "Spill", "Restart", 'supported values: "Cleanup", "Spill", "Evict"'),
        Field(f"thresholds.{name}.freePercent", 7, 0, "should be greater than or equal to 1"),
        Field(f"thresholds.{name}.cooldownSeconds", 0, -1, "should be greater than or equal to 0"),
        Field(f"thresholds.{name}.headroom", "64Mi", "5%", IN_BYTES),
        Field(f"thresholds.{name}.secondsToLimit", 3600, 0, "should be greater than or equal to 1"),
    ]


FIELDS = [
    Field("selector.matchLabels", {"example.com/tier": ""}, {"a b": "c"}, "each name must be the key of a label"),
    Field("selector.matchLabels", {"a": "b"}, {"a": "-"}, "the value of a label", "selector.matchLabels[a]"),
    Field(
        "selector.matchExpressions",
        [{"key": "app", "operator": "Exists"}],
        [{"key": "app"}],
        "Required value",
        "selector.matchExpressions[0].operator",
    ),
    Field("selector.matchExpressions[].key", "example.com/tier", "a/b/c", "must be the key of a label"),
    Field("selector.matchExpressions[].operator", "NotIn", "Equals", '"In", "NotIn", "Exists", "DoesNotExist"'),
    Field("selector.matchExpressions[].values", ["a", ""], [], "operators In and NotIn need one value or more"),
    Field("precedence", -1000, 1001, "should be less than or equal to 1000"),
    Field("mode", "Observe", "observe", 'supported values: "Enforce", "Observe"'),
    Field("profile", "Staging", "Test", 'supported values: "Production", "Staging", "Development"'),
    Field("budget.total", "75%", "75 %", AMOUNT),
    Field("budget.signal", "WorkingSet", "Rss", '"Unreclaimable", "ResidentSetSize", "WorkingSet"'),
    Field("budget.baseLimit", "120Mi", "50%", IN_BYTES),
    Field("budget.components", {"index": "30Mi"}, {"index": "1Zi"}, AMOUNT, "budget.components[index]"),
    Field("budget.components", {"index": "5%"}, {"Index": "5%"}, "a lower-case letter, then letters and digits"),
    Field("thresholds.collect.percent", 60, 0, "should be greater than or equal to 1"),
    Field("thresholds.collect.cooldownSeconds", 86_400, 86_401, "should be less than or equal to 86400"),
    Field("thresholds.collect.headroom", "1Gi", "1Zi", AMOUNT),
    Field("thresholds.collect.secondsToLimit", 1, 3601, "should be less than or equal to 3600"),
    *rung("soft", 81, 70),
    *rung("hard", 90, 85),
    *rung("emergency", 99, 95),
    Field("collections", [{"name": "a"}, {"name": "b"}], [{"name": "a"}] * 2, "Duplicate value", "collections[1]"),
    Field("collections[].name", "a.B_c-1", "-a", COLLECTION),
    Field("collections[].priority", "Critical", "Highest", PRIORITIES),
    Field("collections[].maxLoadedFiles", 1, 0, "should be greater than or equal to 1"),
    Field("collections[].maxCachedQueries", 1, 0, "should be greater than or equal to 1"),
    Field("eviction.excludeCollections", ["a"], ["a", ""], COLLECTION, "eviction.excludeCollections[1]"),
    Field("index.memoryMapped", accepted=False, refused="no", told="must be of type boolean"),
    Field("reload.index", "2026-11-20T10:00:00+01:00", "a b", "a letter or digit, then letters, digits"),
    Field("reload.index", "b" * 63, "b" * 64, "may not be more than 63"),
    Field("caches.compression", accepted=False, refused="no", told="must be of type boolean"),
    Field("caches.maxLoadedFiles", 1000, 1001, "should be less than or equal to 1000"),
    Field("caches.maxCachedQueries", 500, 501, "should be less than or equal to 500"),
    Field("spill.maxSize", "2Gi", "50%", "must be bytes like 64Mi, not a percent: a folder has no budget"),
    Field("sampling.intervalSeconds", 300, 301, "should be less than or equal to 300"),
    Field("gc.thresholds", [700, 10, 10], [700, 10], "should have at least 3 items"),
    Field("gc.thresholds", [1, 1, 1], [700, 0, 10], "should be greater than or equal to 1", "gc.thresholds[1]"),
    Field("rollout.maxPercent", 25, 0, "should be greater than or equal to 1"),
    Field("rollout.pauseSeconds", 86_400, -1, "should be greater than or equal to 0"),
    Field("resize.mode", "Off", "Grow", 'supported values: "Off", "ShrinkFirst"'),
    Field("resize.limit", "120Mi", "75%", "must be bytes like 64Mi, not a percent: it is what percents are of"),
    Field("resize.container", "engine", "Engine", "lower-case letters, digits and '-', at most 63 in all, like engine"),
    Field("alerts.enabled", accepted=False, refused="no", told="must be of type boolean"),
    Field(
        "alerts.disabled", ["Growth", "SlowSpill"], ["Noise"], '"UsageHigh", "UsageOverFigure"', "alerts.disabled[0]"
    ),
    Field("alerts.usagePercent", 100, 0, "should be greater than or equal to 1"),
    Field("alerts.usage", "90%", "0%", AMOUNT),
    Field("alerts.growth.bytes", "20Mi", "20%", IN_BYTES),
    Field("alerts.growth.seconds", 86_400, 0, "should be greater than or equal to 1"),
    Field("alerts.leak.growth", "10Mi", "10%", IN_BYTES),
    Field("alerts.leak.perSecond", "1Ki", "1%", IN_BYTES),
    Field("alerts.leak.perHour", "10Mi", "1%", IN_BYTES),
    Field("alerts.secondsToLimit", 86_400, 86_401, "should be less than or equal to 86400"),
    Field("alerts.slowSpillSeconds", 1, 0, "should be greater than or equal to 1"),
    Field("alerts.residentOverHeapPercent", 101, 100, "should be greater than or equal to 101"),
    Field("alerts.evictions.count", 1000, 0, "should be greater than or equal to 1"),
    Field("alerts.evictions.seconds", 1, 86_401, "should be less than or equal to 86400"),
]

NEEDED = {"collections[]": {"name": "a"}, "matchExpressions[]": {"key": "a", "operator": "In", "values": ["a"]}}
SELECTOR: Spec = {"selector": {"matchLabels": {"app": "retriever"}}}
RISING = {"soft": {"percent": 70, "releasePercent": 60}, "hard": {"percent": 71, "releasePercent": 70}}

CONTRADICTIONS = [
    ({"thresholds": {"soft": {"percent": 75}}}, "thresholds.soft.releasePercent", "are left out they are 75 and 80"),
    ({"thresholds": {"hard": {"releasePercent": 93}}}, "thresholds.hard.releasePercent", "must lie below hard.percent"),
    ({"thresholds": {"soft": {"percent": 94}}}, "thresholds.hard.percent", "hard.percent must lie above soft.percent"),
    (
        {"thresholds": {"hard": {"percent": 80}, "soft": {"percent": 80}}},
        "thresholds.hard.percent",
        "hard.percent must lie above soft.percent",
    ),
    (
        {"thresholds": {"emergency": {"percent": 93, "releasePercent": 90}}},
        "thresholds.emergency.percent",
        "emergency.percent must lie above hard.percent; where they are left out they are 98 and 93",
    ),
    ({"budget": {"components": {"index": "151Mi"}}}, "budget.components", "must fit together into budget.total"),
    (
        {"budget": {"total": "1Gi", "components": {"index": "1Gi", "sqlite": "1"}}},
        "budget.components",
        "must fit together into budget.total",
    ),
    (
        {"profile": "Staging", "budget": {"components": {"index": "150Mi", "working": "51Mi"}}},
        "budget.components",
        "where that is left out it is 150Mi (Production), 200Mi (Staging), 500Mi (Development)",
    ),
    (
        {"budget": {"total": "75%", "components": {"index": "60%", "sqlite": "41%"}}},
        "budget.components",
        "must together be at most 100%",
    ),
    (
        {"selector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["a"]}]}},
        "selector.matchExpressions[0].values",
        "Exists and DoesNotExist take none",
    ),
    (
        {"thresholds": {"soft": {"headroom": "32Mi"}, "emergency": {"headroom": "0.5Gi"}}},
        "thresholds.emergency.headroom",
        "emergency.headroom must be less than soft.headroom",
    ),
    (
        {"thresholds": {"hard": {"secondsToLimit": 5}, "emergency": {"secondsToLimit": 5}}},
        "thresholds.emergency.secondsToLimit",
        "a higher rung is closer to the limit",
    ),
    ({"resize": {"mode": "ShrinkFirst"}}, "resize.limit", "must be given where resize.mode is ShrinkFirst"),
    (
        {"budget": {"total": "121Mi"}, "resize": {"mode": "ShrinkFirst", "limit": "120Mi"}},
        "resize.limit",
        "budget.total must fit into the limit",
    ),
    (
        {"resize": {"mode": "ShrinkFirst", "limit": "149Mi"}},
        "resize.limit",
        "where it is left out it is 150Mi (Production)",
    ),
    ({"collections": [{"priority": "Low"}]}, "collections[0].name", "Required value"),
    ({"collections": [{"name": f"a{n}"} for n in range(257)]}, "collections", "must have at most 256 items"),
    ({"budget": {"total": 157_286_400}}, "budget.total", "must be of type string"),
    ({"sampling": {"intervalSeconds": 2.5}}, "sampling.intervalSeconds", "must be of type integer"),
    ({"budget": {"totall": "150Mi"}}, "budget.totall", "unknown field"),
]

LARGEST: Spec = {
    "selector": {
        "matchLabels": {f"{('a' * 63 + '.') * 3}example.com/{'b' * 61}{n:02}": "c" * 63 for n in range(32)},
        "matchExpressions": [{"key": f"{'a.' * 126}a/{'b' * 63}", "operator": "In", "values": ["c" * 63] * 64}] * 32,
    },
    "budget": {"components": {f"a{n:038}": f"{'9' * 15}.{'9' * 9}Ki" if n == 0 else "1.000000001Ki" for n in range(32)},
               "total": "8191Pi"},
    "collections": [{"name": f"{'a' * 60}{n:03}", "priority": "Critical"} for n in range(256)],
    "eviction": {"excludeCollections": ["a" * 63] * 256},
}  # fmt: skip
"""As long as every text and list may be."""

BORDERS: list[Spec] = [
    {"thresholds": {"soft": {"percent": 76}}},
    {"thresholds": RISING},
    {"thresholds": {"soft": {"percent": 97, "releasePercent": 1}, "hard": {"percent": 98, "releasePercent": 97},
                    "emergency": {"percent": 99, "releasePercent": 98}}},
    {"budget": {"components": {"index": "100Mi", "sqlite": "50Mi"}}},
    {"budget": {"total": "75%", "components": {"index": "900Mi"}}},
    {"budget": {"total": "75%", "components": {"index": "60%", "sqlite": "40%"}}},
    {"profile": "Development", "budget": {"components": {"index": "500Mi"}}},
    {"budget": {"total": "120Mi"}, "resize": {"mode": "ShrinkFirst", "limit": "120Mi"}},
    {"budget": {"total": "100%"}, "resize": {"mode": "ShrinkFirst", "limit": "64Mi"}},
    {"resize": {"mode": "Off", "limit": "64Mi"}},
    {"budget": {"total": "1Ei", "components": {"index": "1Pi"}}},
    {"collections": [{"name": f"a{n}", "priority": "Low"} for n in range(256)]},
    {"selector": {"matchLabels": {f"{'a' * 63}.example.com/{'b' * 60}{n}": "c" * 63 for n in range(32)}}},
    {"budget": {"components": {f"a{n}": "3%" for n in range(32)}}},
    LARGEST,
]  # fmt: skip
"""As far as the rules allow, also where an object costs the API server most."""

AMOUNTS = [
    *("0", "0Mi", ".5Mi", "5.", "1.5Gi", "150M", "1e9", "1E9", "2e+3", "9e9", "100m", "1k", "1Ki", "7Ei", "1E"),
    *("", "Mi", "-1Mi", "+1Mi", "1n", "1u", "1K", "1ki", "1 Mi", " 1Mi", "1Mi ", "1Mi\n", "1.2.3", "9e99", "8Ei"),
    *("1%", "100%", "0%", "101%", "75 %", "1.5%", "-1%", "%", "NaN", "\uff11Mi", "1" * 20, "1" * 41),
]


@pytest.fixture(scope="module", autouse=True)
def installed(control_plane: ControlPlane) -> None:
    """The definition, as a person applies it, served and published for `kubectl explain`."""
    control_plane.kubectl("apply", "-f", str(FILE))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{NAME}")
    deadline = time.monotonic() + PUBLISHED_SECONDS
    while control_plane.kubectl("explain", "mempol.spec", check=False).returncode != 0:
        assert time.monotonic() < deadline, "the API server did not publish the schema"
        time.sleep(0.1)


def document(spec: Spec, namespace: str = "default", name: str = "retrieval") -> dict[str, Any]:
    """A policy object."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def spec_with(path: str, value: object) -> Spec:
    """A spec of one field, with what the items of lists need besides."""
    name, _, rest = path.partition(".")
    if name.endswith("[]"):
        return {name.removesuffix("[]"): [{**NEEDED[name], rest: value}]}
    return {name: spec_with(rest, value) if rest else value}


def refusal(control_plane: ControlPlane, spec: Spec) -> str | None:
    """What the API server says to a policy that it refuses, None to one that it takes; nothing is stored."""
    done = control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(document(spec)), check=False)
    return None if done.returncode == 0 else done.stderr


def contract_refuses(spec: Spec) -> bool:
    """Whether parsing, compiling or resolving refuses the policy, as it does where there is no API server."""
    try:
        resolve(compile_policy(parse_policy(document(spec))), environment={}, limit=LIMIT)
    except ContractError:
        return True
    return False


def test_every_field_of_the_schema_stands_in_the_table() -> None:
    """R-P01: no field is without an accepted and a refused object."""
    assert {field.path for field in FIELDS} == set(LEAVES)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.named or field.path)
def test_every_field_takes_what_it_means(control_plane: ControlPlane, field: Field) -> None:
    """R-P01: the API server and the contract alike."""
    spec = SELECTOR | spec_with(field.path, field.accepted)
    assert (refusal(control_plane, spec), contract_refuses(spec)) == (None, False)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.named or field.path)
def test_every_field_refuses_in_words_that_name_it(control_plane: ControlPlane, field: Field) -> None:
    """R-P01, fault 97: where to look and what is allowed; never a regular expression."""
    spec = SELECTOR | spec_with(field.path, field.refused)
    said = refusal(control_plane, spec) or "nothing"
    assert f"spec.{field.named or field.path.replace('[]', '[0]')}: " in said
    assert field.told in said
    assert not re.search(r"\[a-z|\\d|self\.", said)
    assert contract_refuses(spec)


@pytest.mark.parametrize(
    ("spec", "named", "told"), CONTRADICTIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_contradicts_itself_is_refused(control_plane: ControlPlane, spec: Spec, named: str, told: str) -> None:
    """R-P01, fault 98: with the built-in values taken for what is left out, as `compile` takes them."""
    said = refusal(control_plane, SELECTOR | spec) or "nothing"
    assert f"spec.{named}" in said
    assert told in said
    assert contract_refuses(SELECTOR | spec)


@pytest.mark.parametrize("spec", BORDERS)
def test_what_lies_just_inside_the_rules_is_taken(control_plane: ControlPlane, spec: Spec) -> None:
    """R-P01: also the largest objects, whose rules must be within the API server's budget when they run."""
    assert (refusal(control_plane, SELECTOR | spec), contract_refuses(SELECTOR | spec)) == (None, False)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_api_server_and_contract_read_the_same_amounts(control_plane: ControlPlane, amount: str) -> None:
    """R-P02: the API server knows more quantities than we mean, and cuts too large ones silently."""
    spec = SELECTOR | {"budget": {"total": amount}}
    assert (refusal(control_plane, spec) is not None) == contract_refuses(spec)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "spec.selector: Required value"),
        ({"selector": {}}, "must name at least one label in matchLabels or one requirement in matchExpressions"),
        ({"selector": {"matchLabels": {}, "matchExpressions": []}}, "an empty selector selects no pod"),
    ],
)
def test_a_policy_that_selects_nothing_is_refused(control_plane: ControlPlane, spec: Spec, told: str) -> None:
    """R-P01: a forgotten selector is told; a policy from a file, which needs none, is the contract's to take."""
    assert told in (refusal(control_plane, spec) or "nothing")
    assert not contract_refuses(spec)


@pytest.mark.parametrize("path", LEAVES)
def test_kubectl_explains_every_field(control_plane: ControlPlane, path: str) -> None:
    """R-P01: what it does, its range, its default, an example."""
    shown = control_plane.kubectl("explain", f"mempol.spec.{path.replace('[]', '')}").stdout
    assert LEAVES[path]["description"] in " ".join(shown.split())


def test_kubectl_get_shows_a_policy_at_a_glance(control_plane: ControlPlane, namespace: str) -> None:
    """R-P01: before the controller looked, and after; the reason of what does not hold only in the wide form."""
    control_plane.apply(json.dumps(document(SELECTOR | {"budget": {"total": "75%"}}, namespace)))
    assert rows(control_plane, namespace) == [
        ["NAME", "MODE", "PROFILE", "TOTAL", "MATCHED", "PROGRAMMED", "READY", "AGE"],
        ["retrieval", "Enforce", "Production", "75%"],
    ]
    write_status(control_plane, namespace, STATUS)
    assert rows(control_plane, namespace)[1] == ["retrieval", "Enforce", "Production", "75%", "2", "1", "True"]
    assert rows(control_plane, namespace, "-o", "wide") == [
        ["NAME", "MODE", "PROFILE", "TOTAL", "MATCHED", "PROGRAMMED", "READY", "REASON", "AGE"],
        ["retrieval", "Enforce", "Production", "75%", "2", "1", "True", "Pushing"],
    ]


def test_status_is_written_and_read_as_the_contract_has_it(control_plane: ControlPlane, namespace: str) -> None:
    """R-P10: what the controller writes comes back equal, and no generation rises by it."""
    control_plane.apply(json.dumps(document(SELECTOR, namespace)))
    before = stored(control_plane, namespace)
    write_status(control_plane, namespace, STATUS)
    after = stored(control_plane, namespace)
    assert msgspec.convert(after["status"], PolicyStatus) == STATUS
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])


def test_who_writes_the_policy_does_not_write_its_status(control_plane: ControlPlane, namespace: str) -> None:
    """R-P10: a status in an applied file is ignored: the subresource is the only way."""
    control_plane.apply(json.dumps(document(SELECTOR, namespace) | {"status": {"matchedPods": 7}}))
    assert "status" not in stored(control_plane, namespace)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"matchedPods": -1}, "status.matchedPods"),
        ({"matchedPods": 1.5}, "status.matchedPods"),
        ({"conditions": [{"type": "Healthy"}]}, 'supported values: "Accepted", "Programmed", "Ready", "Resized"'),
        ({"conditions": [{"type": "Ready", "reason": "Fine"}]}, "status.conditions[0].reason"),
    ],
)
def test_a_status_of_another_shape_is_refused(
    control_plane: ControlPlane, namespace: str, change: Spec, told: str
) -> None:
    """R-P10: counts are whole numbers, conditions those three, reasons the known ones."""
    control_plane.apply(json.dumps(document(SELECTOR, namespace)))
    done = control_plane.kubectl(*status_patch(namespace, change), check=False)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_controller_reads_what_the_api_server_stored(control_plane: ControlPlane, namespace: str) -> None:
    """R-P01: with what it filled in; nulls are gone."""
    spec = SELECTOR | {"precedence": 5, "budget": {"total": "200M", "signal": None}, "thresholds": RISING}
    control_plane.apply(json.dumps(document(spec, namespace)))
    read = parse_policy(stored(control_plane, namespace))
    written = parse_policy(document(spec | {"mode": "Enforce", "profile": "Production"}, namespace))
    assert read == written == MemoryPolicy(name="retrieval", namespace=namespace, spec=written.spec)


STATUS = PolicyStatus(
    observed_generation=1,
    matched_pods=2,
    programmed_pods=1,
    refused_pods=0,
    conditions=tuple(
        Condition(
            type=kind,
            status=ConditionStatus.FALSE if kind is ConditionType.PROGRAMMED else ConditionStatus.TRUE,
            observed_generation=1,
            last_transition_time=dt.datetime(2026, 11, 21, 10, 0, tzinfo=dt.UTC),
            reason=reason,
            message="For people.",
        )
        for kind, reason in zip(
            ConditionType,
            (Reason.ACCEPTED, Reason.PUSHING, Reason.UNDER_BUDGET, Reason.RESIZED),
            strict=True,
        )
    ),
)


def status_patch(namespace: str, status: object) -> list[str]:
    """The arguments of kubectl that write a status."""
    patch = msgspec.json.encode({"status": status}).decode()
    return ["patch", "mempol", "retrieval", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch]


def write_status(control_plane: ControlPlane, namespace: str, status: PolicyStatus) -> None:
    """As the controller does."""
    control_plane.kubectl(*status_patch(namespace, status))


def stored(control_plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """The object as the API server has it."""
    return json.loads(control_plane.kubectl("get", "mempol", "retrieval", "-n", namespace, "-o", "json").stdout)


def rows(control_plane: ControlPlane, namespace: str, *options: str) -> list[list[str]]:
    """What `kubectl get` shows by its category, in words; the age, which moves, is left out."""
    shown = control_plane.kubectl("get", "membudget", "-n", namespace, *options).stdout.splitlines()
    return [words if words[-1] == "AGE" else words[:-1] for words in (line.split() for line in shown)]
