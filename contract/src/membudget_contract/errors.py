"""Errors of the contract.

    ContractError
    +-- QuantityInvalid      a text is no quantity or percent
    +-- PolicyInvalid        a policy names a field wrongly, or its values contradict each other
    +-- EnvironmentInvalid   an environment variable that refines the plan cannot be read
    +-- NoLimit              a percent of the container's limit, and there is no limit
    +-- BudgetBelowFloor     a total that cannot hold what must stay in memory
    +-- LooserThanPlan       a `configure` call that asks for more than the plan allows

Neighbours: every module of this package raises from here; servers turn them into problem+json answers.
"""

from __future__ import annotations

_MIB = 1024 * 1024


class ContractError(Exception):
    """Base of all errors of the contract; `reason` is the CamelCase word for conditions and API answers."""

    reason = "Invalid"


class QuantityInvalid(ContractError, ValueError):
    """A text that is no quantity like `150Mi` and no percent like `75%`."""


class PolicyInvalid(ContractError):
    """A policy that cannot be used; `field` is the path as the author wrote it, like `spec.budget.total`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class EnvironmentInvalid(ContractError):
    """A `MEMBUDGET_*` variable that refines the plan holds a value that cannot be used."""

    reason = "EnvironmentInvalid"

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


class NoLimit(ContractError):
    """The total is a percent of the container's limit, but no limit is known."""

    reason = "NoLimit"


class BudgetBelowFloor(ContractError):
    """The total lies below the memory that cannot be given back (base of the process and Critical data)."""

    reason = "BudgetBelowFloor"

    def __init__(self, total_bytes: int, floor_bytes: int, usable_percent: int) -> None:
        """`usable_percent` of a total lies below its soft entry less the margin: advised is what fits in there."""
        usable = max(1, usable_percent)
        advised = -(-floor_bytes * 100 // (usable * _MIB))
        super().__init__(
            f"a total of {total_bytes / _MIB:.1f} MiB lies below the {floor_bytes / _MIB:.1f} MiB that cannot be given "
            f"back; ask for at least {advised}Mi, of which {usable} percent lie below the soft threshold"
        )
        self.total_bytes = total_bytes
        self.floor_bytes = floor_bytes


class LooserThanPlan(ContractError):
    """A `configure` call may only tighten the plan, for a time."""

    reason = "LooserThanPlan"
