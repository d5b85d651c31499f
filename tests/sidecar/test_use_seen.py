from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.control_api import ComponentReport
from membudget_sidecar.deciding.use_seen import LEAST_BYTES, LONGEST_SECONDS, MOST_COMPONENTS, STEP, Spread, UseSeen

MIB = 1 << 20


def report(**owned: int) -> tuple[ComponentReport, ...]:
    """Components by name, with what they own."""
    return tuple(
        ComponentReport(
            name=name, owned_bytes=amount, mapped_bytes=2 * amount, budget_bytes=None, entries=1, evictable_bytes=0,
            critical_bytes=amount // 4, spilled_bytes=0, evictions=3,
        )
        for name, amount in owned.items()
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 1 << 44), st.integers(1, 30)), min_size=1, max_size=50))
def test_a_percentile_is_never_too_low_and_at_most_a_step_too_high(figures: list[tuple[int, int]]) -> None:
    """R-S09: weighted by time, against a sort of every second."""
    spread = Spread()
    seconds: list[int] = []
    for amount, duration in figures:
        spread.record(amount, duration)
        seconds += [amount] * duration
    seconds.sort()
    found = spread.use()
    exact = seconds[max(0, -(-99 * len(seconds) // 100) - 1)]
    assert exact <= found.high_bytes <= max(LEAST_BYTES, exact * STEP + 2)
    assert found.peak_bytes == max(seconds)
    assert found.median_bytes <= found.high_bytes <= found.peak_bytes


def test_use_is_weighted_by_the_time_it_lasted() -> None:
    """R-S09: the loop looks ten times as often when memory is short; that must not count ten times."""
    seen = UseSeen()
    seen.look(0.0, 10 * MIB, report(a=MIB))
    for second in range(1, 101):
        seen.look(float(second) * 10, 10 * MIB, report(a=MIB))
    for tenth in range(1, 101):
        seen.look(1000 + tenth / 10, 90 * MIB, report(a=MIB))
    found = seen.seen(report(a=MIB), {"a": 7})
    assert found.unmanaged is not None
    assert found.unmanaged.high_bytes == pytest.approx(10 * MIB, rel=0.06)
    assert (90 * MIB, 201, 7) == (found.unmanaged.peak_bytes, found.looks, found.components["a"].ceiling_bytes)
    assert found.seconds == pytest.approx(1010)


def test_a_gap_is_not_time_that_was_seen() -> None:
    """Guarantee 4: without a report, or while nobody looked, nothing is known."""
    seen = UseSeen()
    seen.look(0.0, MIB, report(a=MIB))
    seen.look(10.0, MIB, report(a=MIB))
    seen.look(20.0, MIB, None)
    seen.look(30.0, None, report(a=MIB))
    seen.look(40.0, MIB, report(a=MIB))
    seen.look(5000.0, MIB, report(a=MIB))
    assert 10 + LONGEST_SECONDS == seen.seen(report(a=MIB), {}).seconds


def test_a_process_without_a_runtime_is_seen_as_a_whole() -> None:
    """R-S14: it has no components, which is not the same as no report."""
    seen = UseSeen()
    seen.look(0.0, 50 * MIB, ())
    seen.look(10.0, 50 * MIB, ())
    found = seen.seen((), {})
    assert found.unmanaged is not None
    assert (10, 50 * MIB, {}) == (found.seconds, found.unmanaged.peak_bytes, found.components)


def test_a_component_that_is_gone_is_left_out_and_another_engine_starts_anew() -> None:
    """R-S09: what it owned once is no need of today."""
    seen = UseSeen()
    seen.look(0.0, MIB, report(a=MIB, b=MIB))
    seen.look(10.0, MIB, report(b=2 * MIB))
    found = seen.seen(report(b=2 * MIB), {})
    assert (["b"], 3, MIB // 2, 4 * MIB) == (
        list(found.components),
        found.components["b"].evictions,
        found.components["b"].critical_bytes,
        found.components["b"].mapped.peak_bytes,
    )
    seen.forget()
    assert (0, None, {}) == (
        (empty := seen.seen(report(b=MIB), {})).looks,
        empty.unmanaged,
        empty.components,
    )


def test_the_engine_cannot_make_it_grow_without_bound() -> None:
    """R-S11: names come from there."""
    seen = UseSeen()
    for second in range(20):
        seen.look(float(second), MIB, report(**{f"part{second * 50 + number}": MIB for number in range(50)}))
    everything = report(**{f"part{number}": MIB for number in range(1000)})
    assert MOST_COMPONENTS == len(seen.seen(everything, {}).components)
