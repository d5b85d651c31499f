"""Unmanaged memory grows beside full caches: the sidecar's ladder against the clock (R-S01, R-S03, R-S11)."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGSTOP

import pytest

from system.growth_run import CACHED, LIMIT, MIB, RATE, Grown, growth_stack

RUNS = int(os.environ.get("MEMBUDGET_GROWTH_RUNS", "1"))
REPEATS = 3
SOAK_SECONDS = 1800.0
SOAK_RATE = 20 * MIB
RATE_AT_LEAST = 0.9 * RATE
pytestmark = [pytest.mark.cgroup, pytest.mark.timeout(RUNS * 30 + 120)]


def counted_growths(folder: Path, where: str) -> list[Grown]:
    """As many as asked that grew fast enough to count; a machine too busy for that gets a few repeats."""
    counted: list[Grown] = []
    for number in range(RUNS + REPEATS):
        with growth_stack(folder / str(number), where) as stack:
            grown = stack.grow()
            grown.actions = stack.actions()
        sys.stdout.write(f"{grown}\n")
        if grown.oom_kills or grown.bytes_per_second >= RATE_AT_LEAST:
            counted.append(grown)
        if len(counted) == RUNS:
            return counted
    pytest.fail(f"only {len(counted)} of {RUNS} growths reached {RATE_AT_LEAST / MIB:.0f} MiB/s")


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_unmanaged_growth_of_64_mib_a_second_is_answered_and_never_meets_the_oom_killer(
    tmp_path: Path, publish: Callable[[str], None], where: str
) -> None:
    """R-S01, R-S03: 300 MiB of caches in 512 MiB make way; in the process, and where only the cgroup shows it."""
    grown = counted_growths(tmp_path, where)
    publish(f"{RUNS} growths of 64 MiB/s {where} the engine: {_figures(grown)}")
    assert [run.oom_kills for run in grown] == [0] * RUNS
    assert max(run.peak_bytes for run in grown) < LIMIT
    assert max(run.owned_bytes for run in grown) < CACHED
    assert min(len(run.over_soft) for run in grown) >= 1


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_half_an_hour_of_ramps_up_to_the_limit_kills_nobody(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-S03, fault 82: 20 MiB/s beside full caches, over and over; each acts, none reaches the limit."""
    ends_at, grown = time.monotonic() + SOAK_SECONDS, list[Grown]()
    while time.monotonic() < ends_at:
        with growth_stack(tmp_path / str(len(grown)), "beside", SOAK_RATE) as stack:
            grown.append(stack.grow())
    publish(f"{len(grown)} ramps of {SOAK_RATE / MIB:.0f} MiB/s: {_figures(grown)}")
    assert [run.oom_kills for run in grown] == [0] * len(grown)
    assert max(run.peak_bytes for run in grown) < LIMIT


def test_the_same_growth_kills_an_engine_whose_sidecar_stands_still(tmp_path: Path) -> None:
    """R-S03: what the test above would see if nobody acted; the caches alone do not know of a sibling's bytes."""
    with growth_stack(tmp_path, "beside") as stack:
        stack.sidecar.process.send_signal(SIGSTOP)
        assert stack.grow().oom_kills > 0


def _figures(grown: list[Grown]) -> str:
    soft = [run.over_soft[0] for run in grown if run.over_soft]
    emergency = [stay for run in grown for stay in run.over_emergency]
    peak = max(run.peak_bytes for run in grown) / MIB
    return (
        f"{sum(run.oom_kills for run in grown)} OOM kills, peak {peak:.1f} of {LIMIT / MIB:.0f} MiB; "
        f"crossing to freed: soft {_spread(soft)}, emergency {_spread(emergency)}"
    )


def _spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return " ".join(f"{1000 * one:.0f} ms" for one in seconds) or "not crossed"
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return f"p50 {1000 * cuts[9]:.0f}, p95 {1000 * cuts[18]:.0f} ms of {len(seconds)}"
