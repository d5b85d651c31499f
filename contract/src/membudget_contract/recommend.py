"""Which budget a pod needs, from what it was seen to use (R-S09). Never applied: a person decides.

Covers: total, split by component, container limit, each with its reason. Pure. Does not measure (the sidecar's
`seen_use`). What a larger cache would answer more cannot be told from bytes, and is not guessed: a component that ran
into its ceiling is said to have, and gets what it held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import ROOM_MARGIN_PERCENT, Message
from membudget_contract.policy import Signal
from membudget_contract.profiles import WORKING
from membudget_contract.quantities import MIB

LEAST_SECONDS: Final = 600.0
LEAST_LOOKS: Final = 30
"""Before that the start of the engine is most of what was seen."""
SPARE_PERCENT: Final = 10
"""On top of what was seen: the next hour is not the last one."""
MOST_COMPONENTS: Final = 20
"""Of one pod in its report to the controller, which reads 64 kB; the others are added up."""
LONGEST_NAME: Final = 63
OTHERS: Final = "others"
MOST_BYTES: Final = 2**50
"""Of any pod: a pebibyte."""
LONGEST_REASON: Final = 500


class Use(Message, frozen=True, kw_only=True):
    """Bytes of one subject, over the time it was seen."""

    median_bytes: int
    high_bytes: int
    """Not exceeded in 99 % of the time; up to 5 % too high, never too low."""
    peak_bytes: int


class ComponentSeen(Message, frozen=True, kw_only=True):
    """One component over the time it was seen."""

    owned: Use
    mapped: Use
    ceiling_bytes: int | None
    evictions: int
    """Entries evicted since the engine started."""
    critical_bytes: int
    """Of them nothing can be given back."""


class SeenUse(Message, frozen=True, kw_only=True):
    """What was seen of one engine since it started."""

    seconds: float
    """That looks tell of; gaps do not count."""
    looks: int
    unmanaged: Use | None
    components: dict[str, ComponentSeen]


class Recommendation(Message, frozen=True, kw_only=True):
    """A budget with its reasons; without figures `absent` says what is missing."""

    contract: str = CONTRACT_VERSION
    signal: Signal
    seen: SeenUse
    total_bytes: int | None = None
    components: dict[str, int] = {}
    limit_bytes: int | None = None
    """For the container, above the total by what no budget counts."""
    reasons: tuple[str, ...] = ()
    absent: str | None = None


class PodNeed(Message, frozen=True, kw_only=True):
    """What one pod would need, as its report to the controller carries it: a recommendation without its words."""

    seconds: float
    """It was seen for so long."""
    total_bytes: int | None = None
    components: dict[str, int] = {}
    """The largest; the rest together under `others`."""
    limit_bytes: int | None = None
    absent: str | None = None
    """Why there are no figures."""


def pod_need(advised: Recommendation) -> PodNeed:
    """What a report carries of it, bounded whatever the engine calls its components."""
    return PodNeed(
        seconds=advised.seen.seconds,
        total_bytes=advised.total_bytes,
        components=largest_components(advised.components),
        limit_bytes=advised.limit_bytes,
        absent=advised.absent,
    )


def largest_components(components: Mapping[str, int]) -> dict[str, int]:
    """As many as are told by name, and the rest together."""
    named = {name: size for name, size in components.items() if len(name) <= LONGEST_NAME and name != OTHERS}
    largest = dict(sorted(named.items(), key=lambda part: (-part[1], part[0]))[:MOST_COMPONENTS])
    rest = sum(components.values()) - sum(largest.values())
    return largest | ({OTHERS: rest} if rest else {})


def is_plausible(need: PodNeed) -> bool:
    """Whether a sidecar of ours may have said so; who listens at a pod's address may say anything."""
    sizes = [*need.components.values(), need.total_bytes or 0, need.limit_bytes or 0]
    return (
        all(0 <= size <= MOST_BYTES for size in sizes)
        and len(need.components) <= MOST_COMPONENTS + 1
        and all(len(name) <= LONGEST_NAME for name in need.components)
        and len(need.absent or "") <= LONGEST_REASON
        and math.isfinite(need.seconds)
    )


def total_for(parts_bytes: int, soft_percent: int) -> int:
    """The total, in whole MiB, of which parts of that sum fill what lies under soft entry and admission's margin."""
    return _whole_mib(parts_bytes * 100 // _usable_percent(soft_percent))


def _usable_percent(soft_percent: int) -> int:
    return max(1, soft_percent - ROOM_MARGIN_PERCENT)


def recommend(seen: SeenUse, signal: Signal, soft_percent: int) -> Recommendation:
    """The budget under which what was seen would not have crossed the soft threshold.

    Args:
        seen: of one engine.
        signal: what the budget counts; mapped pages count under all but Unreclaimable.
        soft_percent: where the ladder begins, in percent of the total.
    """
    missing = _missing(seen)
    if missing is not None or seen.unmanaged is None:
        return Recommendation(signal=signal, seen=seen, absent=missing)
    mapped_counts = signal is not Signal.UNRECLAIMABLE
    parts = {name: _needed(part, mapped_counts) for name, part in seen.components.items()}
    parts[WORKING] = _spared(seen.unmanaged.peak_bytes)
    total = total_for(sum(parts.values()), soft_percent)
    mapped = sum(part.mapped.high_bytes for part in seen.components.values())
    limit = _whole_mib(total + (0 if mapped_counts else _spared(mapped)) + total * SPARE_PERCENT // 100)
    usable_part = (
        f"the parts lie under the soft threshold of {soft_percent} % less the {ROOM_MARGIN_PERCENT} % that admission "
        f"keeps free, so the total is their sum over {_usable_percent(soft_percent)} %"
    )
    reasons = [
        f"seen over {seen.seconds / 60:.0f} min in {seen.looks} looks",
        f"unmanaged memory peaked at {_mib(seen.unmanaged.peak_bytes)}; {WORKING} is that and {SPARE_PERCENT} %",
        *(_reason(name, part, mapped_counts) for name, part in seen.components.items()),
        usable_part,
        _limit_reason(mapped, mapped_counts=mapped_counts),
    ]
    return Recommendation(
        signal=signal, seen=seen, total_bytes=total, components=parts, limit_bytes=limit, reasons=tuple(reasons)
    )


def _missing(seen: SeenUse) -> str | None:
    if seen.unmanaged is None:
        return "unmanaged memory was never seen: signal or engine's report was absent"
    if seen.seconds < LEAST_SECONDS or seen.looks < LEAST_LOOKS:
        return (
            f"seen for {seen.seconds:.0f} s in {seen.looks} looks; it takes {LEAST_SECONDS:.0f} s and {LEAST_LOOKS} "
            "looks under the usual load"
        )
    return None


def _needed(part: ComponentSeen, mapped_counts: bool) -> int:
    mapped = part.mapped.high_bytes if mapped_counts else 0
    held = part.owned.peak_bytes if _held_back(part) else _spared(part.owned.high_bytes)
    return max(held + mapped, part.critical_bytes)


def _held_back(part: ComponentSeen) -> bool:
    return part.evictions > 0


def _reason(name: str, part: ComponentSeen, mapped_counts: bool) -> str:
    mapped = f", and {_mib(part.mapped.high_bytes)} of mapped pages" if mapped_counts and part.mapped.high_bytes else ""
    if _held_back(part):
        return (
            f"{name} was held back, it evicted {part.evictions} entries: it gets the {_mib(part.owned.peak_bytes)} it "
            f"held{mapped}, and whether more would serve more queries cannot be told from bytes"
        )
    spare = f"{name} owned at most {_mib(part.owned.high_bytes)} in 99 % of the time"
    return f"{spare}; it gets that and {SPARE_PERCENT} %{mapped}"


def _limit_reason(mapped: int, *, mapped_counts: bool) -> str:
    if mapped_counts:
        return f"the container's limit is the total and {SPARE_PERCENT} % for what the kernel adds"
    return (
        f"the container's limit is the total, {_mib(mapped)} of mapped pages that the budget does not count and "
        f"{SPARE_PERCENT} % for what the kernel adds"
    )


def _spared(amount: int) -> int:
    return amount + amount * SPARE_PERCENT // 100


def _whole_mib(amount: int) -> int:
    return -(-amount // MIB) * MIB


def _mib(amount: int) -> str:
    return f"{amount / MIB:.1f} MiB"
