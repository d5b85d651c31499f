"""The controller's loop: look at the cluster, compare, ask and tell pods, write statuses.

Covers: the order of one look, and when the next is. Does not watch (`handlers`), list (`listing`), decide (`targets`,
`rollout`, `reconcile`, `conditions`), talk to pods (`dispatch`) or write statuses (`status_writer`). One thread; others
wake it through `observed.wake`.

Level-based: every look starts from all that is known, so that a lost, doubled or late event changes nothing but time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from membudget_contract.policy_status import PolicyStatus
from membudget_contract.recommendations_api import PolicyRecommendations
from membudget_controller import rollout
from membudget_controller.clocks import Clocks
from membudget_controller.cluster import Cluster, Transition
from membudget_controller.conditions import policy_status
from membudget_controller.dispatch import Dispatch
from membudget_controller.errors import ApiFailed, ApiNotFound, ControllerError, SteppedDown
from membudget_controller.key_publication import KeyPublication
from membudget_controller.keys import Authority, begin_rotation, finish_rotation, stored_epoch, take_authority
from membudget_controller.listing import Listing
from membudget_controller.metrics import Metrics
from membudget_controller.objects import Compiled, ObservedPolicy
from membudget_controller.observed import Observed, View
from membudget_controller.orders import OrderWriter
from membudget_controller.pod_facts import PodFacts, Standing, facts_of, waiting
from membudget_controller.progress import is_refused
from membudget_controller.recommendations import advise_all
from membudget_controller.reconcile import reconcile
from membudget_controller.resize_condition import resized
from membudget_controller.resizes import AWAITS_LIMIT, Resizes
from membudget_controller.rollout import EVERYBODY, Turn, together
from membudget_controller.settings import ControllerSettings
from membudget_controller.status_writer import StatusWriter
from membudget_controller.targets import Assignment, Target, assign
from membudget_controller.transport import Transport
from membudget_controller.write_budget import WriteBudget

COLLECT_SECONDS: Final = 0.25
"""A look waits so long for answers before it starts what follows from them."""
UNDER_WAY_SECONDS: Final = 1.0
"""Statuses wait so long for exchanges under way: one written a moment too soon would bar the next for a second."""
LONGEST_PAUSE_SECONDS: Final = 30.0
FAILURE_PAUSE_SECONDS: Final = 1.0
BURST_SECONDS: Final = 0.01
"""After a wake-up the rest of a burst of events is awaited for so long."""

log = logging.getLogger(__name__)


class Loop:
    """Owns the parts and the order in which they are used."""

    def __init__(
        self,
        cluster: Cluster,
        observed: Observed,
        authority: Authority,
        metrics: Metrics,
        settings: ControllerSettings,
        clocks: Clocks,
        transport: Transport,
    ) -> None:
        self.dispatch = Dispatch(
            OrderWriter(authority),
            metrics,
            settings,
            clocks,
            transport,
            stored_epoch=lambda: stored_epoch(cluster, settings.namespace),
            on_result=observed.wake.set,
        )
        self.ended_by: ControllerError | None = None
        """Why it ended by itself; None while it runs or after `stop`."""
        self.looked_at = clocks.monotonic()
        """When it last finished a look, by the clock."""
        self._observed = observed
        self._metrics = metrics
        self._report_seconds = settings.report_seconds
        self._clock = clocks.monotonic
        self._wall = clocks.wall
        self._listing = Listing(cluster, observed, settings.list_seconds)
        budget = WriteBudget(self._clock)
        self.status_writer = StatusWriter(cluster, observed, budget, self._clock)
        self._publication = KeyPublication(cluster, authority, budget)
        self._cluster = cluster
        self._authority = authority
        self._namespace = settings.namespace
        self.dispatch.sign_with(authority)
        self._resizes = Resizes(cluster, observed, metrics)
        self._assigned: tuple[int, Assignment] | None = None
        self._seen: tuple[tuple[ObservedPolicy, ...], Assignment] = (), Assignment({}, {})
        self._awaiting_since: float | None = None
        self._stopped = threading.Event()

    def run(self, on_end: Callable[[], None]) -> None:
        """Until `stop`, or until a newer controller has taken over."""
        threading.Thread(target=self.status_writer.run, name="statuses", daemon=True).start()
        while not self._stopped.is_set():
            with self._metrics.reconcile_seconds.time():
                pause = self._guarded_look()
            self.looked_at = self._clock()
            if self._observed.wake.wait(pause):
                self._stopped.wait(BURST_SECONDS)
            self._observed.wake.clear()
        self.status_writer.stop()
        self.dispatch.stop()
        on_end()

    def recommendations(self) -> PolicyRecommendations:
        """The budgets that policies would need, by what their pods told last; for any thread."""
        policies, assignment = self._seen
        return advise_all(policies, assignment, self.dispatch.progress)

    @property
    def is_stopped(self) -> bool:
        """It has ended, or will after the look in work."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End after the look in work."""
        self._stopped.set()
        self._observed.wake.set()

    def look(self) -> float:
        """One look; seconds until the next if nothing happens."""
        now = self._clock()
        if self._listing.list_if_due(now):
            self._publication.look_again()
            self._rotate(begin_rotation)
        collected = self.dispatch.collect(0)
        view = self._observed.view()
        self._metrics.policies_known.set(float(view.known))
        if not view.known or self._listing.is_awaited(now):
            return max(self._listing.due_at - now, 0)
        assignment = self._assign(view)
        self.dispatch.follow(assignment.targets)
        self._seen = view.policies, assignment
        self._publish_key(view, now)
        resizing = self._resizes.look(view, assignment, self.dispatch.progress, now)
        targets = {**assignment.targets, **self._resizes.meanwhile}
        self.dispatch.follow(targets)
        turns = self._turns(view, assignment, targets, now)
        turn = together((*turns.values(), resizing))
        turn = replace(turn, ask=turn.ask + self.dispatch.proof.wanted(self.dispatch.progress, now))
        work = reconcile(targets, self.dispatch.progress, self.dispatch.in_flight, now, turn)
        self.dispatch.start(work, now)
        rotation_at = self._go_on_rotating(assignment)
        collected = self.dispatch.collect(COLLECT_SECONDS) or collected
        self._answer_fallen_generations()
        status_at = self._wait_for_answers()
        if status_at is None:
            self.status_writer.want(self._statuses(view, assignment, turns))
        if collected:
            return 0  # an answer may be followed by an order
        dues = (
            self._listing.due_at,
            self._listing.version_at,
            self._publication.next_at(),
            work.next_at,
            status_at,
            rotation_at,
        )
        return min(max(min(due for due in dues if due is not None) - self._clock(), 0), LONGEST_PAUSE_SECONDS)

    def _guarded_look(self) -> float:
        try:
            return self.look()
        except SteppedDown as error:
            self.ended_by = error
            self._stopped.set()
        except ApiFailed as error:
            log.warning("%s", error)
        except Exception:  # a defect in one look must not end all others
            log.exception("a look failed")
        return FAILURE_PAUSE_SECONDS

    def _assign(self, view: View) -> Assignment:
        """Anew only when the cluster changed; most looks are about answers and timers."""
        if self._assigned is None or self._assigned[0] != view.version:
            self._assigned = view.version, assign(view.policies, view.pods)
            self._metrics.policies.set(len(view.policies))
            self._metrics.pods.set(len(self._assigned[1].targets))
        return self._assigned[1]

    def _answer_fallen_generations(self) -> None:
        """A pod holds a later generation than the API server: one restored from a backup is obeyed, a stale one is not.

        What the server says now, read anew from its store, decides. Obeyed is it under a new epoch, once for all.
        """
        fallen, restored = dict(self.dispatch.fallen), False
        self.dispatch.fallen.clear()
        for namespace, identity in fallen.items():
            try:
                policy = self._cluster.read_policy(namespace, identity.name)
            except ApiNotFound:
                continue
            self._observed.see_policy(policy)
            if policy.identity != identity:
                continue
            restored = True
            log.warning("generation %d of %s/%s was restored", policy.generation, namespace, policy.name)
            self._cluster.create_event(policy, _restored(policy.generation))
        if restored:
            self._authority = take_authority(self._cluster, self._namespace, self._wall().timestamp())
            self.dispatch.renew(OrderWriter(self._authority))
            self._follow(self._authority)

    def _follow(self, authority: Authority) -> None:
        """Sign with its key and publish its keys."""
        self._authority = authority
        self.dispatch.sign_with(authority)
        self._publication.follow(authority)

    def _go_on_rotating(self, assignment: Assignment) -> float | None:
        """The next key takes over once it is published and known; when to look again, None without a rotation."""
        self._metrics.key_rotation.set(float(self._authority.next_key is not None))
        if self._authority.next_key is None:
            return None
        missing = self.dispatch.proof.missing(assignment.targets, self.dispatch.progress)
        if not missing:
            self._rotate(finish_rotation)
        return self.dispatch.proof.next_at(missing)

    def _rotate(self, step: Callable[[Cluster, str, Authority], Authority]) -> None:
        """What fails is tried again after the next list: orders go out under either key."""
        before = self._authority
        try:
            self._follow(step(self._cluster, self._namespace, before))
        except ApiFailed as error:
            log.warning("the keys are not rotated yet: %s", error)
        if self._authority != before:
            log.info("orders are signed by key %s", ", then ".join(self._authority.public_keys))

    def _publish_key(self, view: View, now: float) -> None:
        self._publication.look_again(self.dispatch.keyless)
        self.dispatch.keyless.clear()
        self._publication.publish({seen.namespace for seen in (*view.policies, *view.pods)}, now)
        self._metrics.key_namespaces.labels("true").set(len(self._publication.published))
        self._metrics.key_namespaces.labels("false").set(len(self._publication.failed))

    def _turns(self, view: View, assignment: Assignment, targets: Mapping[str, Target], now: float) -> dict[str, Turn]:
        """By policy uid: who of its pods must wait while others change."""
        turns: dict[str, Turn] = {}
        for policy in view.policies:
            if isinstance(policy.meaning, Compiled):
                followers = [targets[uid] for uid in assignment.following[policy.uid].won]
                turns[policy.uid] = rollout.turn(followers, self.dispatch.progress, policy.meaning.rollout, now)
        self._metrics.rollouts_paused.set(sum(turn.paused is not None for turn in turns.values()))
        return turns

    def _wait_for_answers(self) -> float | None:
        """Until when statuses wait; None when nobody is awaited, or was for long enough."""
        if not self.dispatch.in_flight:
            self._awaiting_since = None
            return None
        now = self._clock()
        if self._awaiting_since is None:
            self._awaiting_since = now
        until = self._awaiting_since + UNDER_WAY_SECONDS
        return until if now < until else None

    def _statuses(
        self, view: View, assignment: Assignment, turns: Mapping[str, Turn]
    ) -> list[tuple[ObservedPolicy, PolicyStatus]]:
        """Of every policy, the one that it should have."""
        now, wall = self._clock(), self._wall()
        progress = self.dispatch.progress
        facts = {
            uid: facts_of(target, progress[uid], now, self._report_seconds)
            for uid, target in assignment.targets.items()
        }
        self._metrics.programmed.set(sum(pod.standing is Standing.PROGRAMMED for pod in facts.values()))
        statuses: list[tuple[ObservedPolicy, PolicyStatus]] = []
        for policy in view.policies:
            following = assignment.following[policy.uid]
            turn = turns.get(policy.uid, EVERYBODY)
            followers = [self._waiting(facts[uid], uid, turn) for uid in following.won]
            standings = {facts[uid].name: one for uid, one in self._resizes.standings.get(policy.uid, {}).items()}
            limits = resized(policy, standings)
            status = policy_status(policy, followers, following.lost.values(), wall, paused=turn.paused, resized=limits)
            statuses.append((policy, status))
        return statuses

    def _waiting(self, facts: PodFacts, uid: str, turn: Turn) -> PodFacts:
        if uid in self._resizes.awaiting and not self._is_refused_meanwhile(uid):
            return waiting(facts, AWAITS_LIMIT)
        return waiting(facts) if uid in turn.held_back else facts

    def _is_refused_meanwhile(self, uid: str) -> bool:
        target = self._resizes.meanwhile.get(uid)
        return target is not None and is_refused(self.dispatch.progress[uid], target.desired)


def _restored(generation: int) -> Transition:
    note = f"pods held a later generation than {generation}, which the API server has now: applied under a new epoch"
    return Transition("GenerationRestored", note, warning=True)
