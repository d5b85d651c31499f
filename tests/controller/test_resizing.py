"""Shrink first through the whole controller: cluster, sidecars and clock in memory (goal 1, R-P03, R-P10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.fake_sidecar import FakeSidecar
from controller.test_loop import Controller
from membudget_contract.policy_status import ConditionType, PolicyStatus
from membudget_contract.quantities import MIB, parse_quantity
from membudget_controller.pod_memory import ContainerMemory
from membudget_controller.resizes import AT_ONCE, REFUSED_SECONDS

LARGE = 200 * MIB
SHRUNK: dict[str, Any] = {"total": "75%", "resize": {"mode": "ShrinkFirst", "limit": "120Mi"}}


class Resizing(Controller):
    """With pods whose engine has a limit, and a kubelet that does as the API server says."""

    def add_engines(self, count: int, limit: int = LARGE) -> list[FakeSidecar]:
        """Each uses most of what it may."""
        sidecars = self.add_pods(count)
        for sidecar in sidecars:
            self.change(sidecar, ContainerMemory("engine", limit, limit, limit))
            sidecar.usage, sidecar.budget = limit * 3 // 4, limit
        return sidecars

    def change(self, sidecar: FakeSidecar, memory: ContainerMemory, **changed: Any) -> None:
        """The pod, with its event."""
        pod = replace(self.cluster.pods[sidecar.pod.uid], memory=(memory,), **changed)
        self.observed.see_pod(self.cluster.add_pod(pod))

    def memory(self, sidecar: FakeSidecar) -> ContainerMemory:
        """Of the pod's engine."""
        return self.cluster.pods[sidecar.pod.uid].memory[0]

    def give_back(self, sidecar: FakeSidecar, usage: int) -> None:
        """The engine did, and the sidecar measured."""
        sidecar.usage, sidecar.budget = usage, 90 * MIB

    def kubelets(self) -> None:
        """Each brings its container to what the pod asks for."""
        for sidecar in self.network.sidecars.values():
            memory = self.memory(sidecar)
            if memory.actual != memory.limit:
                self.change(sidecar, replace(memory, actual=memory.limit))

    @property
    def status(self) -> PolicyStatus:
        """Of the only policy."""
        return self.cluster.policies["search", "retrieval"].status

    @property
    def told(self) -> tuple[str, str, str]:
        """Of the condition Resized: status, reason, message."""
        (found,) = [each for each in self.status.conditions if each.type is ConditionType.RESIZED]
        return found.status.value, found.reason.value, found.message

    def reasons(self) -> list[str]:
        """That Resized went through, one after the other."""
        notes = [event.note for event in self.cluster.events]
        return [
            event.reason for event, note in zip(self.cluster.events, notes, strict=True) if note.startswith("Resized:")
        ]


def total_of(pod: FakeSidecar) -> int | None:
    """Of the plan that it holds, in bytes."""
    return parse_quantity(pod.held.plan.total) if pod.held else None


@pytest.fixture
def controller() -> Resizing:
    """Over an empty cluster."""
    return Resizing()


def test_the_plan_goes_first_then_the_bytes_then_the_limit(controller: Resizing) -> None:
    """Goal 1: in this order, each step after the one before was seen."""
    (pod,) = controller.add_engines(1)
    controller.apply(**SHRUNK)
    controller.run(60)
    assert pod.held
    assert ("94371840", LARGE) == (pod.held.plan.total, controller.memory(pod).limit)
    full = ("False", "GivingBack", "retriever-0: holds a budget of its own of 200.0 MiB, which does not fit")
    assert full == controller.told
    controller.give_back(pod, 95 * MIB)
    controller.run(60)
    assert LARGE == controller.memory(pod).limit
    assert ("False", "GivingBack") == controller.told[:2]
    assert "uses 95.0 MiB of the 90.0 MiB that fit into 120Mi" in controller.told[2]
    assert (0, 1.0) == (controller.status.resized_pods, controller.sample("pods_resizing", status="GivingBack"))

    controller.give_back(pod, 80 * MIB)
    controller.run(5)
    assert ContainerMemory("engine", 120 * MIB, 120 * MIB, LARGE) == controller.memory(pod)
    assert ("False", "Resizing", "retriever-0: its kubelet has been asked") == controller.told
    controller.kubelets()
    controller.run(5)
    assert ("True", "Resized", "every pod has the limit") == controller.told
    assert (1, 1.0) == (controller.status.resized_pods, controller.sample("resizes_total", result="Patched"))
    assert ["GivingBack", "Resizing", "Resized"] == controller.reasons()


def test_a_pod_that_cannot_give_the_bytes_back_is_not_resized_and_says_what_it_needs(controller: Resizing) -> None:
    """R-P10: its sidecar refuses the budget with the figure, which the condition passes on; the limit stays."""
    (pod,) = controller.add_engines(1)
    pod.mode = "refuse"
    controller.apply(**SHRUNK)
    controller.run(60)
    assert LARGE == controller.memory(pod).limit
    assert (
        "False",
        "GivingBack",
        "retriever-0: does not hold the smaller budget: NoLimit: a total of 75% needs a container limit",
    ) == controller.told


def test_a_resized_cluster_is_left_alone(controller: Resizing) -> None:
    """Guarantee 6: nothing is written, nothing is pushed, nobody is asked more often than usual."""
    pods = controller.add_engines(3)
    for pod in pods:
        controller.give_back(pod, 80 * MIB)
    controller.apply(**SHRUNK)
    controller.run(10)
    controller.kubelets()
    controller.run(10)
    assert "Resized" == controller.told[1]
    writes, orders = list(controller.cluster.writes), controller.network.orders()
    reports = [pod.reports for pod in pods]
    controller.run(600)
    assert (writes, orders) == (controller.cluster.writes, controller.network.orders())
    assert all(8 <= pod.reports - before <= 12 for pod, before in zip(pods, reports, strict=True))


def test_a_higher_limit_comes_before_the_larger_budget(controller: Resizing) -> None:
    """Growing: no pod holds a budget that its limit does not carry; meanwhile Programmed says what it waits for."""
    (pod,) = controller.add_engines(1, limit=100 * MIB)
    controller.apply(total="60Mi")
    controller.run(5)
    controller.apply(**SHRUNK)
    controller.run(30)
    assert (60 * MIB, 120 * MIB) == (total_of(pod), controller.memory(pod).limit)
    (programmed,) = [each for each in controller.status.conditions if each.type is ConditionType.PROGRAMMED]
    assert ("Pushing", "retriever-0: waits until its container has the higher limit") == (
        programmed.reason.value,
        programmed.message,
    )
    controller.kubelets()
    controller.run(5)
    assert (90 * MIB, "Resized") == (total_of(pod), controller.told[1])


def soft_of(pod: FakeSidecar) -> int | None:
    """Of the plan that it holds, in percent."""
    return pod.held.plan.thresholds.soft.percent if pod.held else None


def growing(controller: Resizing) -> FakeSidecar:
    """A pod that holds 60 MiB of its limit of 100 and is to get 120, for which its node has no room."""
    (pod,) = controller.add_engines(1, limit=100 * MIB)
    controller.apply(total="60Mi")
    controller.run(5)
    pod.budget = 60 * MIB
    controller.apply(**SHRUNK)
    controller.run(5)
    return pod


def test_what_else_is_edited_does_not_wait_for_the_limit(controller: Resizing) -> None:
    """R-P08: it arrives with the budget that the pod has; the larger one comes with the limit, and both are one."""
    pod = growing(controller)
    controller.apply(**SHRUNK, thresholds={"soft": {"percent": 70, "releasePercent": 60}})
    controller.run(5)
    assert (60 * MIB, 70, 3) == (
        total_of(pod),
        soft_of(pod),
        pod.held and pod.held.policy and pod.held.policy.generation,
    )
    assert ("False", "Pushing") == controller.answers()[ConditionType.PROGRAMMED]
    controller.kubelets()
    controller.run(5)
    assert (90 * MIB, 70) == (total_of(pod), soft_of(pod))
    assert ("True", "Programmed") == controller.answers()[ConditionType.PROGRAMMED]


def test_a_pod_that_waits_for_its_limit_is_told_once(controller: Resizing) -> None:
    """Guarantee 6: nothing is sent again while nothing changes, by a controller that began anew neither."""
    pod = growing(controller)
    before = controller.network.orders()
    controller.run(600)
    pod.budget = 60 * MIB
    controller.start()
    controller.run(600)
    assert (before, 60 * MIB) == (controller.network.orders(), total_of(pod))


def test_after_a_restart_the_budget_that_a_pod_reports_is_the_one_that_it_keeps(controller: Resizing) -> None:
    """R-P08: whoever gave the order is gone."""
    pod = growing(controller)
    controller.start()
    controller.apply(**SHRUNK, thresholds={"soft": {"percent": 70, "releasePercent": 60}})
    controller.run(5)
    assert (60 * MIB, 70) == (total_of(pod), soft_of(pod))


def test_a_pod_that_refuses_what_it_gets_meanwhile_says_so(controller: Resizing) -> None:
    """R-P10: not hidden behind the wait for the limit."""
    pod = growing(controller)
    pod.mode = "refuse"
    controller.apply(**SHRUNK, thresholds={"soft": {"percent": 70, "releasePercent": 60}})
    controller.run(5)
    assert ("False", "Refused") == controller.answers()[ConditionType.PROGRAMMED]
    pod.mode = ""
    controller.kubelets()
    controller.run(5)
    assert ("True", "Programmed") == controller.answers()[ConditionType.PROGRAMMED]


def test_a_smaller_budget_needs_no_higher_limit(controller: Resizing) -> None:
    """It is sent at once where the limit rises and the budget falls."""
    pod = growing(controller)
    controller.apply(total="50Mi", resize={"mode": "ShrinkFirst", "limit": "120Mi"})
    controller.run(5)
    assert (50 * MIB, ("True", "Programmed")) == (total_of(pod), controller.answers()[ConditionType.PROGRAMMED])


def test_a_controller_without_the_right_says_so_and_tries_again(controller: Resizing) -> None:
    """Opt-in by RBAC: 403 is told with what to do; granted later, it is used without anybody's help."""
    (pod,) = controller.add_engines(1)
    controller.give_back(pod, 80 * MIB)
    controller.cluster.may_resize = False
    controller.apply(**SHRUNK)
    controller.run(5 * REFUSED_SECONDS)
    assert ("False", "ResizeRefused") == controller.told[:2]
    assert "controller.resizePods=true" in controller.told[2]
    attempts = controller.sample("resizes_total", result="Refused")
    assert attempts is not None
    assert 4 <= attempts <= 6
    controller.cluster.may_resize = True
    controller.run(REFUSED_SECONDS + 1)
    assert 120 * MIB == controller.memory(pod).limit


def test_a_right_that_is_missing_is_missed_once_for_all_pods(controller: Resizing) -> None:
    """An API server is not asked the same of every pod; all of them say why, and all go on when it is granted."""
    pods = controller.add_engines(3 * AT_ONCE)
    for pod in pods:
        controller.give_back(pod, 80 * MIB)
    controller.cluster.may_resize = False
    controller.apply(**SHRUNK)
    controller.run(REFUSED_SECONDS)
    attempts = controller.sample("resizes_total", result="Refused")
    refused = controller.sample("pods_resizing", status="ResizeRefused")
    assert (True, float(len(pods))) == (attempts is not None and attempts <= 2, refused)
    controller.cluster.may_resize = True
    controller.run(REFUSED_SECONDS + 5)
    assert {120 * MIB} == {controller.memory(pod).limit for pod in pods}


def test_what_the_kubelet_says_is_passed_on(controller: Resizing) -> None:
    """R-P10: a node without room, or a use that it measures higher than the limit."""
    (pod,) = controller.add_engines(1)
    controller.give_back(pod, 80 * MIB)
    controller.apply(**SHRUNK)
    controller.run(5)
    controller.change(pod, controller.memory(pod), resize_problem="Error: below current usage (130000000)")
    controller.run(5)
    assert (
        "False",
        "ResizeRefused",
        "retriever-0: its kubelet says Error: below current usage (130000000)",
    ) == controller.told


def test_in_observe_mode_nothing_is_resized(controller: Resizing) -> None:
    """R-P06: nothing is given back there, so nothing may be taken away."""
    (pod,) = controller.add_engines(1)
    controller.give_back(pod, 1)
    controller.apply(mode="Observe", **SHRUNK)
    controller.run(60)
    assert (LARGE, "Observing") == (controller.memory(pod).limit, controller.told[1])


def test_a_policy_that_leaves_limits_alone_has_no_such_condition(controller: Resizing) -> None:
    """R-P10: three conditions and no count, and again when the mode is taken out."""
    controller.add_engines(1)
    controller.apply(**SHRUNK)
    controller.run(5)
    assert [4, 0] == [len(controller.status.conditions), controller.status.resized_pods]
    controller.apply(total="75%")
    controller.run(5)
    assert [3, None] == [len(controller.status.conditions), controller.status.resized_pods]


def test_a_restarted_controller_believes_nothing_that_was_reported_before(controller: Resizing) -> None:
    """Guarantee 4: it asks, waits as long as after an order, and asks again."""
    (pod,) = controller.add_engines(1)
    controller.apply(**SHRUNK)
    controller.run(10)
    controller.give_back(pod, 80 * MIB)
    controller.start()
    reports = pod.reports
    controller.run(1)
    assert (LARGE, reports + 1) == (controller.memory(pod).limit, pod.reports)
    controller.run(5)
    assert 120 * MIB == controller.memory(pod).limit


def test_many_pods_are_resized_without_holding_up_orders(controller: Resizing) -> None:
    """A hundred at once are five looks, each of which also sends and collects orders."""
    pods = controller.add_engines(5 * AT_ONCE)
    for pod in pods:
        controller.give_back(pod, 80 * MIB)
    controller.apply(**SHRUNK)
    controller.run(30)
    assert {120 * MIB} == {controller.memory(pod).limit for pod in pods}
    assert 100.0 == controller.sample("resizes_total", result="Patched")
