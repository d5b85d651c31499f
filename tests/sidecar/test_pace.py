"""The pause between two looks, and the guarantee of docs/decisions/0011, in simulated time."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_contract.plan import EffectivePlan
from membudget_contract.quantities import MIB
from membudget_sidecar.deciding.pace import (
    ACTION_SECONDS,
    FAST_SECONDS,
    LEAST_SECONDS,
    SLOW_SECONDS,
    WORST_BYTES_PER_SECOND,
    fast_seconds,
    first_entry_bytes,
    guaranteed_bytes_per_second,
    pause_seconds,
)
from sidecar.driven_ladder import PLAN

DECISION = Path(__file__).parents[2] / "docs/decisions/0011-pace-of-looking.md"
ROWS = [
    (int(a), int(b)) for a, b in re.findall(r"^\| (\d+) MiB \| (\d+) MiB/s \|$", DECISION.read_text(), re.MULTILINE)
]
EMERGENCY_PERCENT = 98


def plan(total: int) -> EffectivePlan:
    """The built-in thresholds over that budget."""
    return msgspec.structs.replace(PLAN, total_bytes=total)


def seen_after(start: float, rate: float, entry: float, limit: int, held: EffectivePlan) -> float:
    """Seconds from the crossing of `entry` to the look that sees it; growth is even, the first look at `start`."""
    now = 0.0
    while start + rate * now < entry:
        now += pause_seconds(int(start + rate * now), limit, held)
    return now - (entry - start) / rate


def peak(start: float, rate: int, headroom: int) -> float:
    """Where the signal stands when the emergency's action begins, in a container whose budget is its limit."""
    limit = headroom * 100 // (100 - EMERGENCY_PERCENT)
    entry = limit - headroom
    late = seen_after(start * limit, rate, entry, limit, plan(limit))
    return entry + rate * (late + ACTION_SECONDS)


def test_the_table_has_the_figures_of_its_formula() -> None:
    """R-S01: a document that is checked."""
    computed: list[tuple[int, int]] = []
    for headroom, _ in ROWS:
        fast = fast_seconds(0, headroom * MIB)
        rate = min(WORST_BYTES_PER_SECOND / MIB, headroom / (fast + ACTION_SECONDS))
        computed.append((headroom, int(rate)))
    assert computed == ROWS
    assert len(ROWS) >= 6


@pytest.mark.parametrize(("headroom", "rate"), ROWS)
def test_the_guaranteed_growth_never_reaches_the_limit_wherever_it_begins(headroom: int, rate: int) -> None:
    """R-S01, fault 45: by the emergency alone, over a thousand phases of growth and look."""
    limit = headroom * MIB * 50
    worst = max(peak(0.5 + phase / 2100, rate * MIB, headroom * MIB) for phase in range(1000))
    assert worst <= limit


@pytest.mark.parametrize(("headroom", "rate"), ROWS)
def test_the_guarantee_that_lint_tells_is_that_of_the_table(headroom: int, rate: int) -> None:
    """R-S01, R-T03: in whole MiB, rounded down."""
    assert rate == int(guaranteed_bytes_per_second(headroom * MIB) / MIB)


@pytest.mark.parametrize(("headroom", "rate"), [row for row in ROWS if row[1] < WORST_BYTES_PER_SECOND / MIB])
def test_the_table_promises_no_less_than_holds(headroom: int, rate: int) -> None:
    """R-S01: a tenth more, and some phase passes the limit, so the simulation can tell."""
    limit = headroom * MIB * 50
    worst = max(peak(0.5 + phase / 2100, rate * MIB * 11 // 10, headroom * MIB) for phase in range(1000))
    assert worst > limit


@settings(deadline=None)
@given(
    total=st.integers(32, 4096),
    spare=st.integers(0, 512),
    start=st.floats(0.0, 0.79),
    rate=st.floats(1.0, WORST_BYTES_PER_SECOND / MIB),
)
def test_growth_up_to_the_worst_is_seen_one_fast_pause_after_the_first_entry_at_most(
    total: int, spare: int, start: float, rate: float
) -> None:
    """R-S01: whatever the budget, the limit above it and the moment."""
    held, limit = plan(total * MIB), (total + spare) * MIB
    entry = first_entry_bytes(held, limit)
    late = seen_after(start * total * MIB, rate * MIB, entry, limit, held)
    assert late <= fast_seconds(entry, limit) + 2.0 / MIB / rate + 0.001


@given(start=st.floats(0.0, 0.79), rate=st.floats(65.0, 100_000.0))
def test_faster_growth_is_seen_within_the_stated_time(start: float, rate: float) -> None:
    """R-S01: never later than a second, and no later than the formula says."""
    held, limit = plan(512 * MIB), 512 * MIB
    entry = first_entry_bytes(held, limit)
    away = entry - start * 512 * MIB
    late = seen_after(start * 512 * MIB, rate * MIB, entry, limit, held)
    bound = away * (1 / WORST_BYTES_PER_SECOND - 1 / (rate * MIB)) + FAST_SECONDS
    assert late <= min(SLOW_SECONDS, bound) + 0.001


@given(signal=st.integers(0, 1 << 40), limit=st.none() | st.integers(1, 1 << 40))
def test_a_pause_is_never_longer_than_a_second_nor_a_hot_loop(signal: int, limit: int | None) -> None:
    """R-S11: whatever is read."""
    assert LEAST_SECONDS <= pause_seconds(signal, limit, plan(150 * MIB)) <= SLOW_SECONDS


def test_a_headroom_to_the_limit_is_an_entry_like_a_percent() -> None:
    """R-P06: whichever comes first; without a known limit only the percent counts."""
    thresholds = PLAN.thresholds
    soft = msgspec.structs.replace(thresholds.soft, headroom_bytes=64 * MIB)
    held = msgspec.structs.replace(plan(100 * MIB), thresholds=msgspec.structs.replace(thresholds, soft=soft))
    assert [36, 80, 80] == [first_entry_bytes(held, limit) // MIB for limit in (100 * MIB, 400 * MIB, None)]


def test_ten_looks_a_second_are_the_most_while_the_limit_is_far() -> None:
    """R-S11: what the fast pace may cost is bounded where nothing hurries."""
    assert [0.1, 0.1] == [pause_seconds(99 * MIB, limit, plan(100 * MIB)) for limit in (None, 200 * MIB)]
