"""The ladder as a person writes it: entries, releases, actions, and distances to the container's limit.

Covers: the types below `spec.thresholds`. Does not cover defaults (`profiles`) nor their order (`compile`).
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from membudget_contract.policy_part import Percent, PolicyPart, Seconds
from membudget_contract.quantities import Amount

SecondsToLimit = Annotated[int, Meta(ge=1, le=3600)]


class RungAction(enum.StrEnum):
    """What a rung of the ladder does."""

    CLEANUP = "Cleanup"
    SPILL = "Spill"
    EVICT = "Evict"


class CollectPolicy(PolicyPart, frozen=True, kw_only=True):
    """When the garbage collector is asked to run; no rung of the ladder."""

    percent: Annotated[
        Percent | None,
        Meta(
            description="Python's garbage collector runs when use rises above this percent of the budget.",
            examples=[70],
        ),
    ] = None
    cooldown_seconds: Annotated[
        Seconds | None, Meta(description="Seconds from one such run to the next, at least.", examples=[120])
    ] = None
    headroom: Annotated[
        Amount | None,
        Meta(
            description="Runs as well when use comes this close to the container's live memory limit, in "
            "bytes. Without a limit it says nothing.",
            examples=["64Mi"],
        ),
    ] = None
    seconds_to_limit: Annotated[
        SecondsToLimit | None,
        Meta(
            description="Runs as well when use, growing as it does now, would meet the container's live memory "
            "limit within so many seconds. Without a limit it says nothing.",
            examples=[5],
        ),
    ] = None


class RungPolicy(PolicyPart, frozen=True, kw_only=True):
    """One rung of the ladder; percents are of the budget."""

    percent: Annotated[
        Percent | None,
        Meta(
            description="The rung is entered when use reaches this percent of the budget. "
            "Entries rise from soft to hard to emergency.",
        ),
    ] = None
    release_percent: Annotated[
        Percent | None,
        Meta(
            description="The rung is left when use falls below this percent of the budget. It lies below the entry, "
            "or the ladder would swing.",
        ),
    ] = None
    action: Annotated[
        RungAction | None,
        Meta(
            description="What is done on this rung. Cleanup: drop what has expired and what can be paged back in. "
            "Spill: move cached values to disk, to be loaded back on use. Evict: forget cached values, lowest "
            "priority first.",
            examples=["Spill"],
        ),
    ] = None
    free_percent: Annotated[
        Percent | None,
        Meta(description="What one action frees at least, in percent of the budget.", examples=[10]),
    ] = None
    cooldown_seconds: Annotated[
        Seconds | None,
        Meta(
            description="Seconds from one action of this rung to its next, at least; 0 waits for none.", examples=[30]
        ),
    ] = None
    headroom: Annotated[
        Amount | None,
        Meta(
            description="The rung is entered as well when use comes this close to the container's live memory "
            "limit, in bytes. Without a limit it says nothing.",
            examples=["64Mi"],
        ),
    ] = None
    seconds_to_limit: Annotated[
        SecondsToLimit | None,
        Meta(
            description="The rung is entered as well when use, growing as it does now, would meet the "
            "container's live memory limit within so many seconds. Without a limit it says nothing.",
            examples=[5],
        ),
    ] = None


class ThresholdsPolicy(PolicyPart, frozen=True, kw_only=True):
    """The ladder."""

    collect: Annotated[
        CollectPolicy,
        Meta(description="When Python's garbage collector is asked to run. It is no rung and changes no level."),
    ] = CollectPolicy()
    soft: Annotated[
        RungPolicy,
        Meta(
            description="The first rung: what can go at no cost goes.",
            examples=[{"percent": 75, "releasePercent": 70}],
        ),
    ] = RungPolicy()
    hard: Annotated[
        RungPolicy,
        Meta(
            description="The second rung: the budget is nearly used up.",
            examples=[{"percent": 90, "releasePercent": 84}],
        ),
    ] = RungPolicy()
    emergency: Annotated[
        RungPolicy,
        Meta(
            description="The last rung: the budget is about to be exceeded.",
            examples=[{"percent": 97, "releasePercent": 93}],
        ),
    ] = RungPolicy()
