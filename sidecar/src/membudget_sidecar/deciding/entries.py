"""When a rung is entered, and when it is left again: by its share of the budget and by the distances to the limit.

Pure. Covers the figures of one rung at one look. Does not decide (`ladder`).

Three figures each, so that a swing makes no row of transitions: a rung is entered at its entry, acts down to its
release, and is left at once only SWING_PERCENT under the entry. In between it is left after STEADY_SECONDS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from membudget_contract.plan import CollectRule, EffectivePlan, Rung
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import Level
from membudget_sidecar.deciding.ladder_state import EntryKind, Observation

SWING_PERCENT: Final = 5
"""Of the budget: usage that swings by 4 points around an entry, with a point of noise, is one stay and not many."""
STEADY_SECONDS: Final = 600.0
"""After so long under the release a level is left within the swing too: a fall and the rise after it are two
transitions, so any swing makes at most one per five minutes after the first."""
GONE_SECONDS: Final = 30.0
"""How long a level outlives the limit or the forecast that held it: a trend breaks off while an action frees or usage
swings, and a file that cannot be read now may be read at the next look."""
LEAST_SECONDS_TO_LIMIT: Final = 1.0
"""A shorter forecast counts as this long where growth is reckoned from it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a rung at one look.

    `release_bytes` is the signal under which it is released; for a forecast, the one from which the present growth
    would take twice the rung's seconds to the limit.
    """

    kind: EntryKind
    entered: bool
    released: bool
    settled: bool
    release_bytes: int


def rungs(plan: EffectivePlan) -> dict[Level, Rung]:
    """The rungs by level, lowest first."""
    thresholds = plan.thresholds
    return {Level.SOFT: thresholds.soft, Level.HARD: thresholds.hard, Level.EMERGENCY: thresholds.emergency}


def entries(level: Level, look: Observation, signal: int, plan: EffectivePlan) -> tuple[Entry, ...]:
    """Those of a rung that can be told now; `signal` is the look's. An unknown limit or forecast says nothing."""
    return tuple(_entries(rungs(plan)[level], look, signal, plan))


def collect_reason(look: Observation, signal: int, plan: EffectivePlan) -> str | None:
    """Why garbage is worth collecting; None below every entry of the rule."""
    rule = plan.thresholds.collect
    entry = plan.percent_bytes(rule.percent)
    if signal >= entry:
        return f"signal {mib(signal)} is over the collect entry of {mib(entry)}"
    if _is_close(rule, look, signal):
        return _closeness(rule, look, signal, "collect")
    return _forecast(rule, look, "collect") if _is_near(rule, look) else None


def mib(amount: int) -> str:
    """Bytes for people."""
    return f"{amount / MIB:.1f} MiB"


def why(kind: EntryKind, level: Level, look: Observation, signal: int, plan: EffectivePlan) -> str:
    """What was compared with what, for one entry of a rung that can be told."""
    rung, name = rungs(plan)[level], level.lower()
    if kind is EntryKind.HEADROOM:
        return _closeness(rung, look, signal, name)
    if kind is EntryKind.SECONDS_TO_LIMIT:
        return _forecast(rung, look, name)
    entry, release = plan.percent_bytes(rung.percent), plan.percent_bytes(rung.release_percent)
    if signal >= entry:
        return f"signal {mib(signal)} is over the {name} entry of {mib(entry)}"
    if signal >= release:
        return f"signal {mib(signal)} is still over the {name} release of {mib(release)}"
    return f"signal {mib(signal)} is under the {name} release of {mib(release)}"


def _entries(rung: Rung, look: Observation, signal: int, plan: EffectivePlan) -> Iterator[Entry]:
    entry, release = plan.percent_bytes(rung.percent), plan.percent_bytes(rung.release_percent)
    yield _by_bytes(EntryKind.PERCENT, signal, entry, release, plan)
    if rung.headroom_bytes is not None and look.limit_bytes is not None:
        near = look.limit_bytes - rung.headroom_bytes
        yield _by_bytes(EntryKind.HEADROOM, signal, near, near - (entry - release), plan)
    if rung.seconds_to_limit is not None and look.limit_bytes is not None and look.seconds_to_limit is not None:
        released = look.seconds_to_limit > 2 * rung.seconds_to_limit
        yield Entry(
            kind=EntryKind.SECONDS_TO_LIMIT,
            entered=_is_near(rung, look),
            released=released,
            settled=released,
            release_bytes=_release_of_forecast(rung.seconds_to_limit, look.seconds_to_limit, look.limit_bytes, signal),
        )


def _by_bytes(kind: EntryKind, signal: int, entry: int, release: int, plan: EffectivePlan) -> Entry:
    settled = min(release, entry - plan.percent_bytes(SWING_PERCENT))
    return Entry(kind, signal >= entry, signal < release, signal < settled, release)


def _release_of_forecast(seconds: int, forecast: float, limit: int, signal: int) -> int:
    growth = max(0, limit - signal) / max(forecast, LEAST_SECONDS_TO_LIMIT)
    return max(0, int(limit - growth * 2 * seconds))


def _is_close(rule: Rung | CollectRule, look: Observation, signal: int) -> bool:
    if rule.headroom_bytes is None or look.limit_bytes is None:
        return False
    return look.limit_bytes - signal <= rule.headroom_bytes


def _is_near(rule: Rung | CollectRule, look: Observation) -> bool:
    if rule.seconds_to_limit is None or look.seconds_to_limit is None or look.limit_bytes is None:
        return False
    return look.seconds_to_limit <= rule.seconds_to_limit


def _closeness(rule: Rung | CollectRule, look: Observation, signal: int, name: str) -> str:
    limit, headroom = look.limit_bytes or 0, rule.headroom_bytes or 0
    return f"signal {mib(signal)} is {mib(limit - signal)} from the limit, {name} keeps a headroom of {mib(headroom)}"


def _forecast(rule: Rung | CollectRule, look: Observation, name: str) -> str:
    return (
        f"the trend meets the limit of {mib(look.limit_bytes or 0)} in {look.seconds_to_limit or 0:.0f} s, "
        f"{name} acts from {rule.seconds_to_limit} s on"
    )
