"""What is to be done now: which pods are asked, which are told, and when the next turn is.

Covers: the comparison of what is desired with what is held. Pure. Does not do it (`dispatch`). Neighbours: `targets`
for what is desired, `progress` for what is held, `rollout` for whose turn it is.

Invariant: where every pod holds what is desired, no order is sent; only reports are asked for when they are due. A
pod whose holding is unknown, as all are after a restart of the controller, is asked before it is told anything.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from membudget_controller.progress import Progress, is_refused
from membudget_controller.pushes import Refused
from membudget_controller.rollout import EVERYBODY, Turn
from membudget_controller.targets import AddressProblem, Target


@dataclass(frozen=True, slots=True)
class Work:
    """Pod uids; `next_at` is when there is more to do if nothing else happens, None for never."""

    ask: tuple[str, ...]
    push: tuple[str, ...]
    next_at: float | None


def reconcile(
    targets: Mapping[str, Target],
    progress: Mapping[str, Progress],
    in_flight: Container[str],
    now: float,
    turn: Turn = EVERYBODY,
) -> Work:
    """One look at all pods; those in flight are left alone until their exchange ends, and those held back untold."""
    ask: list[str] = []
    push: list[str] = []
    next_at: float | None = None
    for uid, target in targets.items():
        if isinstance(target.address, AddressProblem) or uid in in_flight:
            continue
        known = progress[uid]
        push_at = None if uid in turn.held_back else _push_at(target, known)
        if push_at is not None and push_at <= now:
            push.append(uid)
        elif known.ask_at <= now or uid in turn.ask:
            ask.append(uid)
        else:
            due = known.ask_at if push_at is None else min(push_at, known.ask_at)
            next_at = due if next_at is None else min(next_at, due)
    if turn.next_at is not None:
        next_at = turn.next_at if next_at is None else min(next_at, turn.next_at)
    return Work(tuple(ask), tuple(push), next_at)


def _push_at(target: Target, known: Progress) -> float | None:
    """When the pod may be told; None where there is nothing to tell it, or it must be asked first."""
    if known.held is None or known.held == target.desired.content:
        return None
    if isinstance(known.trouble, Refused) and not is_refused(known, target.desired):
        return known.push_at
    return max(known.push_at, known.retry_at)
