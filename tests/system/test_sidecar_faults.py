"""What happens to the engine's memory when the sidecar dies, freezes or finds another engine; with real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import pytest

from membudget_contract.control_api import FREE_PATH
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started
from system.growth_run import CACHE_CEILING, LIMIT, MIB, SignalSampler, growth_stack

SAMPLING = {"intervalSeconds": 1}
FROZEN_SECONDS = 3.0
FAST_SECONDS = 0.1
LEAST_ROUND_TRIP_SECONDS = 0.2
"""Answers of the engine bring looks too, and each of a second at most one or two."""
UNPACED_LOOKS = 4
"""One in work when the process freezes; on going on one that is due, one for an answer, one for a stall of memory."""
SEEN_LOOKS = 8
"""Twice as many: looks made up for would all be among them."""


@pytest.fixture
def engine(tmp_path: Path) -> Generator[FakeEngine]:
    """An engine that listens in tmp_path."""
    fake = FakeEngine(tmp_path).start()
    yield fake
    fake.kill()


@pytest.fixture
def sidecars(tmp_path: Path) -> Generator[Callable[..., Started]]:
    """Starts a sidecar in tmp_path, with a policy of 100Mi unless it is to do without."""
    made: list[Started] = []

    def start(*, with_policy: bool = True) -> Started:
        policy = tmp_path / "policy.yaml"
        if with_policy:
            policy.write_text(policy_text(sampling=SAMPLING, thresholds={"collect": {"percent": 100}}))
        made.append(Started(tmp_path, *(("--policy", str(policy)) if with_policy else ())))
        return made[-1]

    yield start
    for started in made:
        if started.process.poll() is None:
            started.process.send_signal(SIGCONT)
            started.end(SIGKILL)


def actions(started: Started) -> list[dict[str, Any]]:
    """What it did, without the Resize that every start brings."""
    records: list[dict[str, Any]] = started.ask("GET", "/v1/actions")[1]["actions"]
    return [record for record in records if record["kind"] != "Resize"]


def test_a_killed_sidecar_comes_back_with_its_plan_and_acts_only_on_what_it_saw(
    engine: FakeEngine, sidecars: Callable[..., Started], publish: Callable[[str], None]
) -> None:
    """Fault 40: the last good plan from disk, no action while nothing is known, then one on a figure of its own."""
    first = sidecars()
    first.until(engine="Connected", budgetBytes=100 * MIB)
    first.end(SIGKILL)
    engine.kill()
    began = time.monotonic()
    second = sidecars(with_policy=False)
    second.until(engine="WaitingForEngine", budgetBytes=100 * MIB)
    publish(f"sidecar killed and started anew: its plan is in force after {time.monotonic() - began:.2f} s")
    assert (None, []) == (second.status()["usage"]["value"], actions(second))
    engine.start()
    engine.fill_to(40 * MIB)
    engine.hold_managed(60 * MIB)
    eventually(lambda: bool(engine.requests(FREE_PATH)), "the emergency is answered")
    eventually(lambda: actions(second)[0]["status"] == "Effective", "and verified")
    assert actions(second)[0]["signalBeforeBytes"] > 80 * MIB


def test_an_engine_that_restarts_is_attached_again_with_a_peak_of_its_own(
    engine: FakeEngine, sidecars: Callable[..., Started], publish: Callable[[str], None]
) -> None:
    """Fault 54: another pid; the samples go on, the peak of the old one is gone, and nothing is alarmed meanwhile."""
    started = sidecars()
    engine.fill_to(70 * MIB)
    started.until(engine="Connected", enginePid=engine.pid)
    eventually(lambda: started.status()["historyPeakBytes"] > 65 * MIB, "the peak was seen")
    samples = started.status()["samples"]
    engine.kill()
    began = time.monotonic()
    engine.start()
    started.until(engine="Connected", enginePid=engine.pid)
    publish(f"engine killed and started anew: attached after {time.monotonic() - began:.2f} s, its own start included")
    eventually(lambda: (started.status()["historyPeakBytes"] or 1 << 40) < 60 * MIB, "a peak of its own")
    assert started.status()["samples"] > samples
    assert [] == actions(started)


def test_a_frozen_sidecar_makes_up_for_nothing_when_it_goes_on(
    engine: FakeEngine, sidecars: Callable[..., Started]
) -> None:
    """Fault 95: after three seconds at a pace of ten looks a second there are not thirty looks at once."""
    started = sidecars()
    engine.fill_to(78 * MIB)
    started.until(engine="Connected", enginePid=engine.pid)
    eventually(lambda: started.status()["usage"]["value"] > 75 * MIB, "the fast pace")
    began, before = time.monotonic(), started.status()["samples"]
    started.process.send_signal(SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    started.process.send_signal(SIGCONT)
    eventually(lambda: started.status()["samples"] >= before + SEEN_LOOKS, "it looks again")
    looked = started.status()["samples"] - before
    running = time.monotonic() - began - FROZEN_SECONDS
    assert looked <= UNPACED_LOOKS + running / FAST_SECONDS + running / LEAST_ROUND_TRIP_SECONDS


@pytest.mark.cgroup
@pytest.mark.timeout(180)
def test_a_frozen_sidecar_leaves_managed_load_within_the_engines_own_bounds(tmp_path: Path) -> None:
    """Fault 41: more than the limit is offered to caches while nobody looks: the runtime's ceilings and room hold."""
    with growth_stack(tmp_path, "inside") as stack:
        stack.sidecar.process.send_signal(SIGSTOP)
        with SignalSampler(stack.cgroup) as sampler:
            owned = stack.ask(f"fill {640 * MIB}")["owned"]
        kills = stack.cgroup.oom_kills()
    assert 0 == kills
    assert 200 * MIB < owned <= CACHE_CEILING
    assert max(held for _, held in sampler.samples) < LIMIT
