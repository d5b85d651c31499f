"""The bounds a runtime holds: ceilings by component, room over all, ranking of collections.

Covers: `Bounds` as made from the sidecar's `Budgets` message, and the start-up bounds without one. Values only.
Does not enforce them: `ledger` does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import Budgets, budgets_of
from membudget_contract.errors import NoLimit
from membudget_contract.policy import Signal
from membudget_contract.resolve import resolve
from membudget_runtime.component import Ranking

TOTAL_VARIABLE: Final = "MEMBUDGET_TOTAL"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds now. `target_bytes` is what the signal may reach; None: no room is enforced (Observe)."""

    plan_hash: str | None
    signal: Signal
    target_bytes: int | None
    ceilings: Mapping[str, int]
    ranking: Ranking
    live: bool = True
    """False in Observe mode: what is held over a ceiling is left there."""
    base_limit_bytes: int | None = None
    """Of the process without its index and caches; None: not limited."""

    def counts_mapped(self) -> bool:
        """True when resident pages of mapped files count into the signal."""
        return self.signal is not Signal.UNRECLAIMABLE


def start_budgets(environment: Mapping[str, str]) -> Budgets:
    """What holds before any sidecar spoke: the built-in Production profile, refined by the environment.

    A total in percent means the container's limit, which only the sidecar knows: until it speaks the built-in total
    holds.
    """
    plan = compile_policy(None)
    try:
        return budgets_of(resolve(plan, environment=environment, limit=None))
    except NoLimit as error:
        log.warning("starting with the built-in total of %s: %s", plan.total, error)
        without = {name: text for name, text in environment.items() if name != TOTAL_VARIABLE}
        return budgets_of(resolve(plan, environment=without, limit=None))


def bounds_of(budgets: Budgets, start: Budgets) -> Bounds:
    """The bounds of a message; in Observe mode the start-up ceilings stand and nothing bounds the whole."""
    ranking = Ranking(
        {collection.name: collection.priority for collection in budgets.collections},
        frozenset(budgets.exclude_collections),
    )
    target = budgets.soft_entry_bytes - budgets.room_margin_bytes if budgets.live else None
    held = budgets if budgets.live else start
    return Bounds(
        budgets.plan_hash, budgets.signal, target, held.components, ranking, budgets.live, held.base_limit_bytes
    )
