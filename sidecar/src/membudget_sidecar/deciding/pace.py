"""How soon to look again: by the way to the first entry of the ladder, and by the headroom under the live limit.

Pure. Covers the pause between two looks at the signal (docs/decisions/0011 has the rates that follow from it). Does
not cover when to look at everything (`loop`) nor being woken before the pause is over (`waking`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.plan import EffectivePlan, Rung
from membudget_contract.quantities import MIB

WORST_BYTES_PER_SECOND: Final = 64 * MIB
"""Growth up to this rate is never seen later than one fast pause after it crossed an entry. Twice as much would make an
idle sidecar look twice as often: a look after a pause costs half a millisecond, most of it cold caches."""
SLOW_SECONDS: Final = 1.0
"""The longest pause: policy, engine and limit are looked at as often anyway."""
FAST_SECONDS: Final = 0.1
LEAST_SECONDS: Final = 0.01
"""Only within 5 MiB of the limit, where a few percent of a core are well spent."""
HEADROOM_SHARE: Final = 8
"""Within one fast pause the worst growth takes at most this part of the headroom; what is left is for the action."""

ACTION_SECONDS: Final = 0.2
"""From the look that asks for an action until it frees faster than memory grows (docs/decisions/0011)."""


def guaranteed_bytes_per_second(headroom: int) -> float:
    """Growth that an action answers in time, with so many bytes between its entry and the container's limit.

    The formula and what it rests on: docs/decisions/0011.
    """
    return min(WORST_BYTES_PER_SECOND, headroom / (fast_seconds(0, headroom) + ACTION_SECONDS))


def pause_seconds(signal: int, limit: int | None, plan: EffectivePlan) -> float:
    """Seconds to the next look at the signal, from its bytes now and the container's limit; None is without one.

    Below the first entry it is as long as the worst growth needs to get there, SLOW_SECONDS at most; from there on,
    and where that is shorter, a fast pause.
    """
    away = first_entry_bytes(plan, limit) - signal
    return min(SLOW_SECONDS, max(fast_seconds(signal, limit), away / WORST_BYTES_PER_SECOND))


def fast_seconds(signal: int, limit: int | None) -> float:
    """The shortest pause here: FAST_SECONDS, less where the limit is near."""
    if limit is None:
        return FAST_SECONDS
    headroom_seconds = (limit - signal) / WORST_BYTES_PER_SECOND / HEADROOM_SHARE
    return min(FAST_SECONDS, max(LEAST_SECONDS, headroom_seconds))


def first_entry_bytes(plan: EffectivePlan, limit: int | None) -> int:
    """The lowest signal at which a rung is entered by its percent or its headroom.

    An entry by seconds to the limit has no bytes: it is a forecast, and as old as the last look.
    """
    thresholds = plan.thresholds
    rungs = (thresholds.soft, thresholds.hard, thresholds.emergency)
    return min(_entry_bytes(rung, plan, limit) for rung in rungs)


def _entry_bytes(rung: Rung, plan: EffectivePlan, limit: int | None) -> int:
    percent = plan.percent_bytes(rung.percent)
    if rung.headroom_bytes is None or limit is None:
        return percent
    return min(percent, limit - rung.headroom_bytes)
