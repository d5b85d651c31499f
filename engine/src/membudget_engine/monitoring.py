"""What an engine says of its memory to people: statistics, leaks, sessions, caches, and what to change.

Covers: the messages, and recommendations, which are pure. Does not cover routes and measuring (`monitoring_api`), nor
recommendations for a policy from days of use: those are the sidecar's (`membudget_contract.recommend`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from membudget_contract.control_api import ComponentReport, GcReport
from membudget_contract.leak_detector_api import LeakFindings
from membudget_contract.policy import Signal
from membudget_contract.quantities import MIB
from membudget_engine.caches.counted_cache import CountingCache

NEARLY_FULL: Final = 0.85
"""Of the budget: the figure of the alert UsageHigh (R-S07)."""
MOSTLY_UNMANAGED: Final = 0.5
"""Of the budget held by nobody's account: no eviction can give it back."""
LOOKUPS: Final = 100
"""From so many on a hit ratio says something."""
SELDOM: Final = 0.2
"""A full cache that answers less than every fifth look-up is worth its bytes elsewhere."""
FULL: Final = 0.9
"""Of a ceiling."""
LEAK_BYTES_PER_HOUR: Final = 10 * MIB
"""As R-S08 has it."""


class Statistics(msgspec.Struct, frozen=True):
    """The process against its budget. A figure that the kernel did not tell is null."""

    signal: Signal
    signal_bytes: int | None
    resident_bytes: int | None
    budget_bytes: int
    usage_ratio: float | None
    managed_bytes: int
    unmanaged_bytes: int | None
    room_bytes: int | None
    """Managed bytes that fit now; null in Observe mode."""
    enforced: bool
    refused: int
    evictions: int
    gc: GcReport
    components: tuple[ComponentReport, ...]


class SessionFigures(msgspec.Struct, frozen=True):
    """Of conversations."""

    sessions: int
    most_sessions: int
    owned_bytes: int
    ended_idle: int
    gave_way: int


class CacheFigures(msgspec.Struct, frozen=True):
    """Of one cache. `hit_ratio` is null before the first look-up, `ceiling_bytes` where the room alone bounds it."""

    name: str
    entries: int
    owned_bytes: int
    ceiling_bytes: int | None
    hits: int
    misses: int
    hit_ratio: float | None
    evictions: int
    expirations: int
    refused: int


class Recommendation(msgspec.Struct, frozen=True):
    """One thing to change: `about` names it, `reason` has the figures."""

    about: str
    reason: str
    advice: str


class MemoryView(msgspec.Struct, frozen=True):
    """GET /monitoring/memory."""

    statistics: Statistics
    leaks: LeakFindings
    sessions: SessionFigures
    caches: tuple[CacheFigures, ...]
    recommendations: tuple[Recommendation, ...]


class Optimized(msgspec.Struct, frozen=True):
    """POST /monitoring/memory/optimize: the kernel's figures before and after, each the median of three readings.

    `freed_bytes` is their difference and may be negative: others allocate meanwhile. Null: the kernel did not tell.
    """

    signal: Signal
    before_bytes: int | None
    after_bytes: int | None
    freed_bytes: int | None
    resident_before_bytes: int | None
    resident_after_bytes: int | None
    expired_entries: int
    collected_objects: int
    took_seconds: float
    problem: str | None = None


def cache_figures(cache: CountingCache, ceilings: Mapping[str, int]) -> CacheFigures:
    """What a cache says of itself, with its ceiling."""
    counters = cache.counters
    return CacheFigures(
        name=cache.name,
        entries=len(cache),
        owned_bytes=cache.owned_bytes(),
        ceiling_bytes=ceilings.get(cache.name),
        hits=counters.hits,
        misses=counters.misses,
        hit_ratio=counters.hit_ratio,
        evictions=counters.evictions,
        expirations=counters.expirations,
        refused=counters.refused,
    )


def recommendations(
    statistics: Statistics, leaks: LeakFindings, caches: Sequence[CacheFigures]
) -> tuple[Recommendation, ...]:
    """What to change, the whole before its parts; none where nothing stands out."""
    return (*_of_the_whole(statistics, leaks), *(advice for cache in caches for advice in _of_a_cache(cache)))


def _of_the_whole(now: Statistics, leaks: LeakFindings) -> Iterator[Recommendation]:
    budget = _megabytes(now.budget_bytes)
    if now.usage_ratio is not None and now.usage_ratio >= NEARLY_FULL:
        yield Recommendation(
            "budget.total",
            f"{now.usage_ratio:.0%} of {budget} are in use",
            "raise the budget, or give less to the largest component",
        )
    if now.unmanaged_bytes is not None and now.unmanaged_bytes > MOSTLY_UNMANAGED * now.budget_bytes:
        yield Recommendation(
            "unmanaged",
            f"{_megabytes(now.unmanaged_bytes)} of {budget} are held by no component: no eviction gives them back",
            "switch the leak detector on and look at its largest sites, or raise the budget",
        )
    if leaks.bytes_per_hour is not None and leaks.bytes_per_hour > LEAK_BYTES_PER_HOUR:
        yield Recommendation(
            "leaks",
            f"memory grows by {_megabytes(leaks.bytes_per_hour)} an hour",
            "look at the types and sites that grew",
        )
    for part in now.components:
        if part.budget_bytes is not None and part.owned_bytes > part.budget_bytes:
            yield Recommendation(
                f"budget.components.{part.name}",
                f"holds {_megabytes(part.owned_bytes)} where {_megabytes(part.budget_bytes)} are its ceiling",
                "raise its ceiling, or allow what it holds to be evicted",
            )


def _of_a_cache(cache: CacheFigures) -> Iterator[Recommendation]:
    about = f"budget.components.{cache.name}"
    if cache.refused > cache.entries:
        yield Recommendation(
            about,
            f"refused {cache.refused} entries and holds {cache.entries}",
            "raise its ceiling, or lower the priority of what stands in its way",
        )
    full = cache.ceiling_bytes is not None and cache.owned_bytes >= FULL * cache.ceiling_bytes
    seldom = cache.hit_ratio is not None and cache.hit_ratio < SELDOM and cache.hits + cache.misses >= LOOKUPS
    if full and seldom:
        yield Recommendation(
            about,
            f"is full with {_megabytes(cache.owned_bytes)} and answers {cache.hit_ratio:.0%} of its look-ups",
            "lower its ceiling: its bytes are worth more elsewhere",
        )


def _megabytes(amount: int) -> str:
    return f"{amount / MIB:.1f} MB"
