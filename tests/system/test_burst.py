import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest

from memory_cgroup import memory_cgroup
from resident_sampler import ResidentSampler

BURST = Path(__file__).with_name("burst_process.py")
LIMIT = 256 * 1024 * 1024
RUNS = int(os.environ.get("MEMBUDGET_BURST_RUNS", "20"))
OFFERED_BYTES = 8 * LIMIT
"""How fast they come is the machine's affair, and published (docs/decisions/0023)."""
OWNED_AT_LEAST = 100 * 1024 * 1024
pytestmark = pytest.mark.cgroup


@dataclass(frozen=True, slots=True)
class Outcome:
    """One process: how it ended, what it said, and what was seen of it from outside."""

    code: int
    oom_kills: int
    peak_usage: int
    peak_anonymous: int
    said: dict[str, float]


def burst(folder: Path, *flags: str) -> Outcome:
    """One fresh process in a cgroup of its own."""
    with memory_cgroup(LIMIT) as cgroup:
        argv = [sys.executable, str(BURST), str(folder), str(OFFERED_BYTES), *flags]
        process = cgroup.run(argv, stdout=PIPE, env={**os.environ, "MEMBUDGET_TOTAL": str(LIMIT)})
        with ResidentSampler(process.pid) as sampler:
            output, _ = process.communicate(timeout=60)
        said: dict[str, float] = json.loads(output) if process.returncode == 0 else {}
        return Outcome(process.returncode, cgroup.oom_kills(), cgroup.peak_usage(), sampler.max_anonymous, said)


@pytest.mark.timeout(RUNS * 20 + 120)
def test_a_burst_of_eight_times_the_limit_never_meets_the_oom_killer(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E10: managed bytes are admitted before they are allocated; the bounds hold with no sidecar at all."""
    outcomes = [burst(tmp_path / str(number)) for number in range(RUNS)]
    for outcome in outcomes:
        sys.stdout.write(f"{outcome}\n")
    assert [(outcome.code, outcome.oom_kills) for outcome in outcomes] == [(0, 0)] * RUNS
    assert min(outcome.said["offered"] for outcome in outcomes) >= OFFERED_BYTES
    assert min(outcome.said["owned"] for outcome in outcomes) > OWNED_AT_LEAST
    rates = [outcome.said["rate"] / 1024**3 for outcome in outcomes]
    publish(
        f"{RUNS} bursts of 2 GiB by 8 threads in 256 MiB: 0 OOM kills, offered at {min(rates):.2f} to {max(rates):.2f} "
        f"GiB/s, peak anonymous {max(outcome.peak_anonymous for outcome in outcomes) / 1024**2:.0f} MiB"
    )


def test_a_byte_blind_cache_is_killed_by_the_same_burst(tmp_path: Path) -> None:
    """R-E10: what the test above would see if nothing were admitted."""
    outcome = burst(tmp_path, "--byte-blind")
    assert (outcome.code, outcome.oom_kills) == (-9, 1)
