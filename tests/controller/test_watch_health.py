"""A watch that is dead, and a cluster in which nothing happens, are told apart by what lists show."""

from __future__ import annotations

from typing import cast

import kopf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_controller.handlers import take_pod_event, take_policy_event
from membudget_controller.observed import Observed
from membudget_controller.watch_health import WatchHealth


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> HandClock:
    """At 0."""
    return HandClock()


@pytest.fixture
def watch(clock: HandClock) -> WatchHealth:
    """It has brought nothing, and no list was held against it."""
    return WatchHealth(clock)


def test_in_a_quiet_cluster_it_owes_nothing_however_long_it_is_silent(clock: HandClock, watch: WatchHealth) -> None:
    """R-P08, fault 2: nothing to bring is no fault; nor is an empty cluster, nor an API server that shows no list."""
    watch.tell(make_pod(version=7))
    for day in range(5):
        clock.now = day * 86400.0
        watch.hold_against([make_pod(version=7)], restored=False)
        assert (0.0, 0.0) == (watch.behind_seconds, watch.event_at)


def test_what_a_list_shows_is_owed_until_it_is_brought(clock: HandClock, watch: WatchHealth) -> None:
    """Fault 3: from the list on that showed it first, and not after a later event of the same namespace."""
    watch.tell(make_pod(version=7))
    for now in (10.0, 20.0, 30.0):
        clock.now = now
        watch.hold_against([make_pod(version=8)], restored=False)
    assert 20.0 == watch.behind_seconds
    watch.tell(make_pod("another", version=9))  # a watch keeps the order
    assert 0.0 == watch.behind_seconds


def test_an_event_of_another_namespace_is_no_proof(clock: HandClock, watch: WatchHealth) -> None:
    """R-P08: with rights in single namespaces each has a watch of its own, and one of them may be dead."""
    watch.hold_against([make_pod(version=8)], restored=False)
    watch.tell(make_pod("another", namespace="elsewhere", version=9))
    clock.now = 5.0
    assert 5.0 == watch.behind_seconds


def test_what_changes_again_while_it_is_owed_does_not_begin_anew(clock: HandClock, watch: WatchHealth) -> None:
    """Fault 3: a pod that changes all the time would hide for ever that nothing is brought."""
    for now in range(10):
        clock.now = float(now)
        watch.hold_against([make_pod(version=8 + now)], restored=False)
    assert 9.0 == watch.behind_seconds


def test_what_is_gone_at_the_next_list_is_owed_no_longer(clock: HandClock, watch: WatchHealth) -> None:
    """Fault 4: a watch that begins anew after a gap never tells of what came and went in it."""
    watch.hold_against([make_pod(version=8)], restored=False)
    clock.now = 30.0
    watch.hold_against([], restored=False)
    assert 0.0 == watch.behind_seconds


def test_in_a_restored_store_it_has_to_show_itself_anew(clock: HandClock, watch: WatchHealth) -> None:
    """Fault 22: it waits for the version that it had seen before, and brings nothing until the store counts so far."""
    watch.tell(make_pod(version=900))
    watch.hold_against([make_pod(version=7)], restored=True)
    clock.now = 4.0
    assert 4.0 == watch.behind_seconds


@given(versions=st.lists(st.integers(1, 50), max_size=20), told=st.integers(1, 50))
def test_it_owes_exactly_the_versions_after_the_last_that_it_brought(versions: list[int], told: int) -> None:
    """Fault 3: whatever is listed."""
    clock = HandClock()
    watch = WatchHealth(clock)
    watch.tell(make_pod("told", version=told))
    watch.hold_against([make_pod(f"pod-{v}", version=v) for v in versions], restored=False)
    clock.now = 1.0
    assert (1.0 if any(v > told for v in versions) else 0.0) == watch.behind_seconds


def test_events_of_both_kinds_count_and_what_the_controller_wrote_itself_does_not(clock: HandClock) -> None:
    """R-P10: its own status patches show that the API server answers, not that a watch lives."""
    observed = Observed(clock)
    clock.now = 1.0
    observed.see_policy(make_policy(version=5))
    assert None is observed.event_at
    observed.replace_policies([make_policy(version=5)], 5)
    observed.replace_pods([make_pod(version=4)], 5)
    clock.now = 3.0
    assert 2.0 == observed.behind_seconds
    metadata = {"name": "retriever-0", "namespace": "search", "uid": "uid-of-retriever-0", "resourceVersion": "4"}
    take_pod_event(observed, cast("kopf.RawEvent", {"type": None, "object": {"metadata": metadata}}))
    assert (2.0, 3.0) == (observed.behind_seconds, observed.event_at)
    written = {**metadata, "name": "retrieval", "uid": "uid-of-retrieval", "resourceVersion": "5"}
    take_policy_event(observed, cast("kopf.RawEvent", {"type": "MODIFIED", "object": {"metadata": written}}))
    assert 0.0 == observed.behind_seconds
