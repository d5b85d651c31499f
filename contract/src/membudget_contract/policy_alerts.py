"""Alerts as a person writes them: which are raised, and from which figure on.

Covers: the types below `spec.alerts`. Does not cover defaults (`profiles`) nor raising them (the sidecar's `alerts`).
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from membudget_contract.policy_part import Percent, PolicyPart
from membudget_contract.quantities import Amount

Window = Annotated[int, Meta(ge=1, le=86_400)]


class AlertName(enum.StrEnum):
    """What a sidecar can raise, each of it can be switched off by this name."""

    USAGE_HIGH = "UsageHigh"
    """Use over a percent of the budget."""
    USAGE_OVER_FIGURE = "UsageOverFigure"
    """Use over a figure in bytes."""
    GROWTH = "Growth"
    """Use grew by so many bytes within so many seconds."""
    LEAK_SUSPECTED = "LeakSuspected"
    LIMIT_SOON = "LimitSoon"
    """Growing as it does, use meets the container's limit within so many seconds."""
    SLOW_SPILL = "SlowSpill"
    RESIDENT_OVER_HEAP = "ResidentOverHeap"
    """Resident memory without libraries and the mapped files that the engine knows of is a multiple of its heap."""
    FREQUENT_EVICTIONS = "FrequentEvictions"


class GrowthAlertPolicy(PolicyPart, frozen=True, kw_only=True):
    """Growth within a window."""

    bytes: Annotated[
        Amount | None,
        Meta(
            description="An alert is raised when use has grown by so many bytes within the window.", examples=["50Mi"]
        ),
    ] = None
    seconds: Annotated[Window | None, Meta(description="The window, in seconds.", examples=[120])] = None


class LeakAlertPolicy(PolicyPart, frozen=True, kw_only=True):
    """From which growth on a leak is suspected; what a component owns inside its budget is never one."""

    growth: Annotated[
        Amount | None,
        Meta(description="Sustained growth below so many bytes in all is not suspected.", examples=["25Mi"]),
    ] = None
    per_second: Annotated[
        Amount | None,
        Meta(
            description="Growth by so many bytes a second is suspected once it has lasted, however little in all.",
            examples=["50Ki"],
        ),
    ] = None
    per_hour: Annotated[
        Amount | None,
        Meta(description="A suspected leak is called likely from so many bytes an hour on.", examples=["20Mi"]),
    ] = None


class EvictionsAlertPolicy(PolicyPart, frozen=True, kw_only=True):
    """Evictions within a window."""

    count: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="An alert is raised when so many evictions were carried out in the window.", examples=[20]),
    ] = None
    seconds: Annotated[Window | None, Meta(description="The window, in seconds.", examples=[600])] = None


class AlertsPolicy(PolicyPart, frozen=True, kw_only=True):
    """What is said aloud: as metric, as log line, and in the sidecar's API."""

    enabled: Annotated[
        bool | None,
        Meta(
            description="Whether alerts are raised and leaks looked for at all. Measuring, metrics and the ladder do "
            "not depend on it.",
            examples=[False],
        ),
    ] = None
    disabled: Annotated[
        Annotated[tuple[AlertName, ...], Meta(max_length=len(AlertName))] | None,
        Meta(description="Alerts that are not raised, by name.", examples=[["SlowSpill"]]),
    ] = None
    usage_percent: Annotated[
        Percent | None,
        Meta(description="An alert is raised when use is over this percent of the budget.", examples=[90]),
    ] = None
    usage: Annotated[
        Amount | None,
        Meta(
            description="An alert is raised when use is over this figure, in bytes or in percent of the total.",
            examples=["145Mi"],
        ),
    ] = None
    growth: Annotated[GrowthAlertPolicy, Meta(description="An alert is raised when use grows fast.")] = (
        GrowthAlertPolicy()
    )
    leak: Annotated[LeakAlertPolicy, Meta(description="When a leak is suspected.")] = LeakAlertPolicy()
    seconds_to_limit: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | None,
        Meta(
            description="An alert is raised when use, growing as it does, would meet the container's live memory limit "
            "within so many seconds.",
            examples=[600],
        ),
    ] = None
    slow_spill_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=3600)] | None,
        Meta(description="An alert is raised when a spill took longer than so many seconds.", examples=[10]),
    ] = None
    resident_over_heap_percent: Annotated[
        Annotated[int, Meta(ge=101, le=10_000)] | None,
        Meta(
            description="An alert is raised when resident memory, without libraries and the mapped files that the "
            "engine knows of, is over this percent of its memory that is in no file.",
            examples=[300],
        ),
    ] = None
    evictions: Annotated[EvictionsAlertPolicy, Meta(description="An alert is raised when evictions are frequent.")] = (
        EvictionsAlertPolicy()
    )
