"""Enforcement stopped by hand: as if the plan said Observe, until its time is over (R-S09)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from membudget_contract.compile import compile_policy
from membudget_contract.plan import Layer, Plan
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ConfigureRequest
from membudget_sidecar.plans.plan_keeper import KEPT_CHANGES, PlanKeeper

PLAN: Plan = msgspec.structs.replace(compile_policy(None), policy="one")
OTHER: Plan = msgspec.structs.replace(PLAN, policy="other", total="100Mi")


class Kept:
    """A keeper with a clock moved by hand; its wall clock is ahead by 7000 s."""

    def __init__(self, folder: Path) -> None:
        self.now = 50.0
        self.keeper = PlanKeeper(folder, {}, monotonic=lambda: self.now, wall=lambda: 7000.0 + self.now)

    def after(self, seconds: float) -> Mode:
        """The mode in force that much later."""
        self.now += seconds
        return self.keeper.follow(None, None).mode


def test_it_holds_for_its_time_and_not_longer(tmp_path: Path) -> None:
    """R-S09: the figures stay, the mode says Configure."""
    kept = Kept(tmp_path)
    before = kept.keeper.effective
    stopped = kept.keeper.stop_enforcing(60, 1000)
    assert (False, Mode.ENFORCE, 7110.0) == (stopped.active, stopped.mode, stopped.stopped_until)
    assert (before.components, Layer.CONFIGURE) == (
        kept.keeper.effective.components,
        kept.keeper.effective.layers["mode"],
    )
    assert [Mode.OBSERVE, Mode.ENFORCE] == [kept.after(59), kept.after(1)]
    assert (before, True) == (kept.keeper.effective, kept.keeper.enforcement.active)


def test_the_plan_in_force_is_one_object_while_nothing_moves(tmp_path: Path) -> None:
    """R-S09: another object is another plan to who follows it, and would be told to the engine at each look."""
    kept = Kept(tmp_path)
    kept.keeper.stop_enforcing(60, None)
    assert kept.keeper.effective is kept.keeper.effective is kept.keeper.follow(None, None)


def test_a_new_plan_and_a_configure_call_leave_it_stopped(tmp_path: Path) -> None:
    """R-S09: both count once it goes on."""
    kept = Kept(tmp_path)
    kept.keeper.stop_enforcing(60, None)
    kept.keeper.adopt(OTHER, None)
    kept.keeper.configure(ConfigureRequest(total="90Mi", ttl_seconds=600), None)
    held = kept.keeper.effective
    assert (Mode.OBSERVE, 90, "other") == (held.mode, held.total_bytes >> 20, held.policy)
    assert (Mode.ENFORCE, 90) == (kept.after(61), kept.keeper.effective.total_bytes >> 20)


def test_it_is_not_kept_for_the_next_life(tmp_path: Path) -> None:
    """R-S09: a sidecar that starts does what its plan says."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(PLAN, None)
    kept.keeper.stop_enforcing(60, None)
    kept.keeper.adopt(OTHER, None)
    again = Kept(tmp_path).keeper
    assert (Mode.ENFORCE, "other", ()) == (again.effective.mode, again.effective.policy, again.enforcement.changes)


def test_a_plan_that_observes_says_so_whatever_is_started(tmp_path: Path) -> None:
    """R-S09: only the policy makes it enforce."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(msgspec.structs.replace(PLAN, mode=Mode.OBSERVE), None)
    kept.keeper.stop_enforcing(60, None)
    started = kept.keeper.start_enforcing(None)
    assert (False, Mode.OBSERVE, None) == (started.active, started.mode, started.stopped_until)


def test_who_changed_it_is_on_record_the_last_ones_only(tmp_path: Path) -> None:
    """R-S09: oldest first, with the uid and the time."""
    kept = Kept(tmp_path)
    for uid in range(KEPT_CHANGES + 5):
        kept.keeper.stop_enforcing(60, uid)
    kept.now += 1
    kept.keeper.start_enforcing(99)
    changes = kept.keeper.enforcement.changes
    assert (KEPT_CHANGES, 6, 99, None, 7051.0) == (
        len(changes),
        changes[0].uid,
        changes[-1].uid,
        changes[-1].stopped_until,
        changes[-1].at,
    )
