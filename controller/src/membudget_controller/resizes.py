"""Changes the memory limits of pods in place, where `shrink` says that it is time.

Covers: one look at every pod whose policy resizes, the patches, and what follows a refusal. Does not decide (`shrink`)
nor write statuses. One thread: the loop's. Nothing is remembered but refusals: after a restart, what each pod is and
reports decides again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from membudget_contract.policy import Mode
from membudget_contract.policy_status import REASONS, ConditionType, Reason
from membudget_controller.cluster import Cluster
from membudget_controller.errors import ApiFailed
from membudget_controller.meanwhile import until_then
from membudget_controller.metrics import Metrics
from membudget_controller.objects import Compiled, ObservedPod
from membudget_controller.observed import Observed, View
from membudget_controller.pod_memory import ResizeRule
from membudget_controller.progress import Progress
from membudget_controller.rollout import Turn
from membudget_controller.shrink import Standing, ask_at, limit_of, resize_patch, standing
from membudget_controller.targets import Assignment, Target

REFUSED_SECONDS: Final = 30.0
"""Until a refused resize is tried again."""
AT_ONCE: Final = 20
"""Pods that are patched in one look: orders do not wait for more."""
AWAITS_LIMIT: Final = "waits until its container has the higher limit"
_STATES: Final = tuple(
    reason for reason in REASONS[ConditionType.RESIZED] if reason not in {Reason.OBSERVING, Reason.NO_PODS}
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    limit: int
    why: str
    retry_at: float
    is_missing_right: bool


class Resizes:
    """`standings`, `awaiting` and `meanwhile` are those of the last look."""

    def __init__(self, cluster: Cluster, observed: Observed, metrics: Metrics) -> None:
        self.standings: Mapping[str, Mapping[str, Standing]] = {}
        """By policy uid and pod uid; a policy that leaves limits alone, or only observes, is not among them."""
        self.awaiting: frozenset[str] = frozenset()
        """Pods that do not get the whole of their plan before they have their higher limit."""
        self.meanwhile: Mapping[str, Target] = {}
        """What those of them are told until then that can be told anything."""
        self._cluster = cluster
        self._observed = observed
        self._metrics = metrics
        self._places = AT_ONCE
        self._refusals: dict[str, _Refusal] = {}
        """By pod uid."""
        self._barred: dict[str, _Refusal] = {}
        """By namespace in which the right is missing: for one pod that asks, not for all of them."""

    def look(self, view: View, assignment: Assignment, progress: Mapping[str, Progress], now: float) -> Turn:
        """Patch what is due; who waits for a higher limit, and who is asked how much it uses."""
        pods = {pod.uid: pod for pod in view.pods}
        standings: dict[str, dict[str, Standing]] = {}
        meanwhile: dict[str, Target | None] = {}
        asked: dict[str, float] = {}
        self._places = AT_ONCE
        for policy in view.policies:
            rule = policy.meaning.resize if isinstance(policy.meaning, Compiled) else None
            if rule is None or (isinstance(policy.meaning, Compiled) and policy.meaning.plan.mode is Mode.OBSERVE):
                continue
            now_standing = standings.setdefault(policy.uid, {})
            for uid in assignment.following[policy.uid].won:
                target, known = assignment.targets[uid], progress[uid]
                found = standing(pods[uid], rule, target, known, now)
                if found.due:
                    found = self._resized(pods[uid], rule, found, now)
                now_standing[uid] = found
                if found.grows and known.held != target.desired.content:
                    meanwhile[uid] = until_then(target, known, limit_of(pods[uid], rule))
                if found.reason is Reason.GIVING_BACK:
                    _note(asked, target, known)
        self.standings, self.awaiting = standings, frozenset(meanwhile)
        self.meanwhile = {uid: target for uid, target in meanwhile.items() if target is not None}
        self._refusals = {uid: refusal for uid, refusal in self._refusals.items() if uid in pods}
        self._count()
        refusals = (*self._refusals.values(), *self._barred.values())
        dues = [*asked.values(), *(refusal.retry_at for refusal in refusals)]
        return Turn(
            held_back=self.awaiting.difference(self.meanwhile),
            ask=tuple(uid for uid, at in asked.items() if at <= now),
            next_at=min((due for due in dues if due > now), default=None) if self._places else now,
        )

    def _resized(self, pod: ObservedPod, rule: ResizeRule, found: Standing, now: float) -> Standing:
        refusal = self._barred.get(pod.namespace) or self._refusals.get(pod.uid)
        if refusal is None or refusal.retry_at <= now or (refusal.limit != rule.limit and not refusal.is_missing_right):
            if not self._places:
                return found
            self._places -= 1
            refusal = self._patch(pod, rule, now)
        if refusal is None:
            return replace(found, due=False)
        return replace(found, reason=Reason.RESIZE_REFUSED, why=refusal.why, due=False)

    def _patch(self, pod: ObservedPod, rule: ResizeRule, now: float) -> _Refusal | None:
        self._refusals.pop(pod.uid, None)
        self._barred.pop(pod.namespace, None)
        try:
            after = self._cluster.resize_pod(pod, resize_patch(pod, rule))
        except ApiFailed as error:
            log.warning("%s/%s is not resized: %s", pod.namespace, pod.name, error)
            self._metrics.resizes.labels("Refused").inc()
            refusal = _refusal(rule, error, now)
            if refusal.is_missing_right:
                self._barred[pod.namespace] = refusal
            else:
                self._refusals[pod.uid] = refusal
            return refusal
        log.info("%s/%s: limit of %s set to %d bytes", pod.namespace, pod.name, rule.container, rule.limit)
        self._metrics.resizes.labels("Patched").inc()
        self._observed.see_pod(after)
        return None

    def _count(self) -> None:
        counts = Counter(one.reason for pods in self.standings.values() for one in pods.values())
        for state in _STATES:
            self._metrics.resizing.labels(state.value).set(counts[state])


def _note(asked: dict[str, float], target: Target, known: Progress) -> None:
    at = ask_at(target, known)
    if at is not None:
        asked[target.pod.uid] = at


def _refusal(rule: ResizeRule, error: ApiFailed, now: float) -> _Refusal:
    """403 has two meanings here: no right, and no room on the node."""
    missing = error.status == HTTPStatus.FORBIDDEN and "cannot patch resource" in str(error)
    why = f"the API server does not resize it: {error}"
    if missing:
        why = "the controller may not patch pods/resize; the chart grants it with controller.resizePods=true"
    return _Refusal(rule.limit, why, now + max(REFUSED_SECONDS, error.retry_after), missing)
