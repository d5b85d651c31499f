"""What follows from the figures of a profile: each promise falls with the figure that it is about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import profiles
from cli.profiles import BYTES, MIB, SECONDS
from membudget_cli.profile.results import Profile, Workload
from membudget_cli.profile.verdicts import NEAR_SOFT, doublings, index_saving, saving, verdicts

SHARES = st.floats(0.0, 1.5)


def failing(profile: Profile) -> list[str]:
    """Promises that do not hold."""
    return [verdict.promise for verdict in verdicts(profile) if verdict.holds is False]


def test_a_profile_in_which_every_promise_holds_fails_none() -> None:
    """R-T01: five verdicts on stores, two on each of index and cache, five on the workload."""
    found = verdicts(profiles.profile())
    assert [True] * 14 == [verdict.holds for verdict in found]


@pytest.mark.parametrize(
    ("parts", "promise"),
    [
        ({"stores": profiles.stores(bytes_each=1_551)}, "bytes each"),
        ({"mmap": profiles.indexes(mapped=9 * MIB)}, "less anonymous memory"),
        ({"mmap": profiles.indexes(more=0.011)}, "longer at the median"),
        ({"caches": profiles.caches(full=36 * MIB)}, "stays within them"),
        ({"caches": profiles.caches(reported=28 * MIB)}, "what the kernel charges"),
        ({"workload": profiles.workload(naive=290 * MIB)}, "fewer bytes than the naive build"),
        ({"workload": profiles.workload(ratio=1.021)}, "at most 2 % longer"),
        ({"workload": profiles.workload(signal=0.801)}, "ladder stays silent"),
        ({"workload": profiles.workload(transitions=1)}, "ladder stays silent"),
        ({"workload": profiles.workload(ours=151 * MIB)}, "resident memory stays within"),
    ],
)
def test_a_promise_falls_with_its_figure(parts: dict[str, Any], promise: str) -> None:
    """R-T01: no verdict is a constant."""
    assert any(promise in failed for failed in failing(profiles.profile(**parts))), failing(profiles.profile(**parts))


def test_a_naive_build_that_bounds_its_dicts_takes_the_saving_away() -> None:
    """R-T01: the saving is measured against the other's bytes, not stated."""
    bounded = profiles.profile(workload=profiles.workload(naive=140 * MIB))
    assert ["at least 60 % fewer bytes than the naive build"] == failing(bounded)


def test_a_workload_that_never_filled_the_caches_is_not_judged_by_its_bytes() -> None:
    """R-T01: too short to say is neither kept nor broken."""
    short = profiles.profile(workload=profiles.workload(naive=110 * MIB, ours=100 * MIB, signal=0.6))
    judged = {verdict.promise: verdict.holds for verdict in verdicts(short) if verdict.part == "workload"}
    assert [None, None] == [holds for holds in judged.values() if holds is None]
    assert failing(short) == []


@pytest.mark.parametrize("changed", [{"failures": {"naive: refused": 1}}, {"restarts": 1}])
def test_a_failed_request_or_a_restart_breaks_the_promise(changed: dict[str, Any]) -> None:
    """R-T01: whichever of the two engines it was."""
    broken = profiles.profile(workload=msgspec.structs.replace(profiles.workload(), **changed))
    assert len(failing(broken)) == 1


def test_only_the_parts_that_were_measured_are_judged() -> None:
    """R-T01: a part that was left out is no promise kept."""
    only = profiles.profile(stores=None, caches=None, workload=None)
    assert ["mmap", "mmap"] == [verdict.part for verdict in verdicts(only)]


@given(ours=BYTES, naive=BYTES)
def test_the_saving_is_the_share_of_the_naive_builds_bytes(ours: int, naive: int) -> None:
    """R-T01: kept exactly where ours is at most 40 % of the other's."""
    found = profiles.workload(ours=ours, naive=naive)
    kept = "at least 60 % fewer bytes than the naive build" not in failing(profiles.profile(workload=found))
    assert kept == (saving(found.phases[-1]) >= 0.6)
    assert saving(found.phases[-1]) == pytest.approx((naive - ours) / naive)


@given(ours=SECONDS, naive=SECONDS)
def test_the_median_is_judged_where_the_machine_is_not_full_and_told_where_it_is(ours: float, naive: float) -> None:
    """R-T01: at most 2 % longer; the other phases' ratios stand beside it, whatever they are."""
    fits, more, paused = profiles.workload(ratio=1.0).phases
    paused = msgspec.structs.replace(paused, ours=profiles.side(1, ours), naive=profiles.side(1, naive))
    found = msgspec.structs.replace(profiles.workload(), phases=(fits, more, paused))

    (verdict,) = (one for one in verdicts(profiles.profile(workload=found)) if "median query" in one.promise)

    assert verdict.holds == (ours / naive <= 1.02)
    assert f"{ours / naive:.2f} times" in verdict.measured
    assert "1.50 and, of more than fits, 2.00 times" in verdict.measured


@given(each=st.integers(1, 10_000), extra=st.integers(0, 10**9))
def test_doubling_is_two_where_growth_is_in_proportion_and_less_with_a_fixed_part(each: int, extra: int) -> None:
    """R-T01: a store with a fixed cost of its own does not double."""
    runs = [profiles.store_run("memory", count, count * each + extra) for count in (12_500, 25_000, 50_000)]
    ratios = doublings(msgspec.structs.replace(profiles.stores(), runs=tuple(runs)))
    assert len(ratios) == 2
    assert all(ratio <= 2.0 for ratio in ratios)
    assert (extra == 0) == all(ratio == pytest.approx(2.0, abs=1e-12) for ratio in ratios)


@given(loaded=BYTES, mapped=BYTES)
def test_the_saving_of_the_mapped_index_is_a_share_of_the_loaded_one(loaded: int, mapped: int) -> None:
    """R-T01."""
    assert index_saving(profiles.indexes(loaded, mapped)) == pytest.approx(1 - mapped / loaded)


@given(SHARES)
def test_a_full_workload_holds_only_between_near_soft_and_soft(share: float) -> None:
    """R-T01: below that it is not judged, from soft on it fails."""
    found: Workload = profiles.workload(signal=share)
    verdict = next(
        verdict for verdict in verdicts(profiles.profile(workload=found)) if "ladder stays silent" in verdict.promise
    )
    near, below = share >= 0.8 - NEAR_SOFT, share < 0.8
    assert verdict.holds == (below if near else None)
