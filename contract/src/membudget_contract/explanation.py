"""Messages that say why the sidecar acted, acts, or does not: the ladder's own answer, rung by rung.

Covers: the ladder at its last look. Does not cover where the plan's values come from (`PlanView` in `sidecar_api`) nor
what was done (`ActionRecord`). Bytes are the signal's, seconds count from that look on.
"""

from __future__ import annotations

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, Level


class Distance(Message, frozen=True, kw_only=True):
    """One way into a rung, as far as it can be told now.

    `by` is `percent`, `headroom` or `secondsToLimit`. Where limit or forecast are not known, the figures are None and
    the entry says nothing.
    """

    by: str
    entry_bytes: int | None
    """The signal at which it is entered; None for a forecast, which no single figure of the signal enters."""
    release_bytes: int | None
    """The signal under which it is released; for a forecast at the present growth."""
    entered: bool
    released: bool
    reason: str
    """What was compared with what."""


class RungExplanation(Message, frozen=True, kw_only=True):
    """One rung: its entries, whether it rules now, and one sentence why it acts or does not."""

    level: Level
    action: ActionKind
    distances: tuple[Distance, ...]
    entered: bool
    """One of its entries is reached."""
    acts: bool
    """It acts at this look, in place of a rung below it perhaps."""
    reason: str
    waits_seconds: float | None
    """Until it may act again; None when no pause holds it."""


class CollectExplanation(Message, frozen=True, kw_only=True):
    """Garbage collection, which is no rung."""

    entry_bytes: int
    entered: bool
    acts: bool
    reason: str
    waits_seconds: float | None


class Explanation(Message, frozen=True, kw_only=True):
    """The ladder at its last look. None is unknown, never zero."""

    contract: str = CONTRACT_VERSION
    mode: Mode
    level: Level
    ruling: Level
    """The highest rung over a release figure; below `level` while that is kept until the signal has settled."""
    signal_bytes: int | None
    signal_source: str | None
    limit_bytes: int | None
    seconds_to_limit: float | None
    unmanaged_bytes: int | None
    evictable_bytes: int | None
    in_flight: ActionKind | None
    only_critical_left: bool
    """`OnlyCriticalLeft`: what is left may not be given back; admission refuses what does not fit."""
    passage_seconds: float | None
    """How long the thresholds of a higher budget still hold, at most; None when the plan's own do."""
    rungs: tuple[RungExplanation, ...]
    collect: CollectExplanation
    reason: str
    """The whole in one sentence."""
