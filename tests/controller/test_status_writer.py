"""A status is written where it differs, at the version that was looked at, once a second at most (R-P10)."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.cluster_objects import make_policy
from controller.fake_cluster import FakeCluster
from membudget_contract.policy_status import PolicyStatus
from membudget_controller.cluster import Transition
from membudget_controller.conditions import policy_status
from membudget_controller.objects import ObservedPolicy
from membudget_controller.observed import Observed
from membudget_controller.pod_facts import PodFacts, Standing
from membudget_controller.status_writer import (
    CONFLICT_PAUSE_SECONDS,
    FAILURE_PAUSE_SECONDS,
    WRITE_PAUSE_SECONDS,
    StatusWriter,
    transitions,
)
from membudget_controller.write_budget import MOST_PER_SECOND, BudgetSpent, WriteBudget

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
PUSHING, WELL = PodFacts("a", Standing.PUSHING), PodFacts("a", Standing.PROGRAMMED, over_budget=False)


def status_of(policy: ObservedPolicy, *followers: PodFacts) -> PolicyStatus:
    """As the loop makes it."""
    return policy_status(policy, followers, (), NOW)


class Written:
    """A writer, a cluster with one policy, and the view that the writer refreshes."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.policy = self.cluster.apply(make_policy())
        self.observed = Observed(lambda: 0.0)
        self.observed.replace_policies([self.policy], self.policy.resource_version)
        self.now = 0.0
        budget = WriteBudget(lambda: self.now)
        self.writer = StatusWriter(self.cluster, self.observed, budget, lambda: self.now)

    def write(self, now: float, *followers: PodFacts) -> float | None:
        """The status of these followers, for the policy as the view has it, written if it may be; else when."""
        (seen,) = self.observed.view().policies
        self.now = now
        self.writer.want([(seen, status_of(seen, *followers))])
        return self.rest()

    def rest(self) -> float | None:
        """All that may be done now; when there is more."""
        while (again := self.writer.step()) is not None and again <= self.now:
            pass
        return again


def test_what_is_so_already_is_not_written_again() -> None:
    """Guarantee 6: the view has the written object at once, before any event."""
    made = Written()
    made.write(0, WELL)
    assert (None, ["status of retrieval"]) == (made.write(5, WELL), made.cluster.writes)


def test_a_policy_is_written_once_a_second_at_most() -> None:
    """R-P10: the latest status is written when the second is over."""
    made = Written()
    made.write(10, PUSHING)
    waits = made.write(10.4, WELL)
    before = len(made.cluster.statuses)
    made.write(10 + WRITE_PAUSE_SECONDS, WELL)
    assert (11.0, 1, 2) == (waits, before, len(made.cluster.statuses))


def test_a_conflict_is_decided_anew_from_the_newer_object() -> None:
    """R-P10: another writer's change is seen, not overwritten; the retry is soon."""
    made = Written()
    made.cluster.apply(make_policy(total="90Mi"))
    left = made.write(0, WELL)
    (seen,) = made.observed.view().policies
    again = made.write(0, WELL)
    made.write(CONFLICT_PAUSE_SECONDS, WELL)
    written = made.cluster.policies["search", "retrieval"].status
    assert (None, CONFLICT_PAUSE_SECONDS, 2, 2) == (left, again, seen.generation, written.observed_generation)


def test_a_storm_of_other_writers_is_outlived() -> None:
    """Fault 9: right soon after it ends, and during it where a write gets through."""
    made = Written()
    made.cluster.before_write = lambda _: made.cluster.annotate("search", "retrieval")
    now = 0.0
    for _ in range(100):
        now = made.write(now, WELL) or now
    stormy = len(made.cluster.statuses)
    made.cluster.before_write = lambda _: None
    made.write(made.write(now, WELL) or now, WELL)
    assert (0, 1, True) == (stormy, len(made.cluster.statuses), now < 100 / MOST_PER_SECOND + 1)


@pytest.mark.parametrize("status", [403, 404, 500, 507])
def test_a_write_that_fails_is_tried_again_after_a_pause(status: int) -> None:
    """Fault 21: bounded while the API server takes nothing; known policies are pushed all the same."""
    made = Written()
    made.cluster.failing = status
    assert FAILURE_PAUSE_SECONDS == made.write(0, WELL)
    made.cluster.failing = None
    made.now = FAILURE_PAUSE_SECONDS - 1
    early = made.rest(), len(made.cluster.statuses)
    made.now = FAILURE_PAUSE_SECONDS
    made.rest()
    assert ((FAILURE_PAUSE_SECONDS, 0), 1) == (early, len(made.cluster.statuses))


def test_a_write_that_fails_is_left_when_it_is_not_wanted_any_more() -> None:
    """R-P10: the cluster moved on, and says now what the policy says already."""
    made = Written()
    made.cluster.failing = 500
    made.write(0, WELL)
    made.cluster.failing = None
    (seen,) = made.observed.view().policies
    made.writer.want([(seen, seen.status)])
    made.now = FAILURE_PAUSE_SECONDS
    assert (None, []) == (made.rest(), made.cluster.statuses)


def test_a_policy_that_moved_on_since_the_loop_looked_is_left_to_its_next_look() -> None:
    """R-P10: no request is wasted on a version that is known to be old, nor on a policy that is gone."""
    made = Written()
    (seen,) = made.observed.view().policies
    made.writer.want([(seen, status_of(seen, WELL))])
    made.observed.see_policy(made.cluster.apply(make_policy(total="90Mi")))
    moved = made.rest()
    (newer,) = made.observed.view().policies
    made.writer.want([(newer, status_of(newer, WELL))])
    made.observed.delete_policy(made.cluster.delete_policy("search", "retrieval"))
    assert (None, None, []) == (moved, made.rest(), made.cluster.writes)


def test_its_thread_writes_what_is_wanted_and_goes_on_after_a_defect() -> None:
    """R-P10: woken by the loop, ended by it; an error that nobody foresaw costs one write."""
    made = Written()
    written = threading.Event()
    made.cluster.before_write = lambda _: written.set()
    writer = StatusWriter(made.cluster, made.observed, WriteBudget(time.monotonic), _Faulty(time.monotonic))
    thread = threading.Thread(target=writer.run, daemon=True)
    thread.start()
    (seen,) = made.observed.view().policies
    writer.want([(seen, status_of(seen, WELL))])
    assert written.wait(10.0)
    writer.stop()
    thread.join(10.0)
    assert not thread.is_alive()


class _Faulty:
    """A clock whose first answer is an error."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._broken = True

    def __call__(self) -> float:
        if self._broken:
            self._broken = False
            raise RuntimeError("broken")
        return self._clock()


def test_transitions_become_events_once() -> None:
    """R-P10: all three at first, then what moved; nothing where only a message changed."""
    made = Written()
    made.write(0, WELL)
    first = [event.reason for event in made.cluster.events]
    made.write(2, PodFacts("a", Standing.REFUSED, "NoLimit: no limit", over_budget=False))
    made.write(4, PodFacts("a", Standing.REFUSED, "NoLimit: still none", over_budget=False))
    assert ["Accepted", "Programmed", "UnderBudget"] == first
    assert [Transition("Refused", "Programmed: a: NoLimit: no limit", warning=True)] == made.cluster.events[3:]


def test_no_event_without_a_written_status() -> None:
    """R-P10: a conflict tells nobody anything."""
    made = Written()
    made.cluster.annotate("search", "retrieval")
    made.write(0, WELL)
    assert [] == made.cluster.events


def test_a_changed_reason_is_a_transition_and_a_changed_message_is_none() -> None:
    """R-P10: of the pure part."""
    before = status_of(make_policy(), PUSHING)
    unreachable = status_of(make_policy(), replace(PUSHING, standing=Standing.UNREACHABLE))
    other_pod = status_of(make_policy(), replace(PUSHING, name="b"))
    assert (["Unreachable"], []) == (
        [transition.reason for transition in transitions(before, unreachable)],
        list(transitions(before, other_pod)),
    )


class Many:
    """A writer and many policies, each of which has something new to say whenever it is asked."""

    def __init__(self, count: int) -> None:
        self.cluster = FakeCluster()
        self.observed = Observed(lambda: 0.0)
        for number in range(count):
            self.cluster.apply(make_policy(f"policy-{number:02}"))
        self.observed.replace_policies(list(self.cluster.policies.values()), self.cluster.version)
        budget = WriteBudget(lambda: self.now)
        self.writer = StatusWriter(self.cluster, self.observed, budget, lambda: self.now)
        self.written: list[tuple[float, str]] = []
        self.now = 0.0
        self.cluster.before_write = lambda request: self.written.append((self.now, request.partition(" ")[0]))

    def look(self, follower: PodFacts) -> float | None:
        """Write and tell what may be; when to come back."""
        self.writer.want([(policy, status_of(policy, follower)) for policy in self.observed.view().policies])
        while (again := self.writer.step()) is not None and again <= self.now:
            pass
        return again


def test_however_many_policies_say_something_new_there_are_20_writes_a_second_at_most() -> None:
    """R-P10: statuses before the events that tell of them; in the end all are there."""
    made = Many(60)
    again: float | None = 0.0
    while again is not None:
        made.now = again
        again = made.look(WELL)
    times = [at for at, _ in made.written]
    assert max(sum(since <= at < since + 1 for at in times) for since in times) <= MOST_PER_SECOND
    assert ["PATCH"] * 60 + ["POST"] * 180 == [method for _, method in made.written]
    assert made.now <= 240 / MOST_PER_SECOND + 1


def test_policies_that_change_all_the_time_do_not_keep_the_others_from_being_written() -> None:
    """R-P10: who was written least lately comes first."""
    made = Many(60)
    for step in range(100):
        made.now = step / 10
        made.look(replace(WELL, over_budget=bool(step % 2)))
    assert all(policy.status.conditions for policy in made.cluster.policies.values())


def test_writes_count_until_a_second_after_their_end() -> None:
    """R-P10: one that arrives late is one of the second in which it arrives."""
    now = 0.0
    budget = WriteBudget(lambda: now)
    for _ in range(MOST_PER_SECOND - 1):
        with budget.one():
            pass
    with budget.one():
        now = 0.9  # it takes so long
    now = 1.0
    with budget.one():
        pass
    now = 1.5
    for _ in range(MOST_PER_SECOND - 2):
        with budget.one():
            pass
    with pytest.raises(BudgetSpent), budget.one():
        pass
    assert 1.9 == pytest.approx(budget.next_at)


def test_reserved_writes_are_left_by_the_others() -> None:
    """Without its key a pod believes no order: keys go before statuses."""
    budget = WriteBudget(lambda: 0.0)
    budget.reserve(2)
    for _ in range(MOST_PER_SECOND - 2):
        with budget.one():
            pass
    with pytest.raises(BudgetSpent), budget.one():
        pass
    for _ in range(2):
        with budget.one(reserved=True):
            pass
    with pytest.raises(BudgetSpent), budget.one(reserved=True):
        pass
