"""The status of a MemoryPolicy: what became of it, as `kubectl get mempol` and `kubectl wait` read it (R-P10).

Covers: counts, the conditions, and the reason each may give. No usage figures, which change with every
sample (those are metrics), no phase, no floats. Does not decide which condition holds: the controller does.
Neighbours: `crd` makes the status schema of these types, `policy` holds the spec.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta


class ConditionType(enum.StrEnum):
    """The questions that a status answers, in the order in which they arise and are written."""

    ACCEPTED = "Accepted"
    PROGRAMMED = "Programmed"
    READY = "Ready"
    RESIZED = "Resized"
    """Asked only where the policy resizes pods."""


class ConditionStatus(enum.StrEnum):
    """The answer to one of them."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(enum.StrEnum):
    """Why a condition has its status; `REASONS` says which condition gives which."""

    ACCEPTED = "Accepted"
    """The policy was compiled to a plan."""
    CONFLICTED = "Conflicted"
    """Another policy selects the same pod and wins there."""
    OVERRIDDEN = "Overridden"
    """A `configure` call holds a pod tighter than the policy, for a time."""
    INVALID = "Invalid"
    """The policy contradicts itself; the message names the field."""

    PROGRAMMED = "Programmed"
    """Every pod that follows the policy has acknowledged its plan."""
    PUSHING = "Pushing"
    """Some pods have not yet been sent the plan."""
    PAUSED = "Paused"
    """The rollout waits; the message says for what."""
    REFUSED = "Refused"
    """A pod cannot hold the plan; the message says which and why."""
    UNREACHABLE = "Unreachable"
    """A pod does not answer."""
    KEYS_PENDING = "KeysPending"
    """A pod cannot verify orders yet: its copy of the public keys is still on its way."""

    UNDER_BUDGET = "UnderBudget"
    """Every pod that follows the policy reports its signal under the budget."""
    OVER_BUDGET = "OverBudget"
    """A pod reports its signal over the budget."""
    ONLY_CRITICAL_LEFT = "OnlyCriticalLeft"
    """A pod is over its budget with nothing left that may be evicted."""
    REPORT_MISSING = "ReportMissing"
    """A pod has not reported; what it uses is unknown, not zero."""
    NO_PODS = "NoPods"
    """No pod follows the policy."""

    RESIZED = "Resized"
    """Every pod has the memory limit that the policy asks for."""
    GIVING_BACK = "GivingBack"
    """A pod still uses more than fits into its lower limit; the message has the figure it measured."""
    RESIZING = "Resizing"
    """A pod's kubelet has been asked and is at it."""
    RESIZE_REFUSED = "ResizeRefused"
    """The API server or a kubelet does not set the limit; the message says why."""
    NOT_RESIZABLE = "NotResizable"
    """A pod cannot be resized in place as it is; the message says why."""
    OBSERVING = "Observing"
    """In Observe mode nothing is given back, so nothing is resized."""


REASONS: Final[Mapping[ConditionType, tuple[Reason, ...]]] = {
    ConditionType.ACCEPTED: (Reason.ACCEPTED, Reason.CONFLICTED, Reason.OVERRIDDEN, Reason.INVALID),
    ConditionType.PROGRAMMED: (
        Reason.PROGRAMMED,
        Reason.PUSHING,
        Reason.PAUSED,
        Reason.REFUSED,
        Reason.UNREACHABLE,
        Reason.KEYS_PENDING,
        Reason.NO_PODS,
    ),
    ConditionType.READY: (
        Reason.UNDER_BUDGET,
        Reason.OVER_BUDGET,
        Reason.ONLY_CRITICAL_LEFT,
        Reason.REPORT_MISSING,
        Reason.NO_PODS,
    ),
    ConditionType.RESIZED: (
        Reason.RESIZED,
        Reason.GIVING_BACK,
        Reason.RESIZING,
        Reason.RESIZE_REFUSED,
        Reason.NOT_RESIZABLE,
        Reason.OBSERVING,
        Reason.NO_PODS,
    ),
}
"""The reasons by condition; the controller gives no other."""

Count = Annotated[int, Meta(ge=0)]


class StatusPart(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of every part of a status: camelCase on paper; an unknown field is a later version's and ignored."""


class Condition(StatusPart, frozen=True, kw_only=True):
    """The answer to one question, as Kubernetes shapes all conditions."""

    type: Annotated[
        ConditionType,
        Meta(
            description="Accepted: the policy makes a plan, and no other policy takes its pods. Programmed: every pod "
            "that follows it acknowledged that plan. Ready: every one reports its memory under the budget. Resized: "
            "every one has the memory limit that the policy asks for; there only where it asks for one."
        ),
    ]
    status: Annotated[ConditionStatus, Meta(description="True, False, or Unknown where nothing was heard.")]
    observed_generation: Annotated[
        Count, Meta(description="The metadata.generation of the policy that the condition speaks of.")
    ]
    last_transition_time: Annotated[
        dt.datetime, Meta(tz=True, description="When the status last changed from one value to another.")
    ]
    reason: Annotated[Reason, Meta(description="Why, in one word for programs.")]
    message: Annotated[
        str, Meta(max_length=32_768, description="Why, in a sentence for people: which pods or fields, what to do.")
    ]


class PolicyStatus(StatusPart, frozen=True, kw_only=True):
    """The `status` of a MemoryPolicy."""

    observed_generation: Annotated[
        Count | None,
        Meta(description="The metadata.generation that this status speaks of; lower than it: not yet looked at."),
    ] = None
    matched_pods: Annotated[Count | None, Meta(description="Pods that follow this policy.")] = None
    programmed_pods: Annotated[
        Count | None, Meta(description="Of these, pods that acknowledged the policy as it is now.")
    ] = None
    refused_pods: Annotated[
        Count | None, Meta(description="Of these, pods that cannot hold it; they keep their last good plan.")
    ] = None
    resized_pods: Annotated[
        Count | None,
        Meta(description="Of these, pods that have the memory limit of spec.resize; absent where it is Off."),
    ] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=8, description="What became of the policy: Accepted, then Programmed, then Ready, Resized."),
    ] = ()
