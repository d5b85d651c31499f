from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.policy import Signal
from membudget_contract.quantities import MIB
from membudget_contract.recommend import (
    LEAST_LOOKS,
    LEAST_SECONDS,
    LONGEST_NAME,
    MOST_COMPONENTS,
    OTHERS,
    ComponentSeen,
    SeenUse,
    Use,
    is_plausible,
    pod_need,
    recommend,
)

SOFT = 80


def use(high: int, peak: int | None = None) -> Use:
    """In MiB; the peak where it is another."""
    return Use(median_bytes=high * MIB // 2, high_bytes=high * MIB, peak_bytes=(peak or high) * MIB)


def component(owned: Use, *, mapped: int = 0, evictions: int = 0, critical: int = 0) -> ComponentSeen:
    """One that was seen."""
    return ComponentSeen(
        owned=owned, mapped=use(mapped), ceiling_bytes=None, evictions=evictions, critical_bytes=critical * MIB
    )


SEEN = SeenUse(
    seconds=3600.0,
    looks=360,
    unmanaged=use(40, 50),
    components={"index": component(use(20), mapped=100), "cache": component(use(30, 40))},
)


def test_the_parts_lie_under_the_soft_threshold_of_the_total() -> None:
    """R-S09: with what admission keeps free below it, in whole MiB."""
    advised = recommend(SEEN, Signal.UNRECLAIMABLE, SOFT)
    assert {"index": 22 * MIB, "cache": 33 * MIB, "working": 55 * MIB} == advised.components
    assert advised.total_bytes == -(-110 * 100 // 78) * MIB
    assert advised.absent is None


def test_mapped_pages_are_in_the_limit_or_in_the_total_but_never_in_both() -> None:
    """R-S09: under Unreclaimable they are not the budget's, and the container still has to hold them."""
    unreclaimable = recommend(SEEN, Signal.UNRECLAIMABLE, SOFT)
    resident = recommend(SEEN, Signal.RESIDENT_SET_SIZE, SOFT)
    assert resident.components["index"] == unreclaimable.components["index"] + 100 * MIB
    assert unreclaimable.total_bytes is not None
    assert unreclaimable.limit_bytes == (142 + 110 + 15) * MIB
    assert resident.limit_bytes == -(-(210 * 100 // 78 + 1) * 11 // 10) * MIB


def test_what_was_held_back_gets_what_it_held_and_says_that_more_is_not_known() -> None:
    """R-S09: hits are not known, so no larger cache is promised to help."""
    seen = msgspec.structs.replace(SEEN, components={"cache": component(use(30, 40), evictions=7)})
    advised = recommend(seen, Signal.UNRECLAIMABLE, SOFT)
    assert 40 * MIB == advised.components["cache"]
    (reason,) = [reason for reason in advised.reasons if "cache" in reason]
    assert "evicted 7 entries" in reason
    assert "cannot be told" in reason


def test_critical_data_always_fits() -> None:
    """R-S09: it can never be given back."""
    seen = msgspec.structs.replace(SEEN, components={"cache": component(use(10), critical=60)})
    assert 60 * MIB == recommend(seen, Signal.UNRECLAIMABLE, SOFT).components["cache"]


@pytest.mark.parametrize(
    "seen",
    [
        msgspec.structs.replace(SEEN, seconds=LEAST_SECONDS - 1),
        msgspec.structs.replace(SEEN, looks=LEAST_LOOKS - 1),
        msgspec.structs.replace(SEEN, unmanaged=None),
    ],
)
def test_too_little_seen_is_no_recommendation(seen: SeenUse) -> None:
    """R-S09, guarantee 4: None with the reason, no figure made up."""
    advised = recommend(seen, Signal.UNRECLAIMABLE, SOFT)
    assert (None, None, {}, ()) == (advised.total_bytes, advised.limit_bytes, advised.components, advised.reasons)
    assert advised.absent


@given(st.lists(st.integers(0, 1 << 20), min_size=4, max_size=4), st.integers(10, 99))
def test_more_use_never_asks_for_less(figures: list[int], soft: int) -> None:
    """R-S09: and the parts always fit below the soft entry."""
    unmanaged, owned, mapped, more = figures

    def total(extra: int) -> int:
        seen = msgspec.structs.replace(
            SEEN, unmanaged=use(unmanaged + extra), components={"a": component(use(owned + extra), mapped=mapped)}
        )
        advised = recommend(seen, Signal.RESIDENT_SET_SIZE, soft)
        assert advised.total_bytes is not None
        assert advised.limit_bytes is not None
        assert advised.limit_bytes >= advised.total_bytes
        assert sum(advised.components.values()) <= advised.total_bytes * max(1, soft - 2) // 100 + 1
        return advised.total_bytes

    assert total(0) <= total(more)


@given(names=st.sets(st.text(min_size=1, max_size=2 * LONGEST_NAME), max_size=100))
def test_what_a_report_carries_is_small_and_loses_no_byte(names: set[str]) -> None:
    """R-P14: whatever an engine calls its components, and however many it has."""
    seen = msgspec.structs.replace(SEEN, components={name: component(use(1)) for name in names})
    advised = recommend(seen, Signal.UNRECLAIMABLE, SOFT)
    need = pod_need(advised)
    assert (sum(advised.components.values()), True) == (sum(need.components.values()), is_plausible(need))
    assert len(need.components) <= MOST_COMPONENTS + 1
    assert len(msgspec.json.encode(need)) < 12 * 1024
    assert need.components.keys() <= advised.components.keys() | {OTHERS}
    assert (advised.total_bytes, advised.limit_bytes, advised.absent) == (
        need.total_bytes,
        need.limit_bytes,
        need.absent,
    )
