"""The view converges to what the API server holds, in whatever order events and lists arrive (R-P08)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.policy_status import PolicyStatus
from membudget_controller.objects import ObservedPod
from membudget_controller.observed import Observed, Table
from membudget_controller.targets import assign


def observed() -> Observed:
    """With a clock that stands."""
    return Observed(lambda: 5.0)


def test_nothing_is_known_before_both_lists() -> None:
    """Design, Orders: nothing is pushed until a list succeeds."""
    view = observed()
    view.see_policy(make_policy())
    view.see_pod(make_pod())
    seen = [view.view().known]
    view.replace_policies([], 1)
    seen.append(view.view().known)
    view.replace_pods([], 1)
    seen.append(view.view().known)
    assert [False, False, True] == seen


@pytest.mark.parametrize("event", ["deleted", "not served"])
def test_policies_are_unknown_after_a_deletion_until_the_next_list(event: str) -> None:
    """Fault 15: the whole kind may be vanishing; the pods stay known."""
    view = observed()
    view.replace_pods([], 1)
    view.replace_policies([make_policy(version=1)], 1)
    if event == "deleted":
        view.delete_policy(make_policy(version=2))
    else:
        view.doubt_policies()
    before = view.view().known, view.take_list_asked()
    view.replace_policies([], 3)
    assert ((False, event == "deleted"), True) == (before, view.view().known)


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """Known bug 23: a late event is a late event; versions are numbers, not texts."""
    table: Table[ObservedPod] = Table()
    table.see(make_pod(version=10, ip="10.0.0.10"))
    assert not table.see(make_pod(version=9, ip="10.0.0.9"))
    assert ["10.0.0.10"] == [pod.ip for pod in table.objects.values()]


def test_a_list_removes_what_is_gone_but_not_what_is_newer_than_it() -> None:
    """Fault 4: deletions nobody told of; an object made while the list ran stays."""
    table: Table[ObservedPod] = Table()
    for name, version in (("gone", 5), ("kept", 6), ("newer", 11)):
        table.see(make_pod(name, version=version))
    assert table.replace([make_pod("kept", version=6)], 10)
    assert {"uid-of-kept", "uid-of-newer"} == set(table.objects)


def test_a_list_that_began_before_a_deletion_does_not_bring_the_object_back() -> None:
    """R-P08: the deletion is remembered until a list is newer than it."""
    table: Table[ObservedPod] = Table()
    table.see(make_pod(version=5))
    table.delete("uid-of-retriever-0", 8)
    for stale in (6, 7):
        table.replace([make_pod(version=5)], stale)
    after_stale = dict(table.objects)
    table.replace([], 9)
    assert ({}, False) == (after_stale, table.see(make_pod(version=6)))


def test_a_store_that_was_restored_replaces_everything() -> None:
    """Fault 22: versions fall, so that newer no longer means later."""
    table: Table[ObservedPod] = Table()
    table.replace([make_pod("lost", version=90), make_pod("kept", version=80, ip="10.0.0.8")], 100)
    table.replace([make_pod("kept", version=40, ip="10.0.0.4")], 50)
    assert [("kept", "10.0.0.4")] == [(pod.name, pod.ip) for pod in table.objects.values()]


@pytest.mark.parametrize("deleted", [True, False])
def test_a_store_that_was_restored_and_has_caught_up_is_believed(deleted: bool) -> None:
    """Fault 22: an object that a later list shows older than it was seen has been put back."""
    table: Table[ObservedPod] = Table()
    table.replace([make_pod(version=40, ip="10.0.0.4")], 50)
    table.see(make_pod(version=90, ip="10.0.0.9"))
    if deleted:
        table.delete("uid-of-retriever-0", 95)
    table.replace([make_pod(version=40, ip="10.0.0.4")], 100)
    assert ["10.0.0.4"] == [pod.ip for pod in table.objects.values()]


def test_a_pod_that_opts_out_is_dropped() -> None:
    """R-P01: the label is the consent."""
    view = observed()
    view.replace_pods([make_pod(version=1)], 1)
    view.see_pod(make_pod(version=2, labels={"membudget.dev/managed": "false"}))
    assert () == view.view().pods


def test_every_change_wakes_the_loop_and_no_change_does_not() -> None:
    """Guarantee 6: an event that tells nothing new costs nothing."""
    view = observed()
    woken: list[bool] = []
    for version in (1, 1, 2):
        view.wake.clear()
        view.see_pod(make_pod(version=version))
        woken.append(view.wake.is_set())
    assert [True, False, True] == woken


Arrival = tuple[int, str, ObservedPod | tuple[ObservedPod, ...]]
CHANGES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["change", "change", "delete", "list"])), max_size=25)


@given(changes=CHANGES, shuffle=st.randoms(use_true_random=False))
def test_any_interleaving_ends_in_what_the_last_list_and_the_events_after_it_say(
    changes: list[tuple[int, str]], shuffle: random.Random
) -> None:
    """R-P08: events of different objects in any order, doubled, late or lost before the last list; the same targets."""
    truth: dict[str, ObservedPod] = {}
    born: dict[int, int] = {}
    arrivals: list[Arrival] = []
    for version, (index, change) in enumerate(changes, start=1):
        uid = f"pod-{index}-{born.get(index, 0)}"
        pod = make_pod(f"pod-{index}", uid=uid, version=version, labels={"app": f"v{version % 2}"})
        if change == "list":
            arrivals.append((version, "list", tuple(truth.values())))
        elif change == "delete" and uid in truth:
            arrivals.append((version, "delete", replace(truth.pop(uid), resource_version=version)))
            born[index] = born.get(index, 0) + 1
        elif change == "change":
            truth[uid] = pod
            arrivals.append((version, "see", pod))
    end = len(changes) + 1
    view = observed()
    view.replace_policies([make_policy(selector={"matchLabels": {"app": "v1"}})], 0)
    for version, kind, what in _interleaved(arrivals, shuffle):
        if isinstance(what, tuple):
            view.replace_pods(what, version)
        elif kind == "see":
            view.see_pod(what)
        else:
            view.delete_pod(what)
    view.replace_pods(tuple(truth.values()), end)
    late = [what for _, kind, what in arrivals if kind == "see" and not isinstance(what, tuple)]
    for pod in late:
        view.see_pod(pod)
    seen = view.view()
    assert assign(seen.policies, truth.values()).targets == assign(seen.policies, seen.pods).targets


@given(changes=CHANGES, shuffle=st.randoms(use_true_random=False))
def test_events_alone_end_in_the_truth_however_they_are_mixed_with_older_lists(
    changes: list[tuple[int, str]], shuffle: random.Random
) -> None:
    """R-P08: no list after the last event is needed where no event is lost."""
    truth: dict[str, ObservedPod] = {}
    arrivals: list[Arrival] = []
    deleted: set[int] = set()
    for version, (index, change) in enumerate(changes, start=1):
        uid = f"pod-{index}"
        if change == "list":
            arrivals.append((version, "list", tuple(truth.values())))
        elif change == "delete" and uid in truth:
            arrivals.append((version, "delete", replace(truth.pop(uid), resource_version=version)))
            deleted.add(index)
        elif change == "change" and index not in deleted:
            truth[uid] = make_pod(uid, uid=uid, version=version)
            arrivals.append((version, "see", truth[uid]))
    view = observed()
    for version, kind, what in _interleaved(arrivals, shuffle):
        if isinstance(what, tuple):
            view.replace_pods(what, version)
        elif kind == "see":
            view.see_pod(what)
        else:
            view.delete_pod(what)
    assert truth == {pod.uid: pod for pod in view.view().pods}


def _interleaved(arrivals: list[Arrival], shuffle: random.Random) -> list[Arrival]:
    """Lists keep their order, as do the events of one watch; the two streams mix in any way."""
    lists = [arrival for arrival in arrivals if arrival[1] == "list"]
    events = [arrival for arrival in arrivals if arrival[1] != "list"]
    choices = ["list"] * len(lists) + ["event"] * len(events)
    shuffle.shuffle(choices)
    return [(lists if choice == "list" else events).pop(0) for choice in choices]


def test_a_status_alone_makes_nobody_compare_policies_and_pods_anew() -> None:
    """Guarantee 6: 500 statuses are 500 changes from which no order follows; one of another writer is put right."""
    view = observed()
    policy = make_policy(version=1)
    view.see_policy(policy)
    version, told = view.view().version, replace(policy, resource_version=2, status=PolicyStatus(matched_pods=1))
    view.wake.clear()
    view.see_written(told)
    quiet = view.view().version, view.wake.is_set(), view.view().policies
    view.see_policy(replace(told, resource_version=3, status=PolicyStatus(matched_pods=9)))
    forged = view.view().version, view.wake.is_set()
    view.see_policy(make_policy(version=4, generation=2, total="90Mi"))
    assert ((version, False, (told,)), (version, True)) == (quiet, forged)
    assert version < view.view().version
