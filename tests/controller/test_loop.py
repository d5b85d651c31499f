"""The whole controller but for kopf and sockets: cluster, sidecars and clock in memory (R-P08, R-P10, R-P11, R-P13)."""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controller.cluster_objects import make_pod, make_policy
from controller.fake_cluster import FakeCluster
from controller.fake_sidecar import FakeNetwork, FakeSidecar
from membudget_contract.orders import ORDER_PATH, HeldOrder, OrderNumber, PodIdentity, PolicyIdentity
from membudget_contract.policy_status import ConditionType
from membudget_controller.clocks import Clocks
from membudget_controller.errors import SteppedDown
from membudget_controller.keys import take_authority
from membudget_controller.listing import CONFIRM_SECONDS, SCHEMA_SECONDS, VERSION_SECONDS
from membudget_controller.loop import UNDER_WAY_SECONDS, Loop
from membudget_controller.metrics import Metrics
from membudget_controller.observed import Observed
from membudget_controller.orders import SignedRequest
from membudget_controller.settings import KEY_CONFIG_MAP, ControllerSettings
from membudget_controller.transport import HttpAnswer, Unreached

HOME = "membudget-system"
START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


class Controller:
    """One controller over a cluster that outlives it."""

    def __init__(self, cluster: FakeCluster | None = None, network: FakeNetwork | None = None) -> None:
        self.now = 1000.0
        self.cluster = cluster or FakeCluster()
        self.network = network or FakeNetwork()
        self.registry = CollectorRegistry()
        self.start()

    def start(self) -> None:
        """A process begins, with nothing in memory."""
        self.authority = take_authority(self.cluster, HOME, 5)
        self.observed = Observed(lambda: self.now)
        clocks = Clocks(lambda: self.now, lambda: START + dt.timedelta(seconds=self.now), lambda: 0.5)
        self.registry = CollectorRegistry()
        settings = ControllerSettings(namespace=HOME)
        metrics = Metrics(self.registry)
        self.loop = Loop(self.cluster, self.observed, self.authority, metrics, settings, clocks, self.network)

    def add_pods(self, count: int, namespace: str = "search") -> list[FakeSidecar]:
        """Pods with their sidecars, which read the keys of their namespace."""
        made: list[FakeSidecar] = []
        for _ in range(count):
            address = f"10.244.{len(self.network.sidecars) // 250}.{len(self.network.sidecars) % 250 + 1}"
            name = f"retriever-{len(self.network.sidecars)}"
            pod = self.cluster.add_pod(make_pod(name, namespace=namespace, ip=address))
            self.observed.see_pod(pod)
            identity = PodIdentity(namespace=namespace, name=name, uid=pod.uid)
            sidecar = FakeSidecar(identity, lambda: self.public_keys(namespace))
            self.network.sidecars[address] = sidecar
            made.append(sidecar)
        return made

    def public_keys(self, namespace: str) -> dict[str, str]:
        """As a pod there sees them."""
        stored = self.cluster.config_maps.get((namespace, KEY_CONFIG_MAP))
        return dict(stored.data) if stored else {}

    def apply(self, name: str = "retrieval", **spec: Any) -> None:
        """As `kubectl apply` does, with its event."""
        self.observed.see_policy(self.cluster.apply(make_policy(name, **spec)))

    def delete(self, name: str = "retrieval") -> None:
        """As `kubectl delete` does, with its event."""
        self.observed.delete_policy(self.cluster.delete_policy("search", name))

    def run(self, seconds: float = 5.0) -> None:
        """Looks as often as the loop asks for, for so long by its clock."""
        end = self.now + seconds
        while self.now < end:
            pause = min(self.loop.look(), self.write_statuses())
            self.now = min(self.now + pause, end) if pause > 0 else self.now
            if self.observed.wake.is_set():
                self.observed.wake.clear()
                self.now += 0.001

    def write_statuses(self) -> float:
        """All that may be written now; in how many seconds there is more."""
        while (again := self.loop.status_writer.step()) is not None and again <= self.now:
            pass
        return math.inf if again is None else again - self.now

    def answers(self, name: str = "retrieval") -> dict[ConditionType, tuple[str, str]]:
        """Of the status as it is stored."""
        conditions = self.cluster.policies["search", name].status.conditions
        return {condition.type: (condition.status.value, condition.reason.value) for condition in conditions}

    def sample(self, name: str, **labels: str) -> float | None:
        """One metric."""
        return self.registry.get_sample_value(f"membudget_controller_{name}", labels)


def totals(sidecars: list[FakeSidecar]) -> list[str | None]:
    """What each pod holds."""
    return [sidecar.held.plan.total if sidecar.held else None for sidecar in sidecars]


@pytest.fixture
def controller() -> Controller:
    """Over an empty cluster."""
    return Controller()


def test_from_apply_to_every_pod_and_back_to_the_status(controller: Controller) -> None:
    """R-P08, R-P10: one order for each pod, acknowledged at the generation, said in the status."""
    pods = controller.add_pods(5)
    controller.apply(total="100Mi")
    controller.run()
    held = {pod.held.policy.generation for pod in pods if pod.held and pod.held.policy}
    assert (["100Mi"] * 5, {1}, 5) == (totals(pods), held, controller.network.orders())
    status = controller.cluster.policies["search", "retrieval"].status
    assert (1, 5, 5, 0) == (
        status.observed_generation,
        status.matched_pods,
        status.programmed_pods,
        status.refused_pods,
    )
    assert ("True", "UnderBudget") == controller.answers()[ConditionType.READY]


def test_a_converged_system_is_left_alone(controller: Controller) -> None:
    """Guarantee 6: an hour of full lists, doubled events and reports: no write, no order."""
    pods = controller.add_pods(3)
    controller.apply()
    controller.run()
    controller.cluster.writes.clear()
    before, reports = controller.network.orders(), sum(pod.reports for pod in pods)
    for _ in range(12):
        controller.run(300)
        for pod in controller.cluster.pods.values():
            controller.observed.see_pod(pod)
    assert ([], before) == (controller.cluster.writes, controller.network.orders())
    asked = sum(pod.reports for pod in pods) - reports
    assert 3 * 50 < asked < 3 * 70


def test_an_edit_moves_every_pod_once(controller: Controller) -> None:
    """R-P08: another generation, one more order each."""
    pods = controller.add_pods(3)
    controller.apply(total="100Mi")
    controller.run()
    controller.apply(total="90Mi")
    controller.run()
    status = controller.cluster.policies["search", "retrieval"].status
    assert (["90Mi"] * 3, 6, 2) == (totals(pods), controller.network.orders(), status.observed_generation)


def test_pods_of_a_deleted_policy_return_to_their_profile(controller: Controller) -> None:
    """R-P13: after a list has confirmed it; and a new one of the same name is another policy."""
    pods = controller.add_pods(2)
    controller.apply(total="100Mi")
    controller.run()
    controller.delete()
    controller.run()
    without = totals(pods), [pod.held.policy for pod in pods if pod.held]
    controller.apply(total="80Mi")
    controller.run()
    assert ((["150Mi"] * 2, [None] * 2), ["80Mi"] * 2) == (without, totals(pods))


@pytest.mark.parametrize("kind", ["Ending", "Gone"])
def test_policies_that_vanish_with_their_kind_are_unknown_and_nothing_is_pushed(
    controller: Controller, kind: str
) -> None:
    """Fault 15: the last good plans stay until the kind is served and listed again."""
    pods = controller.add_pods(2)
    controller.apply(total="100Mi")
    controller.run()
    controller.cluster.kind = kind
    controller.delete()
    controller.run(600)
    before = totals(pods), controller.network.orders(), controller.sample("policies_known")
    controller.cluster.kind = "Served"
    controller.apply(total="90Mi")
    controller.run()
    assert ((["100Mi"] * 2, 2, 0.0), ["90Mi"] * 2) == (before, totals(pods))


@pytest.mark.parametrize("seen", ["Gone", "Replaced", "Nothing"])
def test_a_kind_that_has_come_back_is_watched_anew(controller: Controller, seen: str) -> None:
    """Fault 15: the watch of the one before has ended, whether or not a list saw it gone meanwhile."""
    controller.run()
    if seen == "Gone":
        controller.cluster.kind = "Gone"
        controller.run(600)
        controller.cluster.kind = "Served"
    if seen == "Replaced":
        controller.cluster.kind_uid = "kind-2"
    controller.run(600)
    over = controller.observed.watch_over.is_set()
    assert (over, over, False) == (
        seen != "Nothing",
        controller.observed.take_watch_anew(),
        controller.observed.watch_over.is_set(),
    )


def test_what_was_read_by_a_former_schema_is_read_again(controller: Controller) -> None:
    """Fault 104: the version is the same, a field that the former schema lacks is not in it, and no event tells."""
    pods = controller.add_pods(1)
    controller.run()
    whole = controller.cluster.apply(make_policy("retrieval", total="100Mi"))
    policies, place = controller.cluster.policies, (whole.namespace, whole.name)
    policies[place] = replace(whole, meaning=make_policy("retrieval", total="90Mi").meaning)
    controller.cluster.kind_generation = 2
    for _ in range(2):  # the second shows the same definition
        controller.observed.ask_list()
        controller.run(SCHEMA_SECONDS / 2 - 1)
    pruned = totals(pods)
    policies[place] = replace(policies[place], meaning=whole.meaning)
    controller.run(SCHEMA_SECONDS)
    assert (["90Mi"], ["100Mi"]) == (pruned, totals(pods))


def test_a_controller_that_may_not_see_the_kind_waits_before_it_believes_a_deletion(controller: Controller) -> None:
    """R-P13: of a policy that somebody deleted, its pods return to the profile some seconds later."""
    controller.cluster.is_blind = True
    controller.apply("retrieval", total="100Mi")
    pods = controller.add_pods(1)
    controller.run()
    controller.delete()
    controller.run(CONFIRM_SECONDS - 1)
    held = totals(pods)
    controller.run(CONFIRM_SECONDS)
    assert (held, totals(pods)) == (["100Mi"], ["150Mi"])


@pytest.mark.parametrize("event", [True, False])
def test_a_kind_that_ends_unseen_takes_no_pod_its_plan(controller: Controller, event: bool) -> None:
    """Fault 15 without the right to see the definition: one policy after the other goes, then the kind."""
    controller.cluster.is_blind = True
    controller.apply("retrieval", total="100Mi")
    controller.apply("other", selector={"matchLabels": {"app": "other"}})
    pods = controller.add_pods(1)
    controller.run()
    orders = controller.network.orders()
    for name in ("retrieval", "other"):
        gone = controller.cluster.delete_policy("search", name)
        if event:
            controller.observed.delete_policy(gone)
        controller.run(CONFIRM_SECONDS - 2)
    controller.cluster.kind = "Gone"
    controller.run(600)
    assert (totals(pods), controller.network.orders()) == (["100Mi"], orders)


class SlowNetwork(FakeNetwork):
    """Orders arrive when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def __call__(self, address: str, port: int, request: SignedRequest) -> HttpAnswer | Unreached:
        """Reports pass."""
        if request.path == ORDER_PATH:
            assert self.gate.wait(30)
        return super().__call__(address, port, request)


def test_a_status_waits_a_second_for_answers_under_way() -> None:
    """R-P10: one that says Pushing would keep Programmed waiting for the next second; a slow pod is told of then."""
    network = SlowNetwork()
    controller = Controller(network=network)
    network.gate.set()
    controller.apply(total="100Mi")
    controller.add_pods(2)
    controller.run()
    network.gate.clear()
    controller.apply(total="110Mi")
    written: list[int | None] = []
    for seconds in (0.0, UNDER_WAY_SECONDS / 2, UNDER_WAY_SECONDS):
        controller.now += seconds
        controller.loop.look()
        controller.write_statuses()
        written.append(controller.cluster.policies["search", "retrieval"].status.observed_generation)
    pushing = controller.answers()[ConditionType.PROGRAMMED]
    network.gate.set()
    controller.run()
    assert (written, pushing) == ([1, 1, 2], ("False", "Pushing"))
    assert ("True", "Programmed") == controller.answers()[ConditionType.PROGRAMMED]


def test_a_store_put_back_is_noticed_though_every_watch_is_silent(controller: Controller) -> None:
    """Fault 22: a watch waits for the version that it had seen; the count of the store tells within 10 s."""
    controller.apply(total="100Mi")
    pods = controller.add_pods(2)
    controller.run()
    cluster, kept = controller.cluster, dict(controller.cluster.policies)
    version = cluster.version
    cluster.version += 500
    controller.apply(total="110Mi")
    controller.observed.ask_list()
    controller.run()
    before = totals(pods)
    cluster.policies, cluster.version = kept, version
    controller.run(VERSION_SECONDS + 5)
    assert (before, totals(pods)) == (["110Mi"] * 2, ["100Mi"] * 2)


def test_with_the_api_server_gone_known_plans_are_still_pushed(controller: Controller) -> None:
    """Faults 1 and 21: what is known stays known; a pod that comes back gets its plan."""
    (pod,) = controller.add_pods(1)
    pod.mode = "down"
    controller.apply(total="100Mi")
    controller.run()
    controller.cluster.failing = 503
    pod.mode = ""
    controller.run(20)
    assert ["100Mi"] == totals([pod])


def test_nothing_is_pushed_while_no_list_has_succeeded(controller: Controller) -> None:
    """Fault 18: started before the kind, or without an API server."""
    (pod,) = controller.add_pods(1)
    controller.cluster.kind = "Gone"
    controller.apply()
    controller.run(60)
    assert (0, 0) == (pod.reports, len(pod.orders))
    controller.cluster.kind = "Served"
    controller.run(5)
    assert ["100Mi"] == totals([pod])


def test_a_restarted_controller_pushes_nothing_when_nothing_changed(controller: Controller) -> None:
    """R-P08: it asks first; the only write is its epoch."""
    pods = controller.add_pods(3)
    controller.apply()
    controller.run()
    controller.cluster.writes.clear()
    before = controller.network.orders()
    controller.start()
    controller.run(120)
    assert ([f"secret in {HOME}"], before) == (controller.cluster.writes, controller.network.orders())
    assert all(pod.reports > 2 for pod in pods)


def test_a_change_made_while_the_controller_was_down_is_pushed_under_the_new_epoch(controller: Controller) -> None:
    """R-P13, fault 16: deleted with the controller down; the profile comes after its start."""
    (pod,) = controller.add_pods(1)
    controller.apply()
    controller.run()
    controller.cluster.delete_policy("search", "retrieval")
    controller.start()
    controller.run()
    epochs = [number.epoch for number, _ in pod.orders]
    assert (["150Mi"], [5, 6]) == (totals([pod]), epochs)


def test_a_lost_reply_is_repeated_with_the_same_bytes(controller: Controller) -> None:
    """Guarantee 3: the order is applied once, and acknowledged as unchanged."""
    (pod,) = controller.add_pods(1)
    controller.run(1)
    pod.mode = "reply lost"
    controller.apply()
    controller.run(2)
    pod.mode = ""
    controller.run(20)
    sent = pod.bodies[1:]
    assert (1, [True] + [False] * (len(sent) - 1)) == (len(set(sent)), [changed for _, changed in pod.orders[1:]])
    assert ("True", "Programmed") == controller.answers()[ConditionType.PROGRAMMED]


def test_a_restarted_or_moved_pod_is_asked_again(controller: Controller) -> None:
    """R-P08: what it acknowledged may be gone with its disk."""
    (pod,) = controller.add_pods(1)
    controller.apply()
    controller.run()
    pod.held = None
    (seen,) = controller.cluster.pods.values()
    controller.observed.see_pod(controller.cluster.add_pod(replace(seen, restarts=1)))
    controller.run()
    assert ["100Mi"] == totals([pod])


def test_a_refusal_is_told_and_the_others_are_programmed(controller: Controller) -> None:
    """R-P10, fault 47: the reason of the sidecar stands in the condition; it is not pushed to again for minutes."""
    refusing, *others = controller.add_pods(3)
    refusing.mode = "refuse"
    controller.apply(total="75%")
    controller.run(30)
    asked = len(refusing.bodies)
    controller.run(60)
    status = controller.cluster.policies["search", "retrieval"].status
    message = status.conditions[1].message
    assert (["75%"] * 2, 2, 1, asked) == (
        totals(others),
        status.programmed_pods,
        status.refused_pods,
        len(refusing.bodies),
    )
    assert "retriever-0: NoLimit: a total of 75% needs a container limit" == message


def test_what_waits_for_a_limit_is_programmed_when_it_is_in_force(controller: Controller) -> None:
    """R-P10: acknowledged with a problem, until a report says that it is gone."""
    (pod,) = controller.add_pods(1)
    pod.problem = "75% needs a limit"
    controller.apply(total="75%")
    controller.run()
    before = controller.answers()[ConditionType.PROGRAMMED], len(pod.orders)
    pod.problem = None
    controller.run(90)
    after = controller.answers()[ConditionType.PROGRAMMED], len(pod.orders)
    assert ((("False", "Pushing"), 1), (("True", "Programmed"), 1)) == (before, after)


def test_pods_that_do_not_answer_hold_up_no_other(controller: Controller) -> None:
    """Fault 89: N of M are programmed, and the rest when they come back."""
    pods = controller.add_pods(20)
    for pod in pods[:2]:
        pod.mode = "down"
    controller.apply()
    controller.run(5)
    status = controller.cluster.policies["search", "retrieval"].status
    before = status.programmed_pods, status.matched_pods, controller.answers()[ConditionType.PROGRAMMED]
    for pod in pods:
        pod.mode = ""
    controller.run(20)
    assert ((18, 20, ("False", "Unreachable")), ["100Mi"] * 20) == (before, totals(pods))


def test_a_pod_without_the_key_waits_for_it(controller: Controller) -> None:
    """R-P08: KeysPending, then programmed; the ConfigMap is looked at again and put back."""
    (pod,) = controller.add_pods(1)
    controller.apply()
    hidden = FakeSidecar(pod.pod, dict)
    (address,) = controller.network.sidecars
    controller.network.sidecars[address] = hidden
    controller.run(5)
    pending = controller.answers()[ConditionType.PROGRAMMED]
    controller.cluster.config_maps.clear()
    controller.network.sidecars[address] = pod
    controller.run(60)
    assert (("False", "KeysPending"), ["100Mi"]) == (pending, totals([pod]))


def test_two_policies_on_one_pod_are_told_apart(controller: Controller) -> None:
    """R-P11: the higher precedence wins, the loser says so; without the winner the loser gets the pod."""
    (pod,) = controller.add_pods(1)
    controller.apply("low", total="90Mi")
    controller.apply("high", total="110Mi", precedence=10)
    controller.run()
    before = totals([pod]), controller.answers("low")[ConditionType.ACCEPTED]
    controller.delete("high")
    controller.run()
    assert ((["110Mi"], ("False", "Conflicted")), ["90Mi"]) == (before, totals([pod]))
    assert ("True", "Accepted") == controller.answers("low")[ConditionType.ACCEPTED]


def test_a_newer_controller_makes_this_one_step_down(controller: Controller) -> None:
    """Fault 33: the pod says so, the Secret confirms it, and this one ends with a message and a code."""
    controller.add_pods(1)
    controller.apply(total="100Mi")
    controller.run()
    newer = Controller(controller.cluster, controller.network)
    newer.apply(total="90Mi")
    newer.run()
    controller.apply(total="80Mi")
    ended: list[bool] = []
    controller.loop.run(lambda: ended.append(True))
    assert isinstance(controller.loop.ended_by, SteppedDown)
    assert ([True], True) == (ended, "epoch 6" in str(controller.loop.ended_by))


def test_a_pod_alone_cannot_make_the_controller_step_down(controller: Controller) -> None:
    """Security: whoever may label a pod could otherwise stop every push; the Secret knows of no newer epoch."""
    liar, honest = controller.add_pods(2)
    controller.run(1)
    assert liar.held is not None
    number = OrderNumber(epoch=10**12, sequence=1)
    policy = PolicyIdentity(name="", uid="", generation=1)
    liar.held = HeldOrder(number=number, policy=policy, plan=liar.held.plan, plan_hash="another")
    controller.apply()
    controller.run(90)
    assert ["100Mi"] == totals([honest])
    assert ("False", "Refused") == controller.answers()[ConditionType.PROGRAMMED]


def test_flapping_labels_are_coalesced(controller: Controller) -> None:
    """Fault 37: ten changes a second, one order a second at most."""
    (pod,) = controller.add_pods(1)
    controller.apply(total="100Mi")
    controller.run(2)
    (seen,) = controller.cluster.pods.values()
    before = len(pod.orders)
    for turn in range(100):
        labels = {**seen.labels, "app": "retriever" if turn % 2 else "other"}
        controller.observed.see_pod(controller.cluster.add_pod(replace(seen, labels=labels)))
        controller.run(0.1)
    assert 2 <= len(pod.orders) - before <= 11


def test_metrics_say_how_it_stands(controller: Controller) -> None:
    """R-P10: counts and results."""
    _, silent = controller.add_pods(2)
    silent.mode = "down"
    controller.apply()
    controller.run(3)
    assert (1, 2, 1, 1, 1) == (
        controller.sample("policies"),
        controller.sample("pods"),
        controller.sample("pods_programmed"),
        controller.sample("pushes_total", result="Acknowledged"),
        controller.sample("key_namespaces", published="true"),
    )
    assert (controller.sample("reports_total", result="Unreachable") or 0) >= 2


def test_orders_are_numbered_once_for_each_content(controller: Controller) -> None:
    """Guarantee 3: no number is used for two pods or two contents."""
    pods = controller.add_pods(4)
    for total in ("100Mi", "90Mi", "80Mi"):
        controller.apply(total=total)
        controller.run(3)
    numbers = [number for pod in pods for number, _ in pod.orders]
    assert (12, 12) == (len(numbers), len(set(numbers)))


def restore(controller: Controller, total: str, generation: int) -> None:
    """Etcd is restored from a snapshot: an older generation of the same policy, and versions that fall."""
    before = controller.cluster.policies["search", "retrieval"]
    older = make_policy(total=total, generation=generation, uid=before.uid, version=50)
    controller.cluster.policies["search", "retrieval"] = replace(older, status=before.status)
    controller.cluster.pods = {uid: replace(pod, resource_version=40) for uid, pod in controller.cluster.pods.items()}
    controller.cluster.version = 60
    controller.observed.ask_list()


def test_a_restored_generation_is_applied_once_under_a_new_epoch_with_an_event(controller: Controller) -> None:
    """R-P08, fault 22: within an epoch generations never fall, so the epoch rises; no flapping follows."""
    pods = controller.add_pods(3)
    for total in ("100Mi", "110Mi", "120Mi"):
        controller.apply(total=total)
        controller.run()
    epoch = controller.authority.epoch
    restore(controller, "110Mi", generation=2)
    controller.run(20.0)
    assert totals(pods) == ["110Mi"] * 3
    (risen,) = {pod.held.number.epoch for pod in pods if pod.held}
    assert risen > epoch
    assert [event.reason for event in controller.cluster.events].count("GenerationRestored") == 1
    orders = controller.network.orders()
    controller.run(300.0)
    assert (controller.network.orders(), controller.answers()[ConditionType.PROGRAMMED][1]) == (orders, "Programmed")


class CaughtUp(FakeNetwork):
    """By the time the first pod answers, a server that lagged behind has caught up."""

    catch_up: Callable[[], None] = staticmethod(lambda: None)

    def __call__(self, address: str, port: int, request: SignedRequest) -> HttpAnswer | Unreached:
        """One exchange."""
        self.catch_up()
        return super().__call__(address, port, request)


def test_a_generation_that_only_seems_to_fall_is_not_obeyed() -> None:
    """R-P08, fault 6: a lagging server listed an old one; what the store says now is the newer."""
    network = CaughtUp()
    controller = Controller(network=network)
    (pod,) = controller.add_pods(1)
    for total in ("100Mi", "120Mi"):
        controller.apply(total=total)
        controller.run()
    epoch, newest = controller.authority.epoch, controller.cluster.policies["search", "retrieval"]
    version = controller.cluster.version

    def catch_up() -> None:
        controller.cluster.policies["search", "retrieval"], controller.cluster.version = newest, version

    restore(controller, "100Mi", generation=1)
    network.catch_up = catch_up
    controller.run(20.0)
    assert [number.epoch for number, _ in pod.orders] == [epoch] * len(pod.orders)
    assert totals([pod]) == ["120Mi"]
    assert "GenerationRestored" not in [event.reason for event in controller.cluster.events]


def test_after_a_gap_nothing_is_sent_before_a_list_has_said_who_is_gone(controller: Controller) -> None:
    """Fault 4: the watch begins anew a moment after a list has failed, and shows an edit; two of the pods are gone."""
    pods = controller.add_pods(3)
    controller.apply(total="100Mi")
    controller.run()
    controller.cluster.failing = 503
    controller.observed.ask_list()
    controller.run(0.1)
    controller.cluster.failing = None
    for pod in list(controller.cluster.pods)[:2]:
        del controller.cluster.pods[pod]
    controller.cluster.apply(make_policy("retrieval", total="120Mi"))
    controller.observed.ask_list()
    controller.observed.see_policy(controller.cluster.policies["search", "retrieval"])
    controller.run()
    assert ["100Mi", "100Mi", "120Mi"] == totals(pods)
