"""A change in batches: the whole controller over a fleet in memory, and the rule for single pods (R-P15)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.fake_sidecar import FakeSidecar
from controller.test_loop import Controller, totals
from membudget_contract.policy_status import ConditionType
from membudget_controller.objects import RolloutRule

PODS = 8
QUARTER = {"maxPercent": 25, "pauseSeconds": 30}


class Fleet(Controller):
    """Eight pods that hold 100Mi, and a policy that changes two at once."""

    def __init__(self, **rollout: int) -> None:
        super().__init__()
        self.pods = self.add_pods(PODS)
        self.rollout = rollout or QUARTER
        self.edit("100Mi", generation=1)
        self.run(300.0)
        assert self.held("100Mi") == PODS

    def edit(self, total: str, generation: int, **spec: Any) -> None:
        """Edit the policy's total."""
        self.apply(total=total, generation=generation, version=generation * 10, rollout=self.rollout, **spec)

    def held(self, total: str) -> int:
        """How many pods hold that total."""
        return totals(self.pods).count(total)

    def programmed(self) -> tuple[str, str]:
        """The condition, and why."""
        return self.answers()[ConditionType.PROGRAMMED]

    def message(self) -> str:
        """Of that condition."""
        conditions = self.cluster.policies["search", "retrieval"].status.conditions
        return next(condition.message for condition in conditions if condition.type is ConditionType.PROGRAMMED)

    def changed(self, total: str) -> FakeSidecar:
        """A pod that was changed."""
        return next(pod for pod in self.pods if pod.held and pod.held.plan.total == total)


def test_a_change_goes_out_in_batches_with_a_pause() -> None:
    """R-P15: a quarter of eight pods are in change at once, each for half a minute."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    seen: list[int] = []
    for _ in range(13):
        fleet.run(10.0)
        seen.append(fleet.held("90Mi"))
    assert seen == sorted(seen)
    assert seen[:3] == [2, 2, 2]
    assert {4, 6, 8} <= set(seen)
    fleet.run(60.0)
    assert fleet.programmed() == ("True", "Programmed")


def test_while_a_changed_pod_is_not_well_the_others_wait() -> None:
    """R-P15: paused says why, and the rollout goes on by itself when the pod is well again."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    fleet.run(5.0)
    sick = fleet.changed("90Mi")
    sick.usage = 151
    fleet.run(120.0)
    assert fleet.held("90Mi") <= 3
    assert fleet.programmed() == ("False", "Paused")
    assert fleet.message() == f"the others wait for {sick.pod.name}: is over the budget"
    assert fleet.sample("rollouts_paused") == 1.0
    sick.usage = 100
    fleet.run(300.0)
    assert (fleet.held("90Mi"), fleet.programmed()) == (PODS, ("True", "Programmed"))


@pytest.mark.parametrize(
    ("mode", "told"),
    [("refuse", "refused it, NoLimit: a total of 75% needs a container limit"), ("down", "refuses the connection")],
)
def test_a_pod_that_cannot_take_the_change_pauses_it(mode: str, told: str) -> None:
    """R-P15: the first batch finds out, not the whole fleet."""
    fleet = Fleet()
    for pod in fleet.pods:
        pod.mode = mode
    fleet.edit("90Mi", 2)
    fleet.run(203.0)
    assert fleet.held("100Mi") == PODS
    assert fleet.programmed() == ("False", "Paused")
    assert told in fleet.message()
    tried = [pod for pod in fleet.pods if len(pod.bodies) > 1]
    assert len(tried) <= 2


def test_another_edit_begins_anew() -> None:
    """R-P15: what paused was the change before; the pods that took it are changed again like the others."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    fleet.run(5.0)
    sick = fleet.changed("90Mi")
    sick.usage = 151
    fleet.run(60.0)
    fleet.edit("95Mi", 3)
    fleet.run(5.0)
    assert fleet.held("95Mi") == 2
    sick.usage = 100
    fleet.run(400.0)
    assert fleet.held("95Mi") == PODS


def test_from_observe_to_enforce_is_a_rollout_too() -> None:
    """R-P15: the first pods to act show whether it does good."""
    fleet = Fleet()
    fleet.edit("100Mi", 2, mode="Observe")
    fleet.run(400.0)
    fleet.edit("100Mi", 3, mode="Enforce")
    fleet.run(5.0)
    modes = [pod.held.plan.mode.value if pod.held else "" for pod in fleet.pods]
    assert sorted(modes) == ["Enforce"] * 2 + ["Observe"] * 6


def test_a_controller_that_restarts_in_the_middle_goes_on_in_batches() -> None:
    """R-P15: nothing but the pods themselves remembers how far it came."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    fleet.run(40.0)
    before = fleet.held("90Mi")
    fleet.start()
    fleet.run(20.0)
    assert before <= fleet.held("90Mi") <= before + 2
    fleet.run(400.0)
    assert fleet.held("90Mi") == PODS


def test_a_new_pod_is_told_at_once() -> None:
    """R-P15: a pod without any order has nothing to change from, and waits for nobody."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    fleet.run(5.0)
    (new,) = fleet.add_pods(1)
    fleet.run(3.0)
    assert totals([new]) == ["90Mi"]


def test_without_a_word_all_pods_change_at_once() -> None:
    """R-P15: opt-in."""
    fleet = Fleet(maxPercent=100)
    fleet.edit("90Mi", 2)
    fleet.run(3.0)
    assert fleet.held("90Mi") == PODS


def test_one_pod_at_least_is_in_change() -> None:
    """R-P15: one percent of eight would be nobody for ever."""
    fleet = Fleet(maxPercent=1, pauseSeconds=5)
    fleet.edit("90Mi", 2)
    fleet.run(2.0)
    assert fleet.held("90Mi") == 1
    fleet.run(300.0)
    assert fleet.held("90Mi") == PODS


def test_a_rollout_that_is_done_asks_and_writes_no_more_than_ever() -> None:
    """Guarantee 6: a converged state stays as it is."""
    fleet = Fleet()
    fleet.edit("90Mi", 2)
    fleet.run(400.0)
    reports, orders = sum(pod.reports for pod in fleet.pods), fleet.network.orders()
    fleet.run(600.0)
    assert fleet.network.orders() == orders
    assert sum(pod.reports for pod in fleet.pods) - reports <= PODS * 600 / 45 + PODS


@settings(max_examples=15, deadline=None)
@given(percent=st.integers(1, 99), pause=st.integers(1, 40))
def test_never_more_than_a_batch_is_in_change(percent: int, pause: int) -> None:
    """R-P15: whatever the figures, and every pod gets there."""
    fleet = Fleet(maxPercent=percent, pauseSeconds=pause)
    batch = max(1, PODS * percent // 100)
    fleet.edit("90Mi", 2)
    fleet.run(0.9)
    assert fleet.held("90Mi") <= batch
    fleet.run(60.0 * PODS)
    assert fleet.held("90Mi") == PODS


def test_the_defaults_of_the_rule_are_all_at_once() -> None:
    """R-P15: as the definition says."""
    assert RolloutRule() == RolloutRule(max_percent=100, pause_seconds=0)


def test_a_pod_that_has_been_down_for_long_does_not_hold_up_the_others() -> None:
    """R-P15: nobody knows what it holds, and it was not changed."""
    fleet = Fleet(maxPercent=12, pauseSeconds=5)
    fleet.pods[0].mode = "down"
    fleet.start()
    fleet.edit("90Mi", 2)
    fleet.run(500.0)
    assert fleet.held("90Mi") == PODS - 1
