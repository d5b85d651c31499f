"""What was measured, part by part; nothing in it was calculated but medians and quantiles of readings.

Covers: the figures, in bytes and seconds. Does not cover what follows from them (`verdicts`).
"""

from __future__ import annotations

import msgspec

Curve = tuple[tuple[float, int], ...]
"""Seconds since the start, and resident bytes read then."""


class StoreRun(msgspec.Struct, frozen=True):
    """One process that filled a store, asked it and closed it. Bytes are anonymous memory beyond the empty store's."""

    kind: str
    chunks: int
    grown_bytes: int
    reported_bytes: int
    """By the store itself; 0 for one that reports none."""
    lookups_per_second: float
    """Of processor time."""
    kept_bytes: int
    """After closing."""


class Stores(msgspec.Struct, frozen=True):
    """Stores of code chunks."""

    runs: tuple[StoreRun, ...]


class IndexRun(msgspec.Struct, frozen=True):
    """One process that opened an index and searched it. Bytes are anonymous memory beyond what it had before."""

    kind: str
    """`loaded` or `mapped`."""
    opened_bytes: int
    searched_bytes: int
    p50: float
    p90: float


class MappedIndexes(msgspec.Struct, frozen=True):
    """The same index file, loaded and mapped."""

    index_bytes: int
    vectors: int
    dimension: int
    queries: int
    runs: tuple[IndexRun, ...]


class CacheRun(msgspec.Struct, frozen=True):
    """One process that was offered more than it may hold. Bytes are anonymous memory beyond the empty cache's."""

    kind: str
    """`bounded` or `dict`."""
    full_bytes: int
    reported_bytes: int
    hit_ratio: float
    shrunk_bytes: int
    cleared_bytes: int


class Caches(msgspec.Struct, frozen=True):
    """A bounded cache and a dict under the same requests."""

    ceiling_bytes: int
    offered_times: int
    runs: tuple[CacheRun, ...]


class Side(msgspec.Struct, frozen=True):
    """One of the two engines during one phase."""

    resident_bytes: int
    """Median of the phase's last readings."""
    peak_bytes: int
    anonymous_bytes: int
    """At the end."""
    p50: float
    p99: float
    processor_seconds: float
    """Of its process, all phase long."""
    answered_by: dict[str, int]
    conversations_lost: int
    """That gave way to other bytes; their agents began others."""


class Phase(msgspec.Struct, frozen=True):
    """So many questions, each asked of both engines."""

    name: str
    questions: int
    distinct: int
    """Of the questions asked in this phase."""
    ours: Side
    naive: Side
    signal_shares: tuple[float, float, float]
    """Least, median and largest share of the budget in the second half of the phase."""
    transitions: int
    """Of the ladder, since the start."""
    pause_seconds: float
    """Of an agent between two questions."""


class Workload(msgspec.Struct, frozen=True):
    """The whole workload, ours beside the naive build."""

    budget_bytes: int
    soft_percent: float
    agents: int
    phases: tuple[Phase, Phase, Phase]
    """What fits, more than fits, and the last of that with pauses."""
    failures: dict[str, int]
    restarts: int
    ours_curve: Curve
    naive_curve: Curve
    phase_ends: tuple[float, ...]
    """Seconds since the start of the load."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processors: int
    memory_bytes: int
    limit_bytes: int | None
    """Of the memory cgroup this ran in; None where there is none, or no limit."""
    kernel: str
    python: str
    libc: str
    version: str
    load_before: float
    load_after: float
    """Load averages over a minute."""


class Profile(msgspec.Struct, frozen=True):
    """One run; a part that was not asked for is None."""

    command: str
    measured_at: str
    quick: bool
    seconds: float
    machine: Machine
    stores: Stores | None = None
    mmap: MappedIndexes | None = None
    caches: Caches | None = None
    workload: Workload | None = None
