"""Names in a policy or in the environment that nothing here answers to: a slip of the pen that no parser can refuse.

Covers: components and collections held against what the engine has reported so far, and variables held against those
that are read. Does not cover names that are wrong in themselves (`membudget_contract.policy`). For one thread; others
read `warnings`, which is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from membudget_contract.control_api import Report
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import DEFAULT_COLLECTION
from membudget_contract.profiles import PRODUCTION_SPLIT
from membudget_contract.resolve import ENVIRONMENT_FIELDS
from membudget_sidecar.settings import POD_VARIABLES

COLLECTIONS_SECONDS: Final = 60.0
"""A collection is reported once something of it is held; until then its absence says nothing."""
NAMED: Final = 20
"""In one warning; their number stands beside them."""

_PREFIX: Final = "MEMBUDGET_"


class Oversights:
    """What an engine reported is remembered as long as it lives: a collection evicted since is known all the same."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._of_environment = _unknown_variables(environment)
        self.warnings: tuple[str, ...] = self._of_environment
        self._components: set[str] = set()
        self._collections: set[str] = set()
        self._since: float | None = None

    def forget_engine(self) -> None:
        """Another engine: it may serve something else."""
        self._components, self._collections, self._since = set(), set(), None
        self.warnings = self._of_environment

    def look(self, plan: EffectivePlan, report: Report | None, now: float) -> None:
        """Hold the plan against what is known of the engine; without any report nothing is."""
        if report is None:
            return
        self._since = now if self._since is None else self._since
        self._components |= {part.name for part in report.components}
        self._collections |= {use.name for use in report.collections}
        found = [*self._of_environment, *self._of_components(plan)]
        if now - self._since >= COLLECTIONS_SECONDS:
            found += self._of_collections(plan)
        self.warnings = tuple(found)

    def _of_components(self, plan: EffectivePlan) -> Iterable[str]:
        known = {**PRODUCTION_SPLIT, **dict.fromkeys(sorted(self._components))}
        if unknown := [name for name in plan.components if name not in known]:
            yield f"spec.budget.components: the engine has no {_listed(unknown)}; there are {', '.join(known)}"

    def _of_collections(self, plan: EffectivePlan) -> Iterable[str]:
        known = self._collections | {DEFAULT_COLLECTION}
        named = {
            "spec.collections": [collection.name for collection in plan.collections],
            "spec.eviction.excludeCollections": plan.exclude_collections,
        }
        for field, names in named.items():
            if unseen := [name for name in names if name not in known]:
                yield f"{field}: not seen so far: {_listed(unseen)}"


def _unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    known = {*ENVIRONMENT_FIELDS, *POD_VARIABLES}
    unknown = sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)
    if not unknown:
        return ()
    return (f"the environment: nothing reads {_listed(unknown)}; a plan is refined by {', '.join(ENVIRONMENT_FIELDS)}",)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
