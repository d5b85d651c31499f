"""What follows from the figures: each promise, what was measured of it, and whether it holds.

Covers: pure functions from `results`. Does not cover showing them (`report`). Promises are those of docs/features.md.
"""

from __future__ import annotations

import statistics
from typing import Final

import msgspec

from membudget_cli.figures import mebibytes
from membudget_cli.profile.results import (
    CacheRun,
    Caches,
    IndexRun,
    MappedIndexes,
    Phase,
    Profile,
    StoreRun,
    Stores,
    Workload,
)

MOST_CHUNK_BYTES: Final = 1_550
DOUBLING: Final = (1.95, 2.05)
LEAST_RELEASED: Final = 0.756
REPORTED_WITHIN: Final = 0.1
LEAST_INDEX_SAVED: Final = 0.7
MOST_INDEX_SECONDS_MORE: Final = 0.010
LEAST_WORKLOAD_SAVED: Final = 0.6
MOST_P50_RATIO: Final = 1.02
MOST_FITTING_SHARE: Final = 0.7
NEAR_SOFT: Final = 0.05
"""Full caches settle 2 % of the budget under the soft threshold; a little less still counts as full."""
WORDS: Final = {True: "yes", False: "NO", None: "too short to say"}


class Verdict(msgspec.Struct, frozen=True):
    """One promise and what came of it."""

    part: str
    promise: str
    measured: str
    holds: bool | None
    """None: the run was too short to say."""


def verdicts(profile: Profile) -> list[Verdict]:
    """Of all parts that were measured, in their order."""
    found: list[Verdict] = []
    if profile.stores is not None:
        found += store_verdicts(profile.stores)
    if profile.mmap is not None:
        found += index_verdicts(profile.mmap)
    if profile.caches is not None:
        found += cache_verdicts(profile.caches)
    if profile.workload is not None:
        found += workload_verdicts(profile.workload)
    return found


def chunk_bytes(stores: Stores, kind: str, chunks: int) -> float:
    """Bytes of anonymous memory a chunk costs: the median of the runs of that kind and number."""
    return statistics.median(run.grown_bytes / run.chunks for run in _runs(stores, kind, chunks))


def store_verdicts(stores: Stores) -> list[Verdict]:
    """The five store profiles."""
    chunks = min(run.chunks for run in stores.runs if run.kind == "database")
    memory, database = (chunk_bytes(stores, kind, chunks) for kind in ("memory", "database"))
    objects = chunk_bytes(stores, "objects", chunks)
    reported = statistics.median(run.reported_bytes / run.grown_bytes for run in _runs(stores, "memory", chunks))
    largest = max((run for run in stores.runs if run.kind == "memory"), key=lambda run: run.chunks)
    ratios = doublings(stores)
    released = min(1 - run.kept_bytes / run.grown_bytes for run in stores.runs if run.kind == "memory")
    part = "stores"
    return [
        Verdict(
            part,
            f"{chunks:,} chunks in memory cost at most {MOST_CHUNK_BYTES:,} bytes each",
            f"{memory:,.0f} bytes each; as plain objects {objects:,.0f}",
            memory <= MOST_CHUNK_BYTES,
        ),
        Verdict(
            part,
            "on SQLite they cost less memory than in memory",
            f"{database:,.0f} bytes each",
            database < memory,
        ),
        Verdict(
            part,
            "the store reports what the kernel charges, within 10 %",
            f"{100 * reported:.1f} % of it",
            abs(reported - 1) <= REPORTED_WITHIN,
        ),
        Verdict(
            part,
            f"memory grows linearly: doubling is 2.00 ± 0.05, {largest.chunks:,} chunks within the same bytes each",
            f"{', '.join(f'{ratio:.3f}' for ratio in ratios)}; {largest.grown_bytes / largest.chunks:,.0f} bytes each",
            all(DOUBLING[0] <= ratio <= DOUBLING[1] for ratio in ratios)
            and largest.grown_bytes <= MOST_CHUNK_BYTES * largest.chunks,
        ),
        Verdict(
            part,
            f"closing gives at least {100 * LEAST_RELEASED:.1f} % back",
            f"{100 * released:.1f} % at least",
            released >= LEAST_RELEASED,
        ),
    ]


def doublings(stores: Stores) -> list[float]:
    """By how much memory grew where the number of chunks doubled; one ratio for each pair of numbers."""
    grown = {
        count: statistics.median(run.grown_bytes for run in _runs(stores, "memory", count))
        for count in sorted({run.chunks for run in stores.runs if run.kind == "memory"})
    }
    return [grown[2 * count] / grown[count] for count in grown if 2 * count in grown]


def index_verdicts(indexes: MappedIndexes) -> list[Verdict]:
    """The mmap profile."""
    saved, more = index_saving(indexes), p50(indexes, "mapped") - p50(indexes, "loaded")
    return [
        Verdict(
            "mmap",
            f"mapped, an index needs at least {100 * LEAST_INDEX_SAVED:.0f} % less anonymous memory than loaded",
            f"{100 * saved:.1f} % less: {mebibytes(int(searched(indexes, 'mapped')))} instead of "
            f"{mebibytes(int(searched(indexes, 'loaded')))}",
            saved >= LEAST_INDEX_SAVED,
        ),
        Verdict(
            "mmap",
            f"a query takes at most {1000 * MOST_INDEX_SECONDS_MORE:.0f} ms longer at the median",
            f"{1000 * more:+.3f} ms: {1000 * p50(indexes, 'mapped'):.3f} ms instead of "
            f"{1000 * p50(indexes, 'loaded'):.3f} ms",
            more <= MOST_INDEX_SECONDS_MORE,
        ),
    ]


def index_saving(indexes: MappedIndexes) -> float:
    """Share of the loaded index's anonymous memory that the mapped one does without."""
    return 1 - searched(indexes, "mapped") / searched(indexes, "loaded")


def searched(indexes: MappedIndexes, kind: str) -> float:
    """Anonymous bytes after searching: the median of the runs."""
    return statistics.median(run.searched_bytes for run in _index_runs(indexes, kind))


def p50(indexes: MappedIndexes, kind: str) -> float:
    """Seconds of a query: the median of the runs' medians."""
    return statistics.median(run.p50 for run in _index_runs(indexes, kind))


def cache_verdicts(caches: Caches) -> list[Verdict]:
    """The cache profile."""
    bounded, unbounded = cache_run(caches, "bounded"), cache_run(caches, "dict")
    reported = bounded.reported_bytes / bounded.full_bytes
    return [
        Verdict(
            "caches",
            f"offered {caches.offered_times} times its {mebibytes(caches.ceiling_bytes)}, a cache stays within them",
            f"{mebibytes(bounded.reported_bytes)} as it counts, {mebibytes(bounded.full_bytes)} as the kernel does; "
            f"a dict {mebibytes(unbounded.full_bytes)}",
            bounded.reported_bytes <= caches.ceiling_bytes
            and bounded.full_bytes <= (1 + REPORTED_WITHIN) * caches.ceiling_bytes,
        ),
        Verdict(
            "caches",
            "it reports what the kernel charges, within 10 %",
            f"{100 * reported:.1f} % of it",
            abs(reported - 1) <= REPORTED_WITHIN,
        ),
    ]


def workload_verdicts(workload: Workload) -> list[Verdict]:
    """The whole workload beside the naive build."""
    fits, more, paused = workload.phases
    saved = saving(paused)
    soft, failed = workload.soft_percent / 100, sum(workload.failures.values())
    peak = max(phase.ours.peak_bytes for phase in workload.phases)
    full = overflowed(workload)
    return [
        Verdict(
            "workload",
            f"at least {100 * LEAST_WORKLOAD_SAVED:.0f} % fewer bytes than the naive build",
            f"{100 * saved:.1f} % fewer resident bytes: {mebibytes(paused.ours.resident_bytes)} instead of "
            f"{mebibytes(paused.naive.resident_bytes)}",
            saved >= LEAST_WORKLOAD_SAVED if full else None,
        ),
        Verdict(
            "workload",
            "the median query takes at most 2 % longer, where the machine is not full",
            f"{p50_ratio(paused):.2f} times the naive build's; where it is, {p50_ratio(fits):.2f} and, of more than "
            f"fits, {p50_ratio(more):.2f} times",
            p50_ratio(paused) <= MOST_P50_RATIO,
        ),
        Verdict(
            "workload",
            f"where the workload fits, the signal stays under {100 * MOST_FITTING_SHARE:.0f} % of the budget",
            _signal(fits),
            fits.signal_shares[2] < MOST_FITTING_SHARE,
        ),
        Verdict(
            "workload",
            f"offered more than fits, it settles below the soft threshold ({workload.soft_percent:.0f} %) and the "
            "ladder stays silent",
            f"{_signal(more)}, {more.transitions} transitions",
            more.signal_shares[2] < soft and more.transitions == 0 if full else None,
        ),
        Verdict(
            "workload",
            f"resident memory stays within {mebibytes(workload.budget_bytes)}, no request fails, nothing restarts",
            f"peak {mebibytes(peak)}, {failed} failed, {workload.restarts} restarts",
            peak <= workload.budget_bytes and not failed and not workload.restarts,
        ),
    ]


def overflowed(workload: Workload) -> bool:
    """Whether the second phase came near the soft threshold: else its questions fitted, and say nothing of bounds."""
    return workload.phases[1].signal_shares[2] >= workload.soft_percent / 100 - NEAR_SOFT


def saving(phase: Phase) -> float:
    """Share of the naive build's resident bytes that membudget did without at the end of the phase."""
    return 1 - phase.ours.resident_bytes / phase.naive.resident_bytes


def p50_ratio(phase: Phase) -> float:
    """Of the median query, ours over naive."""
    return phase.ours.p50 / phase.naive.p50


def cache_run(caches: Caches, kind: str) -> CacheRun:
    """The run of that kind."""
    return next(run for run in caches.runs if run.kind == kind)


def _runs(stores: Stores, kind: str, chunks: int) -> list[StoreRun]:
    return [run for run in stores.runs if (run.kind, run.chunks) == (kind, chunks)]


def _index_runs(indexes: MappedIndexes, kind: str) -> list[IndexRun]:
    return [run for run in indexes.runs if run.kind == kind]


def _signal(phase: Phase) -> str:
    least, median, most = (100 * share for share in phase.signal_shares)
    return f"{least:.1f} to {most:.1f} % of the budget, median {median:.1f}"
