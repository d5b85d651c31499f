"""There is always a plan, the last good one, tightened for a time at most (R-P03, R-P05, guarantee 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.errors import BudgetBelowFloor, ContractError, LooserThanPlan, NoLimit, PolicyInvalid
from membudget_contract.plan import Layer, Plan
from membudget_contract.policy import Mode, Signal, parse_policy
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ConfigureRequest
from membudget_sidecar.plans.plan_keeper import KEPT_PLAN, Floor, PlanKeeper


def plan_of(total: str, components: Mapping[str, str] | None = None) -> Plan:
    """A plan with that total."""
    budget: dict[str, Any] = {"total": total} | ({"components": dict(components)} if components else {})
    metadata = {"name": f"asks-{total.rstrip('%')}"}
    document = {"apiVersion": "membudget.dev/v1alpha1", "kind": "MemoryPolicy", "metadata": metadata}
    return compile_policy(parse_policy({**document, "spec": {"budget": budget}}))


def floor(mebibytes: int) -> Floor:
    """Under the signal of those plans."""
    return Floor(Signal.UNRECLAIMABLE, mebibytes * MIB)


class Kept:
    """A keeper with a clock moved by hand."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.now = 50.0
        self.wall = 7000.0
        self.keeper = PlanKeeper(folder, environment or {}, monotonic=lambda: self.now, wall=lambda: self.wall)

    def total(self) -> int:
        """In MiB."""
        return self.keeper.effective.total_bytes // MIB

    def tighten(self, total: str | None, seconds: int = 60, **components: str) -> None:
        """A configure call while the floor is not known."""
        self.keeper.configure(ConfigureRequest(total=total, components=components, ttl_seconds=seconds), None)


def test_with_nothing_kept_the_built_in_profile_holds(tmp_path: Path) -> None:
    """Guarantee 5: a sidecar is never without a plan."""
    kept = Kept(tmp_path)
    assert (150, None) == (kept.total(), kept.keeper.problem)


def test_an_adopted_plan_holds_in_the_next_life(tmp_path: Path) -> None:
    """Guarantee 5: the last good plan comes back from the disk, with the name of its policy."""
    Kept(tmp_path).keeper.adopt(plan_of("100Mi"), None)
    again = Kept(tmp_path)
    assert (100, "asks-100Mi", None) == (again.total(), again.keeper.effective.policy, again.keeper.problem)


def test_a_plan_that_contradicts_itself_leaves_the_last_good_one(tmp_path: Path) -> None:
    """Fault 47: refused with the reason, in memory and on the disk."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(plan_of("100Mi"), None)
    with pytest.raises(PolicyInvalid) as refusal:
        kept.keeper.adopt(plan_of("90Mi", {"index": "91Mi"}), None)
    kept.keeper.refuse(refusal.value)
    assert (100, str(refusal.value)) == (kept.total(), kept.keeper.problem)
    assert 100 == Kept(tmp_path).total()


def test_valid_after_invalid_recovers_unaided(tmp_path: Path) -> None:
    """Fault 105: the reason goes with the next good policy."""
    kept = Kept(tmp_path)
    kept.keeper.refuse(PolicyInvalid("spec.mode", "is an unknown field"))
    kept.keeper.adopt(plan_of("100Mi"), None)
    assert (100, None) == (kept.total(), kept.keeper.problem)


def test_the_same_plan_again_is_not_written_again(tmp_path: Path) -> None:
    """Guarantee 6: a reload of what holds writes nothing."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(plan_of("100Mi"), None)
    before = (tmp_path / KEPT_PLAN).stat()
    kept.keeper.adopt(plan_of("100Mi"), None)
    assert (before.st_ino, before.st_mtime_ns) == (
        (tmp_path / KEPT_PLAN).stat().st_ino,
        (tmp_path / KEPT_PLAN).stat().st_mtime_ns,
    )


@pytest.mark.parametrize("at", [0, 20, 90, -1])
def test_a_torn_or_changed_kept_file_is_not_believed(tmp_path: Path, at: int) -> None:
    """Fault 52: cut anywhere, the checksum refuses it; the built-in plan holds, and the status says why."""
    Kept(tmp_path).keeper.adopt(plan_of("100Mi"), None)
    path = tmp_path / KEPT_PLAN
    path.write_bytes(path.read_bytes()[:at])
    again = Kept(tmp_path)
    assert 150 == again.total()
    assert "is torn, changed, or of another version" in (again.keeper.problem or "")
    again.keeper.adopt(plan_of("90Mi"), None)
    assert 90 == Kept(tmp_path).total()


def test_a_percent_waits_for_the_engine_and_then_follows_the_live_limit(tmp_path: Path) -> None:
    """R-P03: the limit is known only with the engine; moved in place, the budget follows."""
    kept = Kept(tmp_path)
    with pytest.raises(NoLimit) as refusal:
        kept.keeper.adopt(plan_of("50%"), None)
    kept.keeper.refuse(refusal.value)
    seen = [(kept.total(), kept.keeper.problem is None)]
    for limit in (200 * MIB, 120 * MIB, None, 300 * MIB):
        kept.keeper.follow(limit, None)
        seen.append((kept.total(), kept.keeper.problem is None))
    assert [(150, False), (100, True), (60, True), (60, True), (150, True)] == seen


def test_a_kept_percent_waits_again_in_the_next_life(tmp_path: Path) -> None:
    """R-P03, guarantee 5: the plan is not lost while its limit is unknown, nor by a broken policy meanwhile."""
    kept = Kept(tmp_path)
    kept.keeper.follow(200 * MIB, None)
    kept.keeper.adopt(plan_of("50%"), None)
    again = Kept(tmp_path)
    again.keeper.refuse(PolicyInvalid("the file", "cannot be read"))
    again.keeper.follow(100 * MIB, None)
    assert (50, "the file: cannot be read") == (again.total(), again.keeper.problem)


def test_a_percent_from_the_environment_waits_as_well(tmp_path: Path) -> None:
    """R-P05: MEMBUDGET_TOTAL=75% is no reason to refuse to start before the engine is up."""
    kept = Kept(tmp_path, {"MEMBUDGET_TOTAL": "75%"})
    before = (kept.total(), "needs a container limit" in (kept.keeper.problem or ""))
    kept.keeper.follow(200 * MIB, None)
    assert ((150, True), (150, None), Layer.ENVIRONMENT) == (
        before,
        (kept.total(), kept.keeper.problem),
        kept.keeper.effective.layers["budget.total"],
    )


def test_a_limit_too_low_for_the_components_keeps_the_last_figures(tmp_path: Path) -> None:
    """R-P03: said once in the status, not raised at every look."""
    kept = Kept(tmp_path)
    kept.keeper.follow(200 * MIB, None)
    kept.keeper.adopt(plan_of("50%", {"index": "90Mi"}), None)
    kept.keeper.follow(100 * MIB, None)
    assert 100 == kept.total()
    assert "spec.budget.components" in (kept.keeper.problem or "")
    kept.keeper.follow(300 * MIB, None)
    assert (150, None) == (kept.total(), kept.keeper.problem)


def test_a_total_below_the_floor_is_refused_with_the_figure_and_taken_when_it_fits(tmp_path: Path) -> None:
    """Design, MemoryPolicy: what cannot be given back must fit; a burst that ends must not need a second apply."""
    kept = Kept(tmp_path)
    with pytest.raises(BudgetBelowFloor, match="ask for at least 103Mi") as refusal:
        kept.keeper.adopt(plan_of("60Mi"), floor(80))
    kept.keeper.refuse(refusal.value)
    kept.keeper.follow(None, floor(70))
    assert 150 == kept.total()
    assert "ask for at least 90Mi" in (kept.keeper.problem or "")
    kept.keeper.follow(None, floor(50))
    assert (60, None) == (kept.total(), kept.keeper.problem)


def test_a_plan_taken_before_the_floor_was_known_gives_way_once_it_is(tmp_path: Path) -> None:
    """R-S12: a restart must not enforce what the same sidecar refused live; it is taken when it fits."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(plan_of("120Mi"), floor(80))
    again = Kept(tmp_path)
    again.keeper.adopt(plan_of("60Mi"), None)
    assert 60 == again.total()
    again.keeper.follow(None, floor(80))
    assert (again.total() > 80, "60.0 MiB lies below" in (again.keeper.problem or "")) == (True, True)
    again.keeper.follow(None, floor(50))
    assert (60, None) == (again.total(), again.keeper.problem)


def test_a_plan_that_waited_is_forgotten_when_a_newer_edit_is_refused(tmp_path: Path) -> None:
    """R-P08: a stale plan is never put in force behind the author's back."""
    kept = Kept(tmp_path)
    with pytest.raises(BudgetBelowFloor):
        kept.keeper.adopt(plan_of("60Mi"), floor(80))
    kept.keeper.refuse(PolicyInvalid("spec", "a newer edit that nobody can read"))
    kept.keeper.follow(None, floor(50))
    assert 150 == kept.total()


def test_a_floor_measured_under_another_signal_is_not_held_against_a_plan(tmp_path: Path) -> None:
    """R-S02: what counts as unreclaimable in a shared cgroup says nothing about one process's resident set."""
    kept = Kept(tmp_path)
    plan = msgspec.structs.replace(plan_of("60Mi"), signal=Signal.RESIDENT_SET_SIZE)
    kept.keeper.adopt(plan, floor(80))
    assert 60 == kept.total()
    with pytest.raises(BudgetBelowFloor):
        kept.keeper.adopt(msgspec.structs.replace(plan, total="50Mi"), Floor(Signal.RESIDENT_SET_SIZE, 80 * MIB))


def test_a_total_of_nothing_is_refused_even_while_the_floor_is_unknown(tmp_path: Path) -> None:
    """A total of 0 would make every level an emergency and evict all there is."""
    with pytest.raises(BudgetBelowFloor):
        Kept(tmp_path).keeper.adopt(plan_of("0"), None)


def test_configure_tightens_and_ends_on_the_monotonic_clock(tmp_path: Path) -> None:
    """R-P05: the finest layer, traced as Configure, gone after its time without anybody's doing."""
    kept = Kept(tmp_path)
    kept.keeper.adopt(plan_of("100Mi"), None)
    answer = kept.keeper.configure(ConfigureRequest(total="80Mi", ttl_seconds=60), None)
    assert (100 * MIB, 80 * MIB, 7060.0) == (
        answer.previous.total_bytes,
        answer.current.total_bytes,
        answer.expires_at,
    )
    assert Layer.CONFIGURE == kept.keeper.effective.layers["budget.total"]
    kept.now += 59.9
    kept.keeper.follow(None, None)
    assert (80, pytest.approx(7000.1)) == (kept.total(), kept.keeper.overridden_until)
    kept.now += 0.1
    kept.keeper.follow(None, None)
    assert (100, None) == (kept.total(), kept.keeper.overridden_until)


def test_configure_with_no_time_ends_what_was_configured(tmp_path: Path) -> None:
    """R-P05: ttlSeconds 0."""
    kept = Kept(tmp_path)
    kept.tighten("80Mi")
    kept.tighten(None, 0)
    assert (150, None) == (kept.total(), kept.keeper.overridden_until)


@pytest.mark.parametrize(
    ("total", "components", "error"),
    [
        ("151Mi", {}, LooserThanPlan),
        (None, {"index": "100Mi"}, LooserThanPlan),
        (None, {"nothing": "1Mi"}, LooserThanPlan),
        ("69Mi", {}, BudgetBelowFloor),
        ("0", {}, BudgetBelowFloor),
        ("a lot", {}, ContractError),
    ],
)
def test_configure_refuses_what_is_looser_or_cannot_hold(
    tmp_path: Path, total: str | None, components: dict[str, str], error: type[ContractError]
) -> None:
    """R-P05, BudgetBelowFloor: and changes nothing."""
    kept = Kept(tmp_path)
    before = kept.keeper.effective
    with pytest.raises(error):
        kept.keeper.configure(ConfigureRequest(total=total, components=components, ttl_seconds=60), floor(70))
    assert (before, None) == (kept.keeper.effective, kept.keeper.overridden_until)


def test_what_was_configured_stays_under_a_new_plan_unless_that_is_tighter(tmp_path: Path) -> None:
    """R-P05: an edit of the policy must not loosen what somebody tightened a minute ago."""
    kept = Kept(tmp_path)
    kept.tighten("80Mi")
    kept.keeper.adopt(plan_of("120Mi"), None)
    assert 80 == kept.total()
    kept.keeper.adopt(plan_of("70Mi"), None)
    assert (70, None) == (kept.total(), kept.keeper.overridden_until)


def test_a_limit_that_falls_below_what_was_configured_is_followed(tmp_path: Path) -> None:
    """R-P03: an override never holds the budget above the live limit."""
    kept = Kept(tmp_path)
    kept.keeper.follow(200 * MIB, None)
    kept.keeper.adopt(plan_of("75%"), None)
    kept.tighten("140Mi")
    kept.keeper.follow(100 * MIB, None)
    assert (75, None) == (kept.total(), kept.keeper.overridden_until)


def test_a_disk_that_takes_nothing_does_not_stop_a_plan(tmp_path: Path) -> None:
    """Fault 73: the plan holds; what could not be kept is logged."""
    kept = Kept(tmp_path)
    (tmp_path / KEPT_PLAN).mkdir()  # root writes through read-only modes, but not over a folder
    kept.keeper.adopt(plan_of("100Mi"), None)
    assert 100 == kept.total()


@pytest.mark.parametrize("jump", [-86_400.0, 315_360_000.0])
def test_a_wall_clock_that_jumps_neither_ends_nor_lengthens_what_holds_for_a_time(tmp_path: Path, jump: float) -> None:
    """Fault 94: a day back, ten years on; times that count are those of the monotonic clock."""
    kept = Kept(tmp_path)
    kept.tighten("80Mi", 60)
    kept.keeper.stop_enforcing(60, 0)
    kept.wall += jump
    kept.now += 59
    kept.keeper.follow(None, None)
    assert (80, Mode.OBSERVE) == (kept.total(), kept.keeper.effective.mode)
    kept.wall -= jump
    kept.now += 1
    kept.keeper.follow(None, None)
    assert (150, Mode.ENFORCE) == (kept.total(), kept.keeper.effective.mode)
