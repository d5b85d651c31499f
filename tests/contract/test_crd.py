"""The CustomResourceDefinition against the types it comes from, the profiles, and the rules of Kubernetes."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from contract.schema_paths import Schema, definition_schema, fields, leaves, schemas
from membudget_contract.compile import compile_policy
from membudget_contract.crd import custom_resource_definition
from membudget_contract.crd_schema import structural_schema
from membudget_contract.plan import Layer
from membudget_contract.policy import API_VERSION, KIND, PolicySpec, parse_policy
from membudget_contract.policy_part import PolicyPart
from membudget_contract.policy_status import PolicyStatus

RENDERER = Path(__file__).parents[2] / "charts" / "membudget" / "render_crd.py"
DEFINITION = custom_resource_definition()
SCHEMA = definition_schema(DEFINITION)
SPEC: Schema = SCHEMA["properties"]["spec"]
STATUS: Schema = SCHEMA["properties"]["status"]
FIELDS = dict(fields(SPEC))
LEAVES = dict(leaves(SPEC))


def policy_spec(spec: object) -> PolicySpec:
    """A spec as it is read."""
    return parse_policy({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec}).spec


def spec_with(path: str, value: object) -> object:
    """A spec of one field at a path, with what the items of lists need besides."""
    name, _, rest = path.partition(".")
    if name.endswith("[]"):
        needed = {"collections[]": {"name": "a"}, "matchExpressions[]": {"key": "a", "operator": "In", "values": ["a"]}}
        return {name.removesuffix("[]"): [{**needed[name], rest: value}]}
    return {name: spec_with(rest, value) if rest else value}


def parts(part: type[PolicyPart] = PolicyPart) -> list[type[PolicyPart]]:
    """Every part of a policy that there is."""
    return [one for child in part.__subclasses__() for one in (child, *parts(child))]


def test_the_file_that_the_chart_ships_is_the_one_that_the_types_make() -> None:
    """R-P01: no drift; `make crd` renews it."""
    script = runpy.run_path(str(RENDERER))
    assert script["FILE"].read_text() == script["rendered"]()


def test_the_file_says_what_the_definition_says() -> None:
    """R-P01: nothing is lost or read otherwise (`True` is a text in a condition's enum)."""
    text = runpy.run_path(str(RENDERER))["FILE"].read_text()
    assert yaml.safe_load(text) == DEFINITION == json.loads(json.dumps(DEFINITION))


def test_names_are_those_people_type() -> None:
    """R-P01: kubectl get mempol, memorypolicies, membudget."""
    names = DEFINITION["spec"]["names"]
    assert (DEFINITION["metadata"]["name"], DEFINITION["spec"]["group"]) == (
        "memorypolicies.membudget.dev",
        "membudget.dev",
    )
    assert (names["shortNames"], names["categories"], DEFINITION["spec"]["scope"]) == (
        ["mempol"],
        ["membudget"],
        "Namespaced",
    )


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.__name__)
def test_every_part_of_a_policy_stands_in_the_schema(part: type[PolicyPart]) -> None:
    """R-P01: with all of its fields, and only those."""
    names = {field.encode_name for field in msgspec.structs.fields(part)}
    assert names in [set(schema.get("properties", ())) for schema in schemas(SPEC)]


def test_the_status_has_the_fields_of_its_type() -> None:
    """R-P10: no usage figure and no phase among them."""
    assert set(STATUS["properties"]) == {field.encode_name for field in msgspec.structs.fields(PolicyStatus)}
    assert set(STATUS["properties"]) == {
        "observedGeneration",
        "matchedPods",
        "programmedPods",
        "refusedPods",
        "resizedPods",
        "conditions",
    }


@pytest.mark.parametrize("path", [*FIELDS, *(f"status.{path}" for path, _ in fields(STATUS))])
def test_every_field_is_camel_case_and_described(path: str) -> None:
    """R-P01: a sentence for `kubectl explain`; a duration says its unit in its name."""
    schema = FIELDS.get(path) or dict(fields(STATUS))[path.removeprefix("status.")]
    assert re.fullmatch(r"[a-z][A-Za-z]*", path.rpartition(".")[2])
    assert re.fullmatch(r"[A-Z].{20,}\.", schema["description"])
    assert not re.search(r"(?i)(duration|timeout|interval|cooldown)$", path)


@pytest.mark.parametrize("path", LEAVES)
def test_every_field_shows_an_example(path: str) -> None:
    """R-P01: at the field, or where it only makes sense together, at the object around it."""
    around = path.rpartition(".")[0].removesuffix("[]")
    texts = [LEAVES[path]["description"], FIELDS[around]["description"] if around else ""]
    assert any("Example: " in text for text in texts)


@pytest.mark.parametrize("path", [path for path in FIELDS if "Example: " in FIELDS[path]["description"]])
def test_every_example_is_accepted(path: str) -> None:
    """R-P01: what `kubectl explain` shows can be typed."""
    shown = FIELDS[path]["description"].rpartition("Example: ")[2].removesuffix(".")
    for example in shown.split(" or "):
        policy_spec(spec_with(path, yaml.safe_load(example)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("precedence", "0"),
        ("mode", "Enforce"),
        ("profile", "Production"),
        ("budget.total", "150Mi (Production), 200Mi (Staging), 500Mi (Development)"),
        ("budget.signal", "Unreclaimable"),
        ("thresholds.collect.percent", "75"),
        ("thresholds.soft.percent", "80"),
        ("thresholds.hard.releasePercent", "88"),
        ("thresholds.emergency.action", "Evict"),
        ("thresholds.emergency.cooldownSeconds", "0"),
        ("collections[].priority", "Medium"),
        ("collections[].maxLoadedFiles", "100"),
        ("collections[].maxCachedQueries", "50"),
        ("caches.maxLoadedFiles", "1000"),
        ("caches.maxCachedQueries", "100"),
        ("caches.compression", "true (Production), true (Staging), false (Development)"),
        ("spill.maxSize", "1000Mi"),
        ("sampling.intervalSeconds", "10"),
        ("gc.thresholds", "[10000,20,20] (Production), [5000,15,15] (Staging), [700,10,10] (Development)"),
    ],
)
def test_descriptions_say_the_default(path: str, text: str) -> None:
    """R-P04: the figures of the profiles, which the schema does not fill in."""
    assert f" Default: {text}." in FIELDS[path]["description"]


def test_only_what_is_the_same_for_every_profile_is_filled_in() -> None:
    """R-P05: a filled-in value counts as the policy's own; a threshold or a total must not become one unasked."""
    filled = {path: schema["default"] for path, schema in FIELDS.items() if "default" in schema}
    assert filled == {"precedence": 0, "mode": "Enforce", "profile": "Production"}


def test_a_policy_filled_in_by_the_api_server_means_the_same() -> None:
    """R-P05: only the layer of `mode` tells it from one that left everything out."""
    filled = {path: schema["default"] for path, schema in FIELDS.items() if "default" in schema}
    metadata = {"name": "a"}
    plans = [
        compile_policy(parse_policy({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}))
        for spec in ({}, filled)
    ]
    assert plans[1] == msgspec.structs.replace(plans[0], layers=plans[0].layers | {"mode": Layer.POLICY})


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_is_bounded(path: str) -> None:
    """R-P01: no float and nothing endless, or the rules would exceed the API server's budget for them."""
    bounds = {
        "string": {"maxLength", "enum"},
        "integer": {"maximum"},
        "array": {"maxItems"},
        "object": {"maxProperties", "properties"},
    }
    for schema in schemas(LEAVES[path]):
        assert schema["type"] == "boolean" or bounds[schema["type"]] & set(schema)


def test_there_is_no_float_and_nothing_of_two_types() -> None:
    """R-P01: amounts are texts, percents and counts whole numbers, and no field is open."""
    everywhere = list(schemas(SCHEMA))
    assert {schema["type"] for schema in everywhere} == {"object", "array", "string", "integer", "boolean"}
    open_fields = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "nullable"}
    assert not [schema for schema in everywhere if open_fields & set(schema)]


def test_every_list_says_how_two_writers_are_merged() -> None:
    """R-P01: collections by name, conditions by type, all others as a whole."""
    kinds = {path: schema["x-kubernetes-list-type"] for path, schema in fields(SCHEMA) if schema.get("type") == "array"}
    assert {path for path, kind in kinds.items() if kind == "map"} == {"spec.collections", "status.conditions"}
    assert set(kinds.values()) == {"map", "atomic"}


def test_every_rule_tells_a_person_what_is_allowed() -> None:
    """R-P01: a sentence, at the field to change, and no expression in it."""
    rules: list[dict[str, Any]] = [
        rule for schema in schemas(SCHEMA) for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert rules
    for rule in rules:
        assert re.search(r"\b(must|need|take)\b", rule["message"])
        assert not re.search(r"[\\^${}]|self\b", rule["message"])


def test_columns_read_fields_that_there_are() -> None:
    """R-P01: a column of a misspelt path would be empty for ever."""
    (version,) = DEFINITION["spec"]["versions"]
    columns = {column["name"]: column["jsonPath"] for column in version["additionalPrinterColumns"]}
    assert list(columns) == ["Mode", "Profile", "Total", "Matched", "Programmed", "Ready", "Reason", "Age"]
    known = {f".{path}" for path, _ in fields(SCHEMA)} | {".metadata.creationTimestamp"}
    assert {re.sub(r"\[[^]]*\]", "[]", path) for path in columns.values()} <= known


def test_a_type_without_a_place_in_a_schema_is_an_error() -> None:
    """R-P01: a float in a policy is found when the definition is built, not by a user."""
    ratio = msgspec.defstruct("Ratio", [("ratio", float)], bases=(PolicyPart,), frozen=True, kw_only=True)
    with pytest.raises(TypeError, match="ratio"):
        structural_schema(ratio, additions={}, default_texts={})
