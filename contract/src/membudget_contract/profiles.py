"""The three built-in profiles: what holds where a policy says nothing (R-P02, R-P04, R-P06).

Covers: totals, the split by component, thresholds, garbage collection, compression, how the index is held, alerts.
Does not cover merging (`compile`) or bytes (`resolve`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from membudget_contract.plan import AlertRules, CollectRule, Rung, Thresholds
from membudget_contract.policy import ProfileName
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.quantities import MIB

INDEX: Final = "index"
SEMANTIC_CACHE: Final = "semanticCache"
HISTORY_CACHE: Final = "historyCache"
EMBEDDING_BUFFER: Final = "embeddingBuffer"
WORKING: Final = "working"
"""Everything no other component owns: interpreter, libraries, requests. Measured, never enforced."""

PRODUCTION_SPLIT: Final = {
    INDEX: 30,
    SEMANTIC_CACHE: 40,
    HISTORY_CACHE: 30,
    EMBEDDING_BUFFER: 20,
    WORKING: 30,
}
"""Parts of 150."""

BUILT_IN_THRESHOLDS: Final = Thresholds(
    collect=CollectRule(percent=75, cooldown_seconds=60),
    soft=Rung(percent=80, release_percent=75, action=RungAction.CLEANUP, free_percent=5, cooldown_seconds=10),
    hard=Rung(percent=93, release_percent=88, action=RungAction.SPILL, free_percent=10, cooldown_seconds=10),
    emergency=Rung(percent=98, release_percent=94, action=RungAction.EVICT, free_percent=15, cooldown_seconds=0),
)

BUILT_IN_ALERTS: Final = AlertRules(
    enabled=True,
    disabled=(),
    usage_percent=85,
    usage=None,
    growth_bytes=20 * MIB,
    growth_seconds=50,
    leak_growth_bytes=10 * MIB,
    leak_bytes_per_second=10_486,  # 0.01 MiB
    leak_bytes_per_hour=10 * MIB,
    seconds_to_limit=300,
    slow_spill_seconds=5,
    resident_over_heap_percent=200,
    evictions_count=10,
    evictions_seconds=300,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """One base. `split` is a ratio of whole parts; `total` a quantity; without monitoring no alerts are raised."""

    total: str
    split: dict[str, int]
    gc_thresholds: tuple[int, int, int]
    cache_compression: bool
    index_mapped: bool
    monitoring: bool


def _split_around_cache(total: int, cache: int) -> dict[str, int]:
    """The semantic cache takes `cache` of `total` parts; the rest is shared as the Production split shares it."""
    others = {name: parts for name, parts in PRODUCTION_SPLIT.items() if name != SEMANTIC_CACHE}
    whole = sum(others.values())
    return {
        name: cache * whole if name == SEMANTIC_CACHE else (total - cache) * others[name] for name in PRODUCTION_SPLIT
    }


PROFILES: Final = {
    ProfileName.PRODUCTION: Profile(
        "150Mi", PRODUCTION_SPLIT, (10_000, 20, 20), cache_compression=True, index_mapped=True, monitoring=True
    ),
    ProfileName.STAGING: Profile(
        "200Mi",
        _split_around_cache(200, 60),
        (5_000, 15, 15),
        cache_compression=True,
        index_mapped=False,
        monitoring=True,
    ),
    ProfileName.DEVELOPMENT: Profile(
        "500Mi",
        _split_around_cache(500, 100),
        (700, 10, 10),
        cache_compression=False,
        index_mapped=False,
        monitoring=False,
    ),
}

SPILL_MAX_BYTES: Final = 1_000 * MIB
SAMPLING_INTERVAL_SECONDS: Final = 10
