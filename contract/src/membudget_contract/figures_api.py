"""Messages on the sidecar's local API: what the kernel says of the engine, each figure with its source or its reason.

Covers: single figures, those of the process and of its cgroup, the history. Does not cover what follows from them
(`sidecar_api`) nor whose the bytes are (`breakdown_api`).
"""

from __future__ import annotations

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message


class Figure(Message, frozen=True, kw_only=True):
    """A reading, or why there is none."""

    value: int | None
    source: str | None = None
    absent: str | None = None


class Share(Message, frozen=True, kw_only=True):
    """A figure with a fraction, or why there is none."""

    value: float | None
    absent: str | None = None


class ProcessFigures(Message, frozen=True, kw_only=True):
    """The engine's process: bytes, and counts since it started."""

    anonymous: Figure
    file: Figure
    """Resident pages of mapped files, which cost nothing to drop."""
    shmem: Figure
    swap: Figure
    page_tables: Figure
    minor_faults: Figure
    major_faults: Figure
    """Pages that had to be read from a disk."""
    threads: Figure
    cpu_milliseconds: Figure


class CgroupFigures(Message, frozen=True, kw_only=True):
    """The memory cgroup of the engine's container: bytes, and counts since it was made."""

    version: str | None
    """`v1` or `v2`; None without a cgroup."""
    usage: Figure
    """All that is charged, page cache included."""
    limit: Figure
    working_set: Figure
    unreclaimable: Figure
    swap: Figure
    limit_hits: Figure
    """Charges that met the limit and had to reclaim first."""
    oom_kills: Figure
    refaults: Figure
    """File pages read again soon after they were dropped."""
    stall_percent: Share
    """Of the last 10 s, in which some task waited for memory."""


class HistorySample(Message, frozen=True, kw_only=True):
    """The signal at one moment, unix seconds; without bytes the reason stands beside it."""

    at: float
    used_bytes: int | None
    absent: str | None = None


class HistoryList(Message, frozen=True, kw_only=True):
    """The last samples, oldest first, with the statistics of all that are kept."""

    contract: str = CONTRACT_VERSION
    samples: tuple[HistorySample, ...]
    kept: int
    """How many there are to ask for."""
    peak_bytes: int | None
    """Since the engine began, also of samples that are no longer kept."""
    mean_bytes: float | None
    deviation_bytes: float | None
