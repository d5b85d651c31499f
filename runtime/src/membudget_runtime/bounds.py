"""The bounds a runtime holds: ceilings by component, room over all, ranking of collections.

Covers: `Bounds` as made from the sidecar's `Budgets` message, and the start-up bounds without one. Pure values.
Does not enforce them: `ledger` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import Budgets, budgets_of
from membudget_contract.policy import Signal
from membudget_contract.resolve import resolve
from membudget_runtime.component import Ranking


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds now. `target_bytes` is what the signal may reach; None: no room is enforced (Observe)."""

    plan_hash: str | None
    signal: Signal
    target_bytes: int | None
    ceilings: Mapping[str, int]
    ranking: Ranking

    def counts_mapped(self) -> bool:
        """True when resident pages of mapped files count into the signal."""
        return self.signal is not Signal.UNRECLAIMABLE


def start_budgets(environment: Mapping[str, str]) -> Budgets:
    """What holds before any sidecar spoke: the built-in Production profile, refined by the environment."""
    return budgets_of(resolve(compile_policy(None), environment=environment, limit=None))


def bounds_of(budgets: Budgets, start: Budgets) -> Bounds:
    """The bounds of a message; in Observe mode the start-up ceilings stand and nothing bounds the whole."""
    ranking = Ranking(
        {collection.name: collection.priority for collection in budgets.collections},
        frozenset(budgets.exclude_collections),
    )
    target = budgets.soft_entry_bytes - budgets.room_margin_bytes if budgets.live else None
    ceilings = budgets.components if budgets.live else start.components
    return Bounds(budgets.plan_hash, budgets.signal, target, ceilings, ranking)
