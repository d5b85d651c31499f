"""The MemoryPolicy as a person writes it.

Covers: the types of `spec`, strict parsing, and errors that name the field. A field left out is `None`: the
profile speaks for it (`compile`). Does not cover defaults (`profiles`), bytes (`resolve`) or reading files.

The same types make the custom resource definition; every field is implemented, none is reserved.
"""

from __future__ import annotations

import enum
import functools
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta

from membudget_contract.errors import PolicyInvalid, QuantityInvalid
from membudget_contract.quantities import Amount

API_VERSION = "membudget.dev/v1alpha1"
KIND = "MemoryPolicy"


class Mode(enum.StrEnum):
    """Whether decisions are carried out."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class ProfileName(enum.StrEnum):
    """The built-in base that a policy refines."""

    PRODUCTION = "Production"
    STAGING = "Staging"
    DEVELOPMENT = "Development"


class Signal(enum.StrEnum):
    """Which figure is held against the budget."""

    UNRECLAIMABLE = "Unreclaimable"
    RESIDENT_SET_SIZE = "ResidentSetSize"
    WORKING_SET = "WorkingSet"


class RungAction(enum.StrEnum):
    """What a rung of the ladder does."""

    CLEANUP = "Cleanup"
    SPILL = "Spill"
    EVICT = "Evict"


class Priority(enum.StrEnum):
    """The class of a collection; Critical data is never evicted."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"

    @property
    def rank(self) -> int:
        """0 for Low to 3 for Critical: who goes first."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}

EVICTABLE = (Priority.LOW, Priority.MEDIUM, Priority.HIGH)
"""The classes that may be evicted, in the order in which they go."""

DEFAULT_COLLECTION = "default"
"""Where bytes belong that no collection claims; class Medium unless a policy says otherwise."""

Percent = Annotated[int, Meta(ge=1, le=100, description="A whole percent.")]
Seconds = Annotated[int, Meta(ge=0, le=86_400, description="Whole seconds, at most a day.")]
ComponentName = Annotated[str, Meta(pattern=r"^[a-z][A-Za-z0-9]{0,39}$")]
CollectionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class PolicyPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of every part of a policy: immutable, strict, camelCase on paper."""


class BudgetPolicy(PolicyPart, frozen=True, kw_only=True):
    """How much memory, counted how, split into what."""

    total: Annotated[
        Amount | None, Meta(description="Bytes (150Mi) or percent (75%) of the container's live limit.")
    ] = None
    signal: Annotated[Signal | None, Meta(description="The figure held against the budget.")] = None
    components: Annotated[
        dict[ComponentName, Amount] | None,
        Meta(description="Ceilings by component, as bytes or percent of the total; the rest shares what is left."),
    ] = None


class CollectPolicy(PolicyPart, frozen=True, kw_only=True):
    """When the garbage collector is asked to run; no rung of the ladder."""

    percent: Percent | None = None
    cooldown_seconds: Seconds | None = None


class RungPolicy(PolicyPart, frozen=True, kw_only=True):
    """One rung of the ladder; percents are of the budget."""

    percent: Percent | None = None
    release_percent: Percent | None = None
    action: RungAction | None = None
    free_percent: Percent | None = None
    cooldown_seconds: Seconds | None = None


class ThresholdsPolicy(PolicyPart, frozen=True, kw_only=True):
    """The ladder."""

    collect: CollectPolicy = CollectPolicy()
    soft: RungPolicy = RungPolicy()
    hard: RungPolicy = RungPolicy()
    emergency: RungPolicy = RungPolicy()


class CollectionPolicy(PolicyPart, frozen=True, kw_only=True):
    """What is asked for one collection."""

    name: CollectionName
    priority: Priority | None = None


class EvictionPolicy(PolicyPart, frozen=True, kw_only=True):
    """What eviction leaves alone."""

    exclude_collections: tuple[CollectionName, ...] | None = None


class CachesPolicy(PolicyPart, frozen=True, kw_only=True):
    """How caches hold their values."""

    compression: Annotated[bool | None, Meta(description="Compress values where it saves over 20 %.")] = None


class SpillPolicy(PolicyPart, frozen=True, kw_only=True):
    """The bound of the spill folder."""

    max_size: Annotated[Amount | None, Meta(description="Bytes on disk, like 1000Mi.")] = None


class SamplingPolicy(PolicyPart, frozen=True, kw_only=True):
    """How often the sidecar looks while there is room."""

    interval_seconds: Annotated[int, Meta(ge=1, le=300)] | None = None


class GcPolicy(PolicyPart, frozen=True, kw_only=True):
    """Thresholds of the garbage collector, as for `gc.set_threshold`."""

    thresholds: (
        tuple[
            Annotated[int, Meta(ge=1, le=1_000_000)],
            Annotated[int, Meta(ge=1, le=1_000_000)],
            Annotated[int, Meta(ge=1, le=1_000_000)],
        ]
        | None
    ) = None


class LabelSelector(PolicyPart, frozen=True, kw_only=True):
    """Which pods of the policy's namespace; not consulted for a policy read from a file."""

    match_labels: dict[str, str] = {}


class PolicySpec(PolicyPart, frozen=True, kw_only=True):
    """The `spec` of a MemoryPolicy."""

    selector: LabelSelector = LabelSelector()
    mode: Mode | None = None
    profile: ProfileName = ProfileName.PRODUCTION
    budget: BudgetPolicy = BudgetPolicy()
    thresholds: ThresholdsPolicy = ThresholdsPolicy()
    collections: tuple[CollectionPolicy, ...] = ()
    eviction: EvictionPolicy = EvictionPolicy()
    caches: CachesPolicy = CachesPolicy()
    spill: SpillPolicy = SpillPolicy()
    sampling: SamplingPolicy = SamplingPolicy()
    gc: GcPolicy = GcPolicy()


class MemoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy with the name under which its effects are traced."""

    name: str
    namespace: str | None
    spec: PolicySpec


class _Metadata(msgspec.Struct, frozen=True):
    """Of an object's metadata only what a policy needs; the API server owns the rest."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    namespace: str | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    api_version: str
    kind: str
    metadata: _Metadata
    spec: PolicySpec
    status: Any = None
    """Written by the controller, read by nobody here; `object` in place of Any would be sent to `_decode`."""


def parse_policy(document: Mapping[str, object]) -> MemoryPolicy:
    """A policy from the parsed YAML or JSON of one object.

    Raises:
        PolicyInvalid: names the field and what it should be.
    """
    try:
        parsed = msgspec.convert(document, _Document, dec_hook=_decode, strict=True)
    except msgspec.ValidationError as error:
        raise _named(error, document) from None
    except RecursionError:
        raise PolicyInvalid("spec", "is nested too deeply") from None
    except UnicodeEncodeError:
        raise PolicyInvalid("the document", "holds a surrogate, which is no character") from None
    if (parsed.api_version, parsed.kind) != (API_VERSION, KIND):
        raise PolicyInvalid("kind", f"must be {KIND} of {API_VERSION}, not {parsed.kind} of {parsed.api_version}")
    _check_names(parsed.spec)
    _check_collections(parsed.spec.collections)
    return MemoryPolicy(name=parsed.metadata.name, namespace=parsed.metadata.namespace, spec=parsed.spec)


def _check_names(spec: PolicySpec) -> None:
    """Python's `$` also matches before a final newline, the API server's does not: hold both to the same names."""
    for field, name in _names(spec):
        if name.endswith("\n"):
            raise PolicyInvalid(field, f"{name!r} ends in a newline")


def _names(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    yield from ((f"spec.collections[{at}].name", given.name) for at, given in enumerate(spec.collections))
    yield from ((f"spec.budget.components.{name.rstrip()}", name) for name in spec.budget.components or {})
    excluded = spec.eviction.exclude_collections or ()
    yield from ((f"spec.eviction.excludeCollections[{at}]", name) for at, name in enumerate(excluded))


def _check_collections(collections: tuple[CollectionPolicy, ...]) -> None:
    seen: set[str] = set()
    for position, collection in enumerate(collections):
        if collection.name in seen:
            raise PolicyInvalid(f"spec.collections[{position}].name", f"{collection.name!r} stands here twice")
        seen.add(collection.name)


def _decode(wanted: type, value: object) -> object:
    if wanted is not Amount:
        raise NotImplementedError(wanted)
    if not isinstance(value, str):
        raise QuantityInvalid(f"expected a text like 150Mi or 75%, got {type(value).__name__}")
    return Amount(value)


_KEYED: Final[Mapping[str, object]] = {
    "spec.budget.components": dict[ComponentName, Amount],
    "spec.selector.matchLabels": dict[str, str],
}
"""Mappings whose keys the author chose; of these msgspec names no key."""

_PATH = re.compile(r"^(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<problem>contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)


def _named(error: msgspec.ValidationError, document: Mapping[str, object]) -> PolicyInvalid:
    """Msgspec writes `Expected ... - at `$.spec.budget``; people know the field as `spec.budget`."""
    match = cast("re.Match[str]", _PATH.match(str(error)))
    path = (match["path"] or "").removeprefix(".")
    problem: str = match["problem"]
    if (mapping := path.removesuffix("[...]")) in _KEYED and (match["key"] or mapping != path):
        path = f"{mapping}.{_refused_key(document, mapping)}"
    named = _FIELD.match(problem)
    if named is None:
        return PolicyInvalid(path or "the document", problem[:1].lower() + problem[1:])
    field = f"{path}.{named['field'] or '(empty)'}".removeprefix(".")
    return PolicyInvalid(field, "is missing" if named["problem"] == "missing required" else "is an unknown field")


def _refused_key(document: Mapping[str, object], path: str) -> str:
    """Which key of the mapping at `path` is refused, or stands before the refused value."""
    value: Any = functools.reduce(operator.getitem, path.split("."), cast("Any", document))
    mapping = cast("Mapping[object, object]", value)
    for key, value in mapping.items():
        try:
            msgspec.convert({key: value}, _KEYED[path], dec_hook=_decode)
        except msgspec.ValidationError:
            return str(key).encode(errors="backslashreplace").decode()
    raise AssertionError(f"no key of {path} is refused alone")
