"""Profiles as Hypothesis draws them, and one whose every promise holds."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from membudget_cli.profile.results import (
    CacheRun,
    Caches,
    IndexRun,
    Machine,
    MappedIndexes,
    Phase,
    Profile,
    Side,
    StoreRun,
    Stores,
    Workload,
)

MIB = 1024 * 1024
BYTES = st.integers(1, 1 << 40)
SECONDS = st.floats(1e-6, 100.0)


def store_run(kind: str, chunks: int, grown: int, **changed: Any) -> StoreRun:
    """A store that reports what it grew by and gives all of it back."""
    run = StoreRun(kind, chunks, grown, reported_bytes=grown, lookups_per_second=1e5, kept_bytes=0)
    return msgspec.structs.replace(run, **changed)


def stores(bytes_each: int = 300) -> Stores:
    """Linear, and less on SQLite."""
    memory = [store_run("memory", count, count * bytes_each) for count in (10_000, 12_500, 25_000, 50_000)]
    return Stores(
        (*memory, store_run("database", 10_000, 10_000 * bytes_each // 10), store_run("objects", 10_000, 10_000_000))
    )


def indexes(loaded: int = 28 * MIB, mapped: int = MIB // 4, more: float = 0.0) -> MappedIndexes:
    """Two processes of each kind."""
    runs = [IndexRun(kind, size, size, p50, p50) for kind, size, p50 in (("loaded", loaded, 0.001),) for _ in range(2)]
    runs += [IndexRun("mapped", mapped, mapped, 0.001 + more, 0.001 + more) for _ in range(2)]
    return MappedIndexes(loaded, 18_000, 384, 1_000, tuple(runs))


def caches(full: int = 32 * MIB, reported: int = 31 * MIB) -> Caches:
    """A ceiling of 32 MiB."""
    bounded = CacheRun("bounded", full, reported, 0.3, full // 4, 0)
    return Caches(32 * MIB, 3, (bounded, CacheRun("dict", 96 * MIB, 90 * MIB, 0.5, 20 * MIB, 0)))


def side(resident: int, p50: float = 0.002) -> Side:
    """One engine in one phase."""
    return Side(resident, resident, resident // 2, p50, 10 * p50, 5.0, {"index": 60, "same_words": 40}, 0)


def workload(
    ours: int = 117 * MIB, naive: int = 320 * MIB, ratio: float = 1.0, signal: float = 0.78, transitions: int = 0
) -> Workload:
    """What fits, more than fits, and with pauses; a full machine is slower by more than `ratio`."""
    fits = Phase("what fits", 1_000, 500, side(95 * MIB, 0.003 * ratio), side(110 * MIB), (0.6, 0.62, 0.64), 0, 0.03)
    shares = signal - 0.01, signal, signal
    more = Phase("more than fits", 3_000, 2_000, side(ours, 0.004 * ratio), side(naive), shares, transitions, 0.03)
    paused = msgspec.structs.replace(
        more, name="with pauses", questions=300, ours=side(ours, 0.002 * ratio), pause_seconds=0.25
    )
    curve = ((0.0, 60 * MIB), (1.0, 95 * MIB), (2.0, 117 * MIB))
    return Workload(150 * MIB, 80.0, 20, (fits, more, paused), {}, 0, curve, curve, (1.0, 2.0, 2.5))


def profile(**parts: Any) -> Profile:
    """Every part, a promise kept in each; `parts` are changed."""
    machine = Machine(2, 8 << 30, None, "Linux 6.18", "3.11.2", "glibc 2.36", "0.1.0", 0.5, 1.5)
    made = Profile(
        "membudget profile", "2026-11-21 12:00 UTC", quick=False, seconds=300.0, machine=machine,
        stores=stores(), mmap=indexes(), caches=caches(), workload=workload(),
    )  # fmt: skip
    return msgspec.structs.replace(made, **parts)
