"""What came of the exchanges with one pod, and when it is its turn again.

Covers: what the pod holds as far as known, its last report, its trouble, and the pauses after each. Pure: every
function makes the next value of one pod. Does not decide (`reconcile`) nor send (`dispatch`).

What a pod acknowledged is forgotten when it gets another address or one of its containers restarts: it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from membudget_contract.orders import PodReport, Verdict
from membudget_controller.orders import NumberedOrder
from membudget_controller.pushes import Acknowledged, Failure, Refused, Reported, Unreachable
from membudget_controller.targets import Content, Desired

PUSH_PAUSE_SECONDS: Final = 1.0
"""Between two orders to one pod: what flaps faster is sent as it stands then."""
SETTLE_SECONDS: Final = 2.0
"""From an acknowledgement to the report that shows what it did."""
REFUSED_SECONDS: Final = 300.0
"""Until a refused order is sent again: what it was refused for, as a limit or a burst, may be gone by then."""
FIRST_RETRY_SECONDS: Final = 0.5
MOST_RETRY_SECONDS: Final = 15.0
_RETRIES_TO_MOST: Final = 5
_NUMBER_SPENT: Final = frozenset({Verdict.OLDER.value, Verdict.CONTRADICTION.value})


class Incarnation(NamedTuple):
    """What a pod must still be for its word to hold."""

    address: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One pod."""

    incarnation: Incarnation
    held: Content | None = None
    """None: not known, so it is asked before it is told anything."""
    held_since: float = 0.0
    """When it was first known to hold that."""
    order: NumberedOrder | None = None
    """The last one sent; the same content goes out under the same number again."""
    trouble: Failure | None = None
    failures: int = 0
    """In a row."""
    push_at: float = 0.0
    """No order before."""
    retry_at: float = 0.0
    """What failed is not tried again before."""
    ask_at: float = 0.0
    report: PodReport | None = None
    reported_at: float | None = None
    overridden: bool = False
    problem: str | None = None
    """Why what it holds is not in force there, or not whole."""


def is_refused(progress: Progress, desired: Desired) -> bool:
    """Whether this very content was refused."""
    return (
        isinstance(progress.trouble, Refused)
        and progress.order is not None
        and progress.order.desired.content == desired.content
    )


def sent(progress: Progress, order: NumberedOrder, now: float) -> Progress:
    """An order goes out."""
    return replace(progress, order=order, push_at=now + PUSH_PAUSE_SECONDS)


def acknowledged(progress: Progress, order: NumberedOrder, result: Acknowledged, now: float) -> Progress:
    """The pod holds what it was told."""
    return replace(
        progress,
        held=order.desired.content,
        held_since=now if progress.held != order.desired.content else progress.held_since,
        trouble=None,
        failures=0,
        retry_at=now,
        ask_at=now + SETTLE_SECONDS,
        overridden=result.acknowledgement.overridden,
        problem=result.acknowledgement.problem,
    )


def reported(progress: Progress, result: Reported, now: float, pause: float) -> Progress:
    """The pod said how it is. Trouble with an order stands until it is retried, or something else is held or wanted."""
    report = result.report
    held = Content(report.policy, report.plan_hash)
    another = progress.order is not None and progress.order.desired.content != held
    said = replace(
        progress,
        held=held,
        held_since=now if progress.held != held else progress.held_since,
        report=report,
        reported_at=now,
        ask_at=now + pause,
        overridden=report.overridden,
        problem=None if another else report.problem,  # then it is what was refused that the pod speaks of
    )
    stands = isinstance(progress.trouble, Refused | Unreachable) and another and progress.held == held
    return said if stands else replace(said, trouble=None, failures=0, retry_at=now)


def renewed(progress: Progress) -> Progress:
    """Orders have a new epoch: a number of the old one says nothing any more, nor does its refusal."""
    trouble = None if isinstance(progress.trouble, Refused) else progress.trouble
    return replace(progress, order=None, trouble=trouble, retry_at=0.0)


def push_failed(progress: Progress, failure: Failure, now: float, jitter: float) -> Progress:
    """The order did not arrive, or was refused."""
    if isinstance(failure, Refused) and failure.reason not in _NUMBER_SPENT:
        return replace(progress, trouble=failure, failures=0, retry_at=now + REFUSED_SECONDS)
    again = now + _pause(progress.failures, jitter)
    failed = replace(progress, trouble=failure, failures=progress.failures + 1, retry_at=again)
    return replace(failed, held=None, order=None, ask_at=again) if isinstance(failure, Refused) else failed


def ask_failed(progress: Progress, failure: Failure, now: float, jitter: float) -> Progress:
    """There is no report; what the pod is known to hold, or to have refused, stays known."""
    again = now + _pause(progress.failures, jitter)
    failed = replace(progress, failures=progress.failures + 1, ask_at=again)
    if isinstance(progress.trouble, Refused) and progress.order is not None:
        return failed
    return replace(failed, trouble=failure, retry_at=again)


def _pause(failures: int, jitter: float) -> float:
    """Doubling up to its most; `jitter` from 0 up to 1 takes off a quarter at most, so that pods are not in step."""
    longest = min(FIRST_RETRY_SECONDS * 2 ** min(failures, _RETRIES_TO_MOST), MOST_RETRY_SECONDS)
    return longest * (1 - jitter / 4)
