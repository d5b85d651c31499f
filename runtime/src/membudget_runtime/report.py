"""What the runtime says of itself: bytes by component and collection, room, garbage collection.

Covers: building the `Report` message. Does not cover the process' figures from the kernel: the sidecar reads them;
garbage collection tells its own (`interpreter.gc_tuner`).
"""

from __future__ import annotations

import os

from membudget_contract.control_api import CollectionReport, ComponentReport, GcReport, Report, RequestReport
from membudget_contract.policy import EVICTABLE, Priority
from membudget_contract.profiles import WORKING
from membudget_runtime.component import Component
from membudget_runtime.ledger import Ledger


def report(
    ledger: Ledger,
    collector: GcReport,
    *,
    allocations_bytes: int = 0,
    requests: RequestReport | None = None,
    restored: int = 0,
    set_aside: int = 0,
) -> Report:
    """All figures of the ledger under one hold of the lock, so that they agree with each other."""
    with ledger.lock:
        return Report(
            pid=os.getpid(),
            managed_bytes=ledger.charged_bytes(),
            room_bytes=ledger.room_bytes(),
            plan_hash=ledger.bounds.plan_hash,
            refused=ledger.refused,
            evictions=sum(component.evictions() for component in ledger.components),
            allocations_bytes=allocations_bytes,
            tracked_bytes=ledger.tracked_bytes(),
            base_bytes=ledger.base_bytes(),
            base_limit_bytes=ledger.bounds.base_limit_bytes,
            requests=requests,
            restored=restored,
            set_aside=set_aside,
            # What requests and grants hold there is the rest of the process, which is measured from outside.
            components=tuple(_component(ledger, each) for each in ledger.components if each.name != WORKING),
            collections=tuple(
                CollectionReport(
                    name=use.name,
                    component=component.name,
                    priority=ledger.bounds.ranking.priority(use.name),
                    owned_bytes=use.owned_bytes,
                    entries=use.entries,
                )
                for component in ledger.components
                for use in component.collections()
            ),
            gc=collector,
        )


def _component(ledger: Ledger, component: Component) -> ComponentReport:
    ranking = ledger.bounds.ranking
    uses = component.collections()
    return ComponentReport(
        name=component.name,
        owned_bytes=ledger.owned_bytes(component),
        mapped_bytes=component.mapped_bytes(),
        budget_bytes=ledger.ceiling(component.name),
        entries=sum(use.entries for use in uses),
        evictable_bytes=sum(
            use.owned_bytes
            for use in uses
            if ranking.priority(use.name) in EVICTABLE and use.name not in ranking.excluded
        ),
        critical_bytes=sum(use.owned_bytes for use in uses if ranking.priority(use.name) is Priority.CRITICAL),
        spilled_bytes=component.spilled_bytes(),
        reserved_bytes=ledger.reserved_bytes(component),
        tracked_bytes=ledger.tracked_bytes(component.name),
        evictions=component.evictions(),
    )
