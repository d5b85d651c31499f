"""Plans: what a policy means for one pod.

Covers: `Plan` (compiled, may still hold percents of a limit only the pod knows) and `EffectivePlan` (all bytes,
each value with the layer it came from). Both travel and are kept on disk, so they are wire messages: unknown
fields are ignored. Does not make them: `compile` and `resolve` do.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final

import msgspec

from membudget_contract import CONTRACT_VERSION
from membudget_contract.policy import Mode, Priority, ProfileName, Signal
from membudget_contract.policy_alerts import AlertName
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.quantities import MIB, Amount

ROOM_MARGIN_PERCENT: Final = 2
"""Of the budget, kept free below the soft entry."""
BASE_LIMIT_BYTES: Final = 100 * MIB
"""Of the process without its index and caches, where no policy says otherwise (R-E10)."""


LOADED_FILES: Final = 1000
LOADED_FILES_EACH: Final = 100
"""Of one collection."""
CACHED_QUERIES: Final = 100
CACHED_QUERIES_EACH: Final = 50
"""Where no policy says otherwise (R-E06, R-E22)."""


class Layer(enum.StrEnum):
    """Where a value came from, coarsest first; a later layer wins."""

    PROFILE = "Profile"
    POLICY = "Policy"
    COLLECTION = "Collection"
    ENVIRONMENT = "Environment"
    CONFIGURE = "Configure"


class Message(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of everything that travels or is kept: camelCase, unknown fields ignored."""


class CollectRule(Message, frozen=True, kw_only=True):
    """Garbage collection when usage crosses `percent` of the budget upward, or comes as close to the live limit.

    None: no distance to the limit is set.
    """

    percent: int
    cooldown_seconds: int
    headroom_bytes: int | None = None
    seconds_to_limit: int | None = None


class Rung(Message, frozen=True, kw_only=True):
    """One rung: entered at `percent`, left below `release_percent`, frees `free_percent` of the budget.

    Entered as well within `headroom_bytes` of the container's live limit, and when the trend meets that limit within
    `seconds_to_limit`; None: no such distance is set.
    """

    percent: int
    release_percent: int
    action: RungAction
    free_percent: int
    cooldown_seconds: int
    headroom_bytes: int | None = None
    seconds_to_limit: int | None = None


class Thresholds(Message, frozen=True, kw_only=True):
    """The ladder, lowest rung first."""

    collect: CollectRule
    soft: Rung
    hard: Rung
    emergency: Rung


class AlertRules(Message, frozen=True, kw_only=True):
    """Which alerts are raised, and from which figure on. `usage` is a text: bytes, or a percent of the total.

    Without a `usage` the figure is 14/15 of the total, which is 140 of the 150 MiB that the Production profile has.
    """

    enabled: bool
    disabled: tuple[AlertName, ...]
    usage_percent: int
    usage: str | None
    growth_bytes: int
    growth_seconds: int
    leak_growth_bytes: int
    leak_bytes_per_second: int
    leak_bytes_per_hour: int
    seconds_to_limit: int
    slow_spill_seconds: int
    resident_over_heap_percent: int
    evictions_count: int
    evictions_seconds: int

    def usage_bytes(self, total_bytes: int) -> int:
        """The figure over which use is alerted, for a budget of `total_bytes`."""
        return total_bytes * 14 // 15 if self.usage is None else Amount(self.usage).of(total_bytes)

    def raises(self, name: AlertName) -> bool:
        """Whether this alert is asked for."""
        return self.enabled and name not in self.disabled


class CollectionPlan(Message, frozen=True, kw_only=True):
    """What holds for one collection."""

    name: str
    priority: Priority
    max_loaded_files: int = LOADED_FILES_EACH
    max_cached_queries: int = CACHED_QUERIES_EACH


class Plan(Message, frozen=True, kw_only=True):
    """A compiled policy. `total` and `given` are texts: percents wait for the container's live limit."""

    contract: str = CONTRACT_VERSION
    policy: str | None
    profile: ProfileName
    mode: Mode
    signal: Signal
    total: str
    split: dict[str, int]
    given: dict[str, str]
    thresholds: Thresholds
    collections: tuple[CollectionPlan, ...]
    exclude_collections: tuple[str, ...]
    spill_max_bytes: int
    sampling_interval_seconds: int
    gc_thresholds: tuple[int, int, int]
    cache_compression: bool
    index_mapped: bool
    reload_index: str | None = None
    """Asks for one reload when it is another than the last; None asks for nothing."""
    base_limit_bytes: int = BASE_LIMIT_BYTES
    max_loaded_files: int = LOADED_FILES
    max_cached_queries: int = CACHED_QUERIES
    alerts: AlertRules
    layers: dict[str, Layer]


class EffectivePlan(Message, frozen=True, kw_only=True):
    """A plan in bytes, as one sidecar and one engine hold it.

    `components` are ceilings by component, `layers` the origin of each value by its path.
    """

    contract: str = CONTRACT_VERSION
    policy: str | None
    profile: ProfileName
    mode: Mode
    signal: Signal
    total_bytes: int
    components: dict[str, int]
    thresholds: Thresholds
    collections: tuple[CollectionPlan, ...]
    exclude_collections: tuple[str, ...]
    spill_max_bytes: int
    sampling_interval_seconds: int
    gc_thresholds: tuple[int, int, int]
    cache_compression: bool
    index_mapped: bool
    reload_index: str | None = None
    base_limit_bytes: int = BASE_LIMIT_BYTES
    max_loaded_files: int = LOADED_FILES
    max_cached_queries: int = CACHED_QUERIES
    alerts: AlertRules
    layers: dict[str, Layer]

    def percent_bytes(self, percent: int) -> int:
        """Bytes of a whole percent of the budget, rounded down."""
        return self.total_bytes * percent // 100

    @property
    def soft_entry_bytes(self) -> int:
        """Where the ladder's first rung begins."""
        return self.percent_bytes(self.thresholds.soft.percent)

    @property
    def room_margin_bytes(self) -> int:
        """What admission keeps free below the soft entry, so that full caches stay silent."""
        return self.percent_bytes(ROOM_MARGIN_PERCENT)

    def priority_of(self, collection: str) -> Priority:
        """The class of a collection; what no policy names is Medium."""
        for planned in self.collections:
            if planned.name == collection:
                return planned.priority
        return Priority.MEDIUM


def plan_hash(plan: Plan | EffectivePlan) -> str:
    """sha256 (hex) over the plan's bytes in a fixed order; what an acknowledgement names."""
    return hashlib.sha256(msgspec.json.encode(plan, order="deterministic")).hexdigest()
