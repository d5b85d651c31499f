"""The MemoryPolicy as a person writes it.

Covers: the types of `spec`, strict parsing, and errors that name the field. A field left out is `None`: the
profile speaks for it (`compile`). Does not cover defaults (`profiles`), bytes (`resolve`), reading files, or what
a selector selects (`selector`).

The same types make the custom resource definition (`crd`): descriptions and examples are what `kubectl explain`
shows, and `allowed` words the API server's refusal of a text that does not match its pattern. Every field is
implemented, none is reserved.
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

from membudget_contract.decoding import json_decoder
from membudget_contract.errors import PolicyInvalid, QuantityInvalid
from membudget_contract.policy_alerts import AlertName, AlertsPolicy
from membudget_contract.policy_caches import CachedQueries, CachesPolicy, LoadedFiles
from membudget_contract.policy_part import Percent, PolicyPart, Seconds
from membudget_contract.policy_reload import ReloadPolicy
from membudget_contract.policy_resize import ResizeMode, ResizePolicy
from membudget_contract.policy_thresholds import RungAction, ThresholdsPolicy
from membudget_contract.quantities import Amount
from membudget_contract.selector import LabelSelector, MatchLabels, SelectorOperator, check_selector, label_texts

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

GcThreshold = Annotated[int, Meta(ge=1, le=1_000_000)]
ComponentName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][A-Za-z0-9]{0,39}$",
        max_length=40,
        extra={"allowed": "a lower-case letter, then letters and digits, at most 40 in all, like semanticCache"},
    ),
]
CollectionName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        max_length=63,
        extra={
            "allowed": "a letter or digit, then letters, digits, '.', '_' and '-', at most 63 in all, like core-api"
        },
    ),
]
Components = Annotated[dict[ComponentName, Amount], Meta(max_length=32)]


class BudgetPolicy(PolicyPart, frozen=True, kw_only=True):
    """How much memory, counted how, split into what."""

    total: Annotated[
        Amount | None,
        Meta(
            description="The memory that the engine may use in all: bytes, or a percent of its container's memory "
            "limit as it stands at the moment, so that a resized limit is followed without a restart.",
            examples=["150Mi", "75%"],
        ),
    ] = None
    signal: Annotated[
        Signal | None,
        Meta(
            description="The figure held against the budget. Unreclaimable: what the kernel cannot take back, which is "
            "what an OOM kill is about. ResidentSetSize: what top shows, mapped files included. WorkingSet: what the "
            "kubelet evicts on.",
            examples=["WorkingSet"],
        ),
    ] = None
    components: Annotated[
        Components | None,
        Meta(
            description="Ceilings by component, each in bytes or in percent of the total. Components left out share "
            "what remains as the profile splits it. Built in are index, semanticCache, historyCache, embeddingBuffer "
            "and working (all that no other component owns; measured, not enforced); an engine may register more. "
            "Together they must fit into the total.",
            examples=[{"index": "40Mi", "semanticCache": "30%"}],
        ),
    ] = None
    base_limit: Annotated[
        Amount | None,
        Meta(
            description="Up to where the process may grow without its index and caches, in bytes: interpreter, "
            "libraries, requests in work, granted and tracked allocations. Above it allocations are refused until "
            "memory comes free; caches go on. A percent is refused: libraries do not shrink with a budget.",
            examples=["120Mi"],
        ),
    ] = None


class CollectionPolicy(PolicyPart, frozen=True, kw_only=True):
    """What is asked for one collection."""

    name: Annotated[
        CollectionName,
        Meta(
            description="The collection as the engine knows it; default is what belongs to no collection.",
            examples=["core-api"],
        ),
    ]
    priority: Annotated[
        Priority | None,
        Meta(
            description="Who gives memory back first: Low before Medium before High. Critical is never evicted.",
            examples=["High"],
        ),
    ] = None
    max_loaded_files: Annotated[
        LoadedFiles | None,
        Meta(description="How many of its source files the engine keeps in memory.", examples=[500]),
    ] = None
    max_cached_queries: Annotated[
        CachedQueries | None,
        Meta(description="How many queries to it the engine's query cache keeps.", examples=[200]),
    ] = None


class EvictionPolicy(PolicyPart, frozen=True, kw_only=True):
    """What eviction leaves alone."""

    exclude_collections: Annotated[
        Annotated[tuple[CollectionName, ...], Meta(max_length=256)] | None,
        Meta(description="Collections that are never evicted, whatever their priority.", examples=[["pinned"]]),
    ] = None


class IndexPolicy(PolicyPart, frozen=True, kw_only=True):
    """How the index is held."""

    memory_mapped: Annotated[
        bool | None,
        Meta(
            description="Whether the index stays in its file, mapped, so that the kernel can take its pages back, or "
            "is loaded into memory of its own, which counts against the budget in full.",
            examples=[True],
        ),
    ] = None


class SpillPolicy(PolicyPart, frozen=True, kw_only=True):
    """The bound of the spill folder."""

    max_size: Annotated[
        Amount | None,
        Meta(
            description="Bytes that spilled values may take on disk. A percent is refused: a folder has no budget.",
            examples=["2Gi"],
        ),
    ] = None


class SamplingPolicy(PolicyPart, frozen=True, kw_only=True):
    """How often the sidecar looks while there is room."""

    interval_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=300)] | None,
        Meta(
            description="Seconds between two readings of memory while there is room; near a threshold the sidecar "
            "reads faster by itself.",
            examples=[5],
        ),
    ] = None


class GcPolicy(PolicyPart, frozen=True, kw_only=True):
    """Thresholds of the garbage collector, as for `gc.set_threshold`."""

    thresholds: Annotated[
        tuple[GcThreshold, GcThreshold, GcThreshold] | None,
        Meta(
            description="The three thresholds of Python's garbage collector in the engine, as gc.set_threshold takes "
            "them; higher ones run it less often.",
            examples=[[5000, 15, 15]],
        ),
    ] = None


class RolloutPolicy(PolicyPart, frozen=True, kw_only=True):
    """How fast a change of the policy reaches its pods."""

    max_percent: Annotated[
        Percent | None,
        Meta(
            description="Of the pods that follow the policy, how many percent may be in change at once, at least one. "
            "A pod is in change until it holds the plan, the pause is over, and it reports that it is well.",
            examples=[25],
        ),
    ] = None
    pause_seconds: Annotated[
        Seconds | None,
        Meta(
            description="How long a changed pod is watched before its place in the batch goes to the next one.",
            examples=[30],
        ),
    ] = None


class PolicySpec(PolicyPart, frozen=True, kw_only=True):
    """The `spec` of a MemoryPolicy."""

    selector: Annotated[
        LabelSelector,
        Meta(
            description="Which pods of this namespace follow the policy, by their labels; they must carry the label "
            'membudget.dev/managed: "true" as well. It must not be empty, so that no pod is selected by mistake. '
            "A policy that is read from a file needs none."
        ),
    ] = LabelSelector()
    precedence: Annotated[
        int,
        Meta(
            ge=-1000,
            le=1000,
            description="Between policies that select the same pod the higher precedence wins; then the older policy, "
            "then the name that is first in the alphabet. The other one says so in its conditions.",
            examples=[10],
        ),
    ] = 0
    mode: Annotated[
        Mode | None,
        Meta(
            description="Enforce: what is decided is done. Observe: memory is measured and decisions are made, but "
            "nothing is done; what would have been done is exported as metrics.",
            examples=["Observe"],
        ),
    ] = None
    profile: Annotated[
        ProfileName,
        Meta(
            description="The built-in base that this policy refines: what is left out here is as the profile has it.",
            examples=["Staging"],
        ),
    ] = ProfileName.PRODUCTION
    budget: Annotated[
        BudgetPolicy, Meta(description="How much memory the engine may use, how it is counted, and its split.")
    ] = BudgetPolicy()
    thresholds: Annotated[
        ThresholdsPolicy,
        Meta(description="The ladder: from which use of the budget on what is done. Percents are of the budget."),
    ] = ThresholdsPolicy()
    collections: Annotated[
        tuple[CollectionPolicy, ...],
        Meta(
            max_length=256,
            description="What holds for single collections, each named once.",
            examples=[[{"name": "core-api", "priority": "High"}]],
        ),
    ] = ()
    eviction: Annotated[EvictionPolicy, Meta(description="What eviction leaves alone.")] = EvictionPolicy()
    index: Annotated[IndexPolicy, Meta(description="How the index is held.")] = IndexPolicy()
    reload: Annotated[ReloadPolicy, Meta(description="What is to be loaded anew, once.")] = ReloadPolicy()
    caches: Annotated[CachesPolicy, Meta(description="How caches hold their values, and how many.")] = CachesPolicy()
    spill: Annotated[SpillPolicy, Meta(description="The folder that takes what Spill moves out of memory.")] = (
        SpillPolicy()
    )
    sampling: Annotated[SamplingPolicy, Meta(description="How often memory is read.")] = SamplingPolicy()
    rollout: Annotated[
        RolloutPolicy,
        Meta(
            description="How fast a change of the policy reaches its pods. While a changed pod is not well the others "
            "wait, and the condition Programmed says Paused, and why. Without a cluster it means nothing."
        ),
    ] = RolloutPolicy()
    resize: Annotated[
        ResizePolicy,
        Meta(
            description="The memory limit of the pods that follow the policy, changed in place, memory given back "
            "first. Without a cluster it means nothing."
        ),
    ] = ResizePolicy()
    alerts: Annotated[
        AlertsPolicy, Meta(description="What is said aloud: as metric, as log line, and in the sidecar's API.")
    ] = AlertsPolicy()
    gc: Annotated[GcPolicy, Meta(description="Python's garbage collector in the engine.")] = GcPolicy()


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


json_decoder(_Document)  # for `msgspec.convert`, which would work it out beside other threads


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
    check_selector(parsed.spec.selector)
    _check_collections(parsed.spec.collections)
    return MemoryPolicy(name=parsed.metadata.name, namespace=parsed.metadata.namespace, spec=parsed.spec)


def _check_names(spec: PolicySpec) -> None:
    """Python's `$` also matches before a final newline, the API server's does not: hold both to the same names."""
    for field, name in _names(spec):
        if name.endswith("\n"):
            raise PolicyInvalid(field, f"{name!r} ends in a newline")


def _names(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    yield from label_texts(spec.selector)
    yield from ((f"spec.collections[{at}].name", given.name) for at, given in enumerate(spec.collections))
    yield from ((f"spec.budget.components.{name.rstrip()}", name) for name in spec.budget.components or {})
    yield ("spec.resize.container", spec.resize.container or "")
    yield ("spec.reload.index", spec.reload.index or "")
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
    "spec.budget.components": Components,
    "spec.selector.matchLabels": MatchLabels,
}
"""Mappings whose keys the author chose; of these msgspec names no key."""

_ENUMS: Final[Mapping[str, type[enum.StrEnum]]] = {
    "mode": Mode,
    "resize.mode": ResizeMode,
    "profile": ProfileName,
    "signal": Signal,
    "action": RungAction,
    "priority": Priority,
    "operator": SelectorOperator,
    "disabled": AlertName,
}
"""By the name of the field, with that of its part where the name alone does not tell; of a list, that of its items."""

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
    if problem.startswith("Invalid enum value"):
        problem += f"; it is one of {_allowed(path)}"
    if named is None:
        return PolicyInvalid(path or "the document", problem[:1].lower() + problem[1:])
    field = f"{path}.{named['field'] or '(empty)'}".removeprefix(".")
    return PolicyInvalid(field, "is missing" if named["problem"] == "missing required" else "is an unknown field")


def _allowed(path: str) -> str:
    names = (path.rpartition("[")[0] if path.endswith("]") else path).split(".")
    return ", ".join(_ENUMS.get(".".join(names[-2:])) or _ENUMS[names[-1]])


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
