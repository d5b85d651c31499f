"""What a service may ask of its own runtime: how full it is, whose the bytes are, what holds.

Covers: figures of one moment, which agree with each other. Does not cover messages to a sidecar (`report`), which has
figures that this process cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membudget_contract.control_api import Budgets, CollectionReport, ComponentReport, Report
from membudget_contract.policy import Priority, Signal
from membudget_runtime.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Status:
    """How full the budget is. Bytes of the signal as this process can read it: None when the kernel did not say."""

    signal: Signal
    signal_bytes: int | None
    """Of WorkingSet, which belongs to a cgroup, the resident set stands here."""
    budget_bytes: int
    available_bytes: int | None
    """Budget less signal; negative when it is exceeded."""
    usage_ratio: float | None
    enforced: bool
    """False in Observe mode: nothing is given back."""
    over: tuple[str, ...]
    """Components that hold more than their ceiling."""
    plan_hash: str | None
    """Of the plan that holds."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Whose the bytes of the signal are: components, and the rest that nobody accounts for."""

    managed_bytes: int
    """Of all components, as the kernel charges them."""
    unmanaged_bytes: int | None
    """Signal less managed. Negative when components report more than the kernel charges."""
    components: tuple[ComponentReport, ...]
    collections: tuple[CollectionReport, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds now, in bytes."""

    budget_bytes: int
    target_bytes: int | None
    """What the signal may reach by what is admitted; None in Observe mode."""
    room_bytes: int | None
    """Managed bytes that fit now; None in Observe mode, and while nobody can tell."""
    ceilings: Mapping[str, int]
    """By component; one that is not named is bounded by the room alone."""
    priorities: Mapping[str, Priority]
    """By collection; one that is not named is Medium."""
    excluded: frozenset[str]
    """Collections that are never evicted, whatever their class."""
    spill_max_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it at one moment."""

    unix_seconds: float
    pid: int
    status: Status
    breakdown: Breakdown
    limits: Limits
    report: Report
    """As a sidecar gets it."""


def status(ledger: Ledger, budgets: Budgets, signal_bytes: int | None) -> Status:
    """The signal against the budget."""
    bounds = ledger.bounds
    over = [
        component.name
        for component in ledger.components
        if (ceiling := ledger.ceiling(component.name)) is not None and ledger.held_bytes(component) > ceiling
    ]
    known = signal_bytes is not None
    return Status(
        signal=bounds.signal,
        signal_bytes=signal_bytes,
        budget_bytes=budgets.total_bytes,
        available_bytes=budgets.total_bytes - signal_bytes if known else None,
        usage_ratio=signal_bytes / budgets.total_bytes if known else None,
        enforced=bounds.live,
        over=tuple(over),
        plan_hash=bounds.plan_hash,
    )


def breakdown(report: Report, signal_bytes: int | None) -> Breakdown:
    """The signal by owner."""
    unmanaged = None if signal_bytes is None else signal_bytes - report.managed_bytes
    return Breakdown(report.managed_bytes, unmanaged, report.components, report.collections)


def limits(ledger: Ledger, budgets: Budgets) -> Limits:
    """The bounds in force."""
    bounds = ledger.bounds
    return Limits(
        budget_bytes=budgets.total_bytes,
        target_bytes=bounds.target_bytes,
        room_bytes=ledger.room_bytes(),
        ceilings=dict(bounds.ceilings),
        priorities=dict(bounds.ranking.priorities),
        excluded=bounds.ranking.excluded,
        spill_max_bytes=budgets.spill_max_bytes,
    )
