"""Where one pod stands with the policy that it follows, in the words of conditions.

Covers: from target and progress to a standing and an account. Pure. Neighbours: `conditions` sums them up for a policy.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from membudget_controller.progress import Progress
from membudget_controller.pushes import Failure, KeysPending, Refused, Unreachable
from membudget_controller.targets import AddressProblem, Target

STALE_REPORTS: Final = 2.5
"""A report counts for so many of the intervals in which reports are asked for."""


class Standing(enum.Enum):
    """From the worst, which a condition names first, to the best."""

    REFUSED = enum.auto()
    UNREACHABLE = enum.auto()
    KEYS_PENDING = enum.auto()
    PUSHING = enum.auto()
    PROGRAMMED = enum.auto()


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod that follows a policy."""

    name: str
    standing: Standing
    why: str = ""
    """What is the matter, without figures that change by themselves."""
    over_budget: bool | None = None
    """None: it has not said, or not lately."""
    overridden: bool = False


def facts_of(target: Target, progress: Progress, now: float, report_seconds: float) -> PodFacts:
    """How the pod stands now."""
    standing, why = _standing(target, progress)
    return PodFacts(
        name=target.pod.name,
        standing=standing,
        why=why,
        over_budget=_over_budget(progress, now, report_seconds),
        overridden=progress.overridden and standing is Standing.PROGRAMMED,
    )


def waiting(facts: PodFacts, why: str = "waits for its turn in the rollout") -> PodFacts:
    """The same pod while it is not its turn."""
    return replace(facts, standing=Standing.PUSHING, why=why)


def _standing(target: Target, progress: Progress) -> tuple[Standing, str]:
    if target.address is AddressProblem.NO_ADDRESS:
        return Standing.PUSHING, target.address.value
    if isinstance(target.address, AddressProblem):
        return Standing.UNREACHABLE, target.address.value
    if progress.held == target.desired.content:
        waits = f"holds it, but it is not in force there: {progress.problem}"
        return (Standing.PUSHING, waits) if progress.problem else (Standing.PROGRAMMED, "")
    return _troubled(progress.trouble)


def _troubled(trouble: Failure | None) -> tuple[Standing, str]:
    match trouble:
        case Refused(reason, detail, _):
            return Standing.REFUSED, f"{reason}: {detail}"
        case Unreachable(why):
            return Standing.UNREACHABLE, why.value
        case KeysPending():
            return Standing.KEYS_PENDING, "does not know the controller's key yet; the kubelet brings it in a minute"
        case None:
            return Standing.PUSHING, "has not been sent it yet"


def _over_budget(progress: Progress, now: float, report_seconds: float) -> bool | None:
    report, reported_at = progress.report, progress.reported_at
    if report is None or reported_at is None or report.usage_bytes is None:
        return None
    if now - reported_at > STALE_REPORTS * report_seconds:
        return None
    return report.usage_bytes > report.budget_bytes
