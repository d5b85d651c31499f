"""Whose turn it is when a change goes out in batches (R-P15).

Covers: how many pods of one policy may be in change at once, when a changed pod is well and gives its place to the
next, and why a rollout is paused. Pure. Does not send (`dispatch`) nor decide what a pod should hold (`targets`).

A pod is in change from the order on until it holds the plan, the pause is over, and it has reported since then that it
is well. Nothing is remembered but what is known of each pod: a controller that restarts in the middle goes on, and
waits a pause longer. A pod that never had an order is none of it: it is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from membudget_contract.sidecar_api import Level
from membudget_controller.objects import RolloutRule
from membudget_controller.progress import Progress
from membudget_controller.pushes import Refused, Unreachable
from membudget_controller.targets import AddressProblem, Target

LOOK_AGAIN_SECONDS: Final = 5.0
"""Between two reports of a changed pod that others wait for."""
CONNECTED: Final = "Connected"
"""What a sidecar reports of an engine that answers."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Of one policy; pods by uid."""

    held_back: frozenset[str] = frozenset()
    """They wait for their turn."""
    ask: tuple[str, ...] = ()
    """Others wait for their report."""
    paused: str | None = None
    """Why nobody's turn comes: a changed pod by name, and what is the matter with it."""
    next_at: float | None = None


EVERYBODY: Final = Turn()


def together(turns: Iterable[Turn]) -> Turn:
    """What the turns of all policies say at once; a pod follows one policy only."""
    all_turns = list(turns)
    dues = [each.next_at for each in all_turns if each.next_at is not None]
    return Turn(
        held_back=frozenset(uid for each in all_turns for uid in each.held_back),
        ask=tuple(uid for each in all_turns for uid in each.ask),
        next_at=min(dues, default=None),
    )


def turn(targets: Iterable[Target], progress: Mapping[str, Progress], rule: RolloutRule, now: float) -> Turn:
    """Who of the pods that follow one policy must wait now."""
    if rule == RolloutRule():
        return EVERYBODY
    pods = [_Pod(target, progress[target.pod.uid], rule.pause_seconds, now) for target in targets]
    waiting = sorted((pod for pod in pods if pod.waits), key=lambda pod: (pod.target.pod.name, pod.uid))
    if not waiting:
        return EVERYBODY
    changing = [pod for pod in pods if pod.is_changing]
    paused = next((f"{pod.target.pod.name}: {pod.trouble}" for pod in changing if pod.trouble), None)
    places = 0 if paused else max(1, len(pods) * rule.max_percent // 100) - len(changing)
    dues = [pod.due_at for pod in changing if pod.due_at is not None and pod.due_at > now]
    return Turn(
        held_back=frozenset(pod.uid for pod in waiting[max(0, places) :]),
        ask=tuple(pod.uid for pod in changing if pod.is_due),
        paused=paused,
        next_at=min(dues, default=None),
    )


class _Pod:
    """One pod at one moment."""

    def __init__(self, target: Target, known: Progress, pause_seconds: int, now: float) -> None:
        self.target = target
        self.uid = target.pod.uid
        self._known = known
        self._watched_until = known.held_since + pause_seconds
        self._now = now

    @property
    def waits(self) -> bool:
        """It holds something else, and was not told yet."""
        held = self._known.held
        if isinstance(self.target.address, AddressProblem) or held is None or held.plan_hash is None:
            return False
        return held != self.target.desired.content and not self._is_told

    @property
    def is_changing(self) -> bool:
        """It takes a place: asked what it holds, told, or watched."""
        if isinstance(self.target.address, AddressProblem):
            return False
        if self._known.held is None:
            return self._known.failures == 0  # one that does not answer would hold up the others for ever
        return self._is_told if not self._holds else not self._is_seen_well

    @property
    def trouble(self) -> str | None:
        """Why the others wait, in words that do not change by themselves."""
        match self._known.trouble:
            case Refused(reason, detail, _) if self._is_told:
                return f"refused it, {reason}: {detail}"
            case Unreachable(why) if self._is_told or self._holds:
                return why.value
            case _:
                return self._unwell() if self._holds and self._is_reported else None

    @property
    def due_at(self) -> float | None:
        """When its next report is wanted; None where no report would help."""
        if not self._holds:
            return None
        last = self._known.reported_at
        return self._watched_until if not self._is_reported or last is None else last + LOOK_AGAIN_SECONDS

    @property
    def is_due(self) -> bool:
        """Its report is wanted now; one that failed to answer is asked again when its pause is over, as ever."""
        return self.due_at is not None and self.due_at <= self._now and self._known.failures == 0

    @property
    def _holds(self) -> bool:
        return self._known.held == self.target.desired.content

    @property
    def _is_told(self) -> bool:
        order = self._known.order
        return order is not None and order.desired.content == self.target.desired.content and not self._holds

    @property
    def _is_reported(self) -> bool:
        """It said how it is after the pause was over."""
        reported_at = self._known.reported_at
        return reported_at is not None and reported_at >= self._watched_until

    @property
    def _is_seen_well(self) -> bool:
        return self._is_reported and self._unwell() is None

    def _unwell(self) -> str | None:
        report = self._known.report
        if self._known.problem:
            return f"holds it, but it is not in force there: {self._known.problem}"
        if report is None or report.usage_bytes is None:
            return "does not know its use of memory"
        if report.usage_bytes > report.budget_bytes:
            return "is over the budget"
        if report.level == Level.EMERGENCY:
            return "is at the emergency threshold"
        return None if report.engine == CONNECTED else f"its engine is {report.engine}"
