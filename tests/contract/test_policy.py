"""Reading a MemoryPolicy: what every field takes and refuses, and that a refusal names the field as its author did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy import API_VERSION, KIND, PolicySpec, parse_policy
from membudget_contract.policy_part import PolicyPart
from membudget_contract.quantities import Amount

Document = dict[str, object]

NOTHING: Document = {}


def document(spec: object) -> Document:
    """A MemoryPolicy around `spec`."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "retrieval"}, "spec": spec}


class Field(NamedTuple):
    """A field by its path in the spec, a value it takes, one it refuses, and the path that the refusal names."""

    path: str
    accepted: object
    refused: object
    named: str | None = None


def rung(name: str, percent: int, release: int) -> list[Field]:
    """The fields of one rung."""
    return [
        Field(f"thresholds.{name}.percent", percent, 101),
        Field(f"thresholds.{name}.releasePercent", release, 0),
        Field(f"thresholds.{name}.action", "Evict", "Restart"),
        Field(f"thresholds.{name}.freePercent", 7, 0),
        Field(f"thresholds.{name}.cooldownSeconds", 0, -1),
        Field(f"thresholds.{name}.headroom", "64Mi", 64),
        Field(f"thresholds.{name}.secondsToLimit", 1, 0),
    ]


FIELDS = [
    Field("selector.matchLabels", {"app": "retriever"}, {"app": "a", "tier": 1}, "selector.matchLabels.tier"),
    Field("selector.matchLabels", {"example.com/tier": ""}, {"app": "a", "-x": "a"}, "selector.matchLabels.-x"),
    Field("selector.matchLabels", {"a": "x" * 63}, {"a": "x" * 64}, "selector.matchLabels.a"),
    Field(
        "selector.matchExpressions",
        [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "app", "operator": "Exists", "values": []}],
        [{"key": "tier", "operator": "In", "values": ["a"]}, {"key": "app"}],
        "selector.matchExpressions[1].operator",
    ),
    Field("selector.matchExpressions[0].key", "example.com/tier", "example.com/"),
    Field("selector.matchExpressions[0].operator", "DoesNotExist", "Equals"),
    Field("selector.matchExpressions[0].values", [], ["a", "-a"], "selector.matchExpressions[0].values[1]"),
    Field("precedence", -1000, 1001),
    Field("mode", "Observe", "observe"),
    Field("profile", "Staging", "Test"),
    Field("budget.total", "75%", "75 %"),
    Field("budget.signal", "WorkingSet", "Rss"),
    Field("budget.components", {"index": "30Mi"}, {"index": "30Mi", "sqlite": "1Zi"}, "budget.components.sqlite"),
    Field("budget.components", {"sqlite": "5%"}, {"sqlite": "5%", "Index": "5%"}, "budget.components.Index"),
    Field("budget.baseLimit", "120Mi", 120),
    Field("thresholds.collect.percent", 60, 0),
    Field("thresholds.collect.cooldownSeconds", 86_400, 86_401),
    Field("thresholds.collect.headroom", "1Gi", "1Zi"),
    Field("thresholds.collect.secondsToLimit", 3600, 3601),
    *rung("soft", 81, 70),
    *rung("hard", 90, 85),
    *rung("emergency", 99, 95),
    Field(
        "collections",
        [{"name": "a", "priority": "High", "maxLoadedFiles": 500, "maxCachedQueries": 200}],
        {"name": "a"},
    ),
    Field("collections[0].name", "a.B_c-1", "-a"),
    Field("collections[0].priority", "Critical", "Highest"),
    Field("collections[0].maxLoadedFiles", 1, 0),
    Field("collections[0].maxCachedQueries", 1, 0),
    Field("eviction.excludeCollections", ["pinned"], ["pinned", ""], "eviction.excludeCollections[1]"),
    Field("index.memoryMapped", accepted=False, refused="no"),
    Field("reload.index", "2026-11-20T10:00:00+01:00", "a b"),
    Field("reload.index", "b" * 63, "b" * 64),
    Field("reload.index", "7", 7),
    Field("reload.index", "7", "7\n"),
    Field("caches.compression", accepted=False, refused="no"),
    Field("caches.maxLoadedFiles", 1000, 1001),
    Field("caches.maxCachedQueries", 500, 501),
    Field("spill.maxSize", "1000Mi", 1000),
    Field("sampling.intervalSeconds", 300, 301),
    Field("gc.thresholds", [700, 10, 10], [700, 10]),
    Field("gc.thresholds", [1, 1, 1_000_000], [700, 0, 10], "gc.thresholds[1]"),
    Field("rollout.maxPercent", 25, 0),
    Field("rollout.pauseSeconds", 86_400, -1),
    Field("resize.mode", "Off", "Grow"),
    Field("resize.limit", "120Mi", 120),
    Field("resize.container", "engine", "Engine"),
    Field("alerts.enabled", accepted=False, refused="no"),
    Field("alerts.disabled", ["Growth", "SlowSpill"], ["Growth", "Noise"], "alerts.disabled[1]"),
    Field("alerts.usagePercent", 100, 0),
    Field("alerts.usage", "90%", "0%"),
    Field("alerts.growth.bytes", "20Mi", 20),
    Field("alerts.growth.seconds", 86_400, 0),
    Field("alerts.leak.growth", "10Mi", "10 Mi"),
    Field("alerts.leak.perSecond", "1Ki", "1ki"),
    Field("alerts.leak.perHour", "10Mi", "-1Mi"),
    Field("alerts.secondsToLimit", 86_400, 86_401),
    Field("alerts.slowSpillSeconds", 1, 0),
    Field("alerts.residentOverHeapPercent", 101, 100),
    Field("alerts.evictions.count", 1000, 0),
    Field("alerts.evictions.seconds", 1, 86_401),
]

OBJECTS = [
    *("selector", "budget", "thresholds", "eviction", "index", "reload", "caches", "spill", "sampling", "gc"),
    *("rollout", "resize", "alerts", "alerts.growth", "alerts.leak", "alerts.evictions"),
    *("thresholds.collect", "thresholds.soft", "thresholds.hard", "thresholds.emergency", "collections[0]"),
    "selector.matchExpressions[0]",
]
"""The paths that hold objects with fields of their own."""

CHOICES = {"mode", "profile", "signal", "action", "priority", "operator", "disabled"}
"""The fields that take one of a few words."""

NEEDED: dict[str, Document] = {
    "collections[0]": {"name": "a"},
    "matchExpressions[0]": {"key": "tier", "operator": "Exists"},
}
"""What an item of a list must have, whichever of its fields is looked at."""

WRONG_KINDS = [5, 7.5, True, "text", ["list"], {"key": "value"}]


def spec_with(path: str, value: object) -> Document:
    """A spec of one field; what stands in a list gets the fields that it needs."""
    name, _, rest = path.partition(".")
    if name.endswith("[0]"):
        return {name.removesuffix("[0]"): [NEEDED[name] | {rest: value}]}
    return {name: spec_with(rest, value) if rest else value}


def selecting(key: str, operator: str, *values: str) -> Document:
    """A spec with one requirement on labels."""
    return {"selector": {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}}


def refused_field(given_document: Document) -> str | None:
    """The field that a refusal names, None when the document is a policy."""
    try:
        parse_policy(given_document)
    except PolicyInvalid as refused:
        str(refused).encode()  # an answer that cannot be encoded would never reach the author
        return refused.field
    return None


def value_at(part: object, path: str) -> object:
    """The parsed value at a path as it stands on paper."""
    for step in path.replace("[0]", ".0").split("."):
        if isinstance(part, PolicyPart):
            part = getattr(part, {field.encode_name: field.name for field in msgspec.structs.fields(part)}[step])
        else:
            part = cast("tuple[object, ...]", part)[int(step)]
    return part


def paths(part: PolicyPart, prefix: str = "") -> Iterator[str]:
    """Every field of a part and of the parts in it, as on paper."""
    for field in msgspec.structs.fields(part):
        path, value = f"{prefix}{field.encode_name}", getattr(part, field.name)
        if isinstance(value, PolicyPart):
            yield from paths(value, f"{path}.")
        else:
            yield path


def test_every_field_of_a_policy_stands_in_the_table() -> None:
    """R-P05: a field without one accepted and one refused value would be untested."""
    selector = {"matchExpressions": [NEEDED["matchExpressions[0]"]]}
    spec = parse_policy(document({"collections": [{"name": "a"}], "selector": selector})).spec
    fields = {
        *paths(spec),
        *paths(spec.collections[0], "collections[0]."),
        *paths(spec.selector.match_expressions[0], "selector.matchExpressions[0]."),
    }
    assert {field.path for field in FIELDS} == fields


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.named or field.path)
def test_every_field_takes_its_values(field: Field) -> None:
    """R-P05: what is written arrives where it belongs."""
    policy = parse_policy(document(spec_with(field.path, field.accepted)))
    arrived = msgspec.json.encode(value_at(policy.spec, field.path), enc_hook=str)
    assert msgspec.json.decode(arrived) == field.accepted


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.named or field.path)
def test_every_field_refuses_what_it_cannot_mean_and_is_named(field: Field) -> None:
    """R-P05: the author reads the path that they wrote."""
    assert refused_field(document(spec_with(field.path, field.refused))) == f"spec.{field.named or field.path}"


@pytest.mark.parametrize(
    "field", [field for field in FIELDS if isinstance(field.accepted, str) and field.path.split(".")[-1] in CHOICES]
)
def test_a_choice_that_there_is_not_is_answered_with_those_there_are(field: Field) -> None:
    """R-P05: the author need not look the words up."""
    with pytest.raises(PolicyInvalid, match=f"{field.refused}'; it is one of .*{field.accepted}"):
        parse_policy(document(spec_with(field.path, field.refused)))


@pytest.mark.parametrize("path", ["", *OBJECTS])
def test_a_misspelt_field_is_refused_at_every_level(path: str) -> None:
    """R-P05: a field that nobody reads would be a silent default."""
    misspelt = f"{path}.percnt".removeprefix(".")
    assert refused_field(document(spec_with(misspelt, 80))) == f"spec.{misspelt}"


@pytest.mark.parametrize("path", [path for path in OBJECTS if "[" not in path])
@pytest.mark.parametrize("value", [*WRONG_KINDS[:5], None])
def test_a_value_in_place_of_an_object_is_refused(path: str, value: object) -> None:
    """R-P05: also null, which is no empty object."""
    assert refused_field(document(spec_with(path, value))) == f"spec.{path}"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.named or field.path)
def test_values_of_another_kind_are_refused_by_name(field: Field) -> None:
    """R-P05: nothing is converted silently: no text for a number, no number for a truth value, no true for 1."""
    for value in WRONG_KINDS:
        if type(value) is not type(field.accepted):
            assert refused_field(document(spec_with(field.path, value))) == f"spec.{field.path}"


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (NOTHING, "apiVersion"),
        ({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}}, "spec"),
        (document(None), "spec"),
        (document([]), "spec"),
        (document({}) | {"kind": "MemoryPolicies"}, "kind"),
        (document({}) | {"apiVersion": "membudget.dev/v1"}, "kind"),
        (document({}) | {"metadata": NOTHING}, "metadata.name"),
        (document({}) | {"metadata": {"name": ""}}, "metadata.name"),
        (document({}) | {"sepc": NOTHING}, "sepc"),
        (document({"collections": [{"name": "a"}, {}]}), "spec.collections[1].name"),
        (document({"collections": [{"name": "a"}, 5]}), "spec.collections[1]"),
    ],
)
def test_a_document_that_is_no_policy_is_refused(broken: Document, field: str) -> None:
    """R-P05: missing and foreign parts are named too."""
    assert refused_field(broken) == field


@pytest.mark.parametrize("text", ["null", "[]", '"spec"', "5", "7.5", "true"])
def test_what_is_no_object_is_refused(text: str) -> None:
    """R-P05: an empty file is YAML for null."""
    assert refused_field(msgspec.json.decode(text)) == "the document"


def test_an_object_as_the_api_server_returns_it_is_read() -> None:
    """R-P05: `kubectl get -o yaml` brings status and more metadata; neither is the author's."""
    policy = parse_policy(
        document({"budget": {"total": "150Mi"}})
        | {"metadata": {"name": "retrieval", "namespace": "search", "uid": "1", "generation": 3, "labels": {"a": "b"}}}
        | {"status": {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True"}]}}
    )
    assert (policy.namespace, policy.name) == ("search", "retrieval")
    assert policy.spec.budget.total == Amount("150Mi")


def test_an_empty_spec_leaves_everything_to_the_profile() -> None:
    """R-P05: what is not written is not known here."""
    assert parse_policy(document({})).spec == PolicySpec()


def test_a_collection_that_stands_twice_is_refused() -> None:
    """R-P07: which of two priorities holds must not depend on the order."""
    collections = [{"name": "a"}, {"name": "b"}, {"name": "a", "priority": "Low"}]
    assert refused_field(document({"collections": collections})) == "spec.collections[2].name"


@pytest.mark.parametrize(
    ("operator", "values"), [("In", ()), ("NotIn", ()), ("Exists", ("a",)), ("DoesNotExist", ("a", "b"))]
)
def test_an_operator_that_does_not_fit_its_values_is_refused(operator: str, values: tuple[str, ...]) -> None:
    """R-P01: as Kubernetes refuses it; read otherwise it would select other pods than the author meant."""
    assert refused_field(document(selecting("app", operator, *values))) == "spec.selector.matchExpressions[0].values"


@pytest.mark.parametrize(
    ("path", "one_too_many"),
    [
        ("selector.matchLabels", {f"a{n}": "b" for n in range(33)}),
        ("selector.matchExpressions", [{"key": "a", "operator": "Exists"}] * 33),
        ("selector.matchExpressions[0].values", ["a"] * 65),
        ("budget.components", {f"a{n}": "1%" for n in range(33)}),
        ("collections", [{"name": f"a{n}"} for n in range(257)]),
        ("eviction.excludeCollections", ["a"] * 257),
    ],
)
def test_what_may_be_long_is_bounded(path: str, one_too_many: object) -> None:
    """R-P01: the API server bounds the cost of its rules by these figures, and an order holds 256 kB."""
    assert refused_field(document(spec_with(path, one_too_many))) == f"spec.{path}"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"collections": [{"name": "a\n"}]}, "collections[0].name"),
        ({"budget": {"components": {"index\n": "1Mi"}}}, "budget.components.index"),
        ({"eviction": {"excludeCollections": ["a", "b\n"]}}, "eviction.excludeCollections[1]"),
        ({"selector": {"matchLabels": {"app\n": "a"}}}, "selector.matchLabels.app"),
        ({"selector": {"matchLabels": {"app": "a\n"}}}, "selector.matchLabels.app"),
        (selecting("app\n", "Exists"), "selector.matchExpressions[0].key"),
        (selecting("app", "In", "a", "b\n"), "selector.matchExpressions[0].values[1]"),
    ],
)
def test_a_name_does_not_end_in_a_newline(spec: Document, field: str) -> None:
    """R-P05: as the API server has it, though Python's `$` would let it pass."""
    assert refused_field(document(spec)) == f"spec.{field}"


def test_deep_nesting_in_the_spec_is_refused() -> None:
    """R-P05: with an answer, not with an exhausted stack."""
    lists: object = "1Mi"
    objects: object = "1Mi"
    for _ in range(50_000):
        lists, objects = [lists], {"budget": objects}
    assert refused_field(document({"budget": {"components": lists}})) == "spec.budget.components"
    assert refused_field(document({"budget": {"components": objects}})) == "spec.budget.components.budget"
    assert refused_field(document({"budget": objects})) == "spec.budget.budget"


def test_deep_nesting_outside_the_spec_is_not_walked() -> None:
    """R-P05: status and labels belong to others."""
    nested: object = None
    for _ in range(50_000):
        nested = {"nested": nested}
    others = {"status": nested, "metadata": {"name": "a", "annotations": nested}}
    assert parse_policy(document({}) | others).spec == PolicySpec()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"\ud800": 1}, "the document"),
        ({"budget": {"\ud800": 1}}, "the document"),
        ({"budget": {"components": {"\ud800": 1}}}, r"spec.budget.components.\ud800"),
    ],
)
def test_a_surrogate_in_a_name_is_refused_in_words_that_can_be_sent(spec: Document, field: str) -> None:
    """R-P05: JSON may escape half a character, which no text can hold."""
    assert refused_field(document(spec)) == field


NAMES = st.sampled_from(
    [*PolicySpec.__struct_encode_fields__, *(step for field in FIELDS for step in field.path.split(".")), "name"]
)
# With surrogates: json and yaml read them from escapes, though they are no characters.
TEXTS = st.text(st.characters()) | st.sampled_from(["150Mi", "75%", "Evict", "default", "x` - at `$.spec"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(JSON | JSON.map(document) | st.dictionaries(NAMES, JSON).map(document))
def test_any_document_is_a_policy_or_refused_by_name(arbitrary: Document) -> None:
    """R-P05: no document reaches the caller as another error."""
    assert refused_field(arbitrary) != ""


@given(st.sampled_from(FIELDS), JSON)
def test_any_value_of_a_field_is_taken_or_refused_by_name(field: Field, value: object) -> None:
    """R-P05: the refusal stands at the field or below it."""
    named = refused_field(document(spec_with(field.path, value)))
    assert named is None or named.startswith((f"spec.{field.path}", "the document"))
