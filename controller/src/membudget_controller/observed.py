"""The controller's view of the cluster: policies and opted-in pods by uid, fed by events and by full lists.

Covers: which of two versions of an object is believed, what a list removes, and when policies are unknown. Does not
watch, list or decide. Thread-safe. Neighbours: `handlers` and `listing` feed it, `loop` reads it and waits on `wake`.

Invariant: after a full list has been taken in and every event up to it, the view is what the API server holds, in
whatever order they came. Policies whose deletion was seen are unknown, not deleted, until a list succeeds: the whole
kind may be about to vanish, and then nothing may be pushed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from membudget_controller.objects import ObservedPod, ObservedPolicy
from membudget_controller.watch_health import WatchHealth


class Versioned(Protocol):
    """What both kinds have."""

    @property
    def uid(self) -> str:
        """Tells an object from a later one of the same name."""
        ...

    @property
    def resource_version(self) -> int:
        """Grows with each change of any object."""
        ...


Kind = TypeVar("Kind", bound=Versioned)


class Table(Generic[Kind]):
    """Objects of one kind; not thread-safe."""

    def __init__(self) -> None:
        self.objects: dict[str, Kind] = {}
        self.listed: int | None = None
        """The version of the last full list; None before the first."""
        self._deleted: dict[str, int] = {}

    def see(self, seen: Kind) -> bool:
        """Take in one version of an object; False when a newer one is known, or that it is gone."""
        known = self.objects.get(seen.uid)
        if known is None:
            gone_at = max(self._deleted.get(seen.uid, -1), -1 if self.listed is None else self.listed)
            if seen.resource_version <= gone_at:
                return False
        elif seen.resource_version <= known.resource_version:
            return False
        self.objects[seen.uid] = seen
        return True

    def since_list(self) -> frozenset[str]:
        """What was there at the last list or came since, whether or not it was seen to go."""
        return frozenset(self.objects.keys() | self._deleted.keys())

    def delete(self, uid: str, resource_version: int) -> bool:
        """Take in a deletion, unless the object was seen after it."""
        known = self.objects.get(uid)
        if known is not None and known.resource_version > resource_version:
            return False
        self._deleted[uid] = max(resource_version, self._deleted.get(uid, resource_version))
        return self.objects.pop(uid, None) is not None

    def is_restored(self, version: int) -> bool:
        """Whether a list of that version comes from a store that was put back to an earlier day."""
        return self.listed is not None and version < self.listed

    def replace(self, listed: Iterable[Kind], version: int) -> bool:
        """Take in a full list: what is not in it and not newer than it is gone, what is in it is so.

        Lists are taken one after the other from the store itself, so a version that falls means that the store was
        restored: nothing that was seen before counts any more. A store that was restored and has caught up since shows
        itself by an object that is older in the list than it was known, and the list is believed.
        """
        restored = self.is_restored(version)
        before = {} if restored else self.objects
        deleted = {} if restored else self._deleted
        after = {uid: known for uid, known in before.items() if known.resource_version > version}
        for seen in listed:
            known = before.get(seen.uid)
            truth = max(version, seen.resource_version)
            if deleted.get(seen.uid, -1) <= truth:
                newer = known is not None and known.resource_version > truth
                after[seen.uid] = known if known is not None and newer else seen
        changed = after != self.objects
        self.objects, self.listed = after, version
        self._deleted = {uid: at for uid, at in deleted.items() if at > version}
        return changed


@dataclass(frozen=True, slots=True)
class View:
    """The cluster at one moment; `version` moves with every change but that of a status."""

    version: int
    policies: tuple[ObservedPolicy, ...]
    pods: tuple[ObservedPod, ...]
    known: bool
    """Both kinds were listed, and nothing since then speaks against the policies."""


class Observed:
    """Events come from kopf's thread, lists and reads from the loop's, what was written from the status writer's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.wake = threading.Event()
        self.policy_watch = WatchHealth(clock)
        self.pod_watch = WatchHealth(clock)
        self.watch_over = threading.Event()
        """The running watch is to end."""
        self._watch_anew = threading.Event()
        self._lock = threading.Lock()
        self._policies: Table[ObservedPolicy] = Table()
        self._pods: Table[ObservedPod] = Table()
        self._policies_known = False
        self._list_asked = False
        self._version = 0

    def see_policy(self, policy: ObservedPolicy) -> None:
        """A policy was added or changed."""
        self._see_policy(policy, wakes=True)

    def see_written(self, policy: ObservedPolicy) -> None:
        """This process wrote a policy's status: nothing follows from that, so nobody is woken."""
        self._see_policy(policy, wakes=False)

    def _see_policy(self, policy: ObservedPolicy, *, wakes: bool) -> None:
        with self._lock:
            before = self._policies.objects.get(policy.uid)
            if not self._policies.see(policy):
                return
            self._version += before is None or not _differ_in_status_alone(before, policy)
        if wakes:
            self.wake.set()

    def is_current(self, policy: ObservedPolicy) -> bool:
        """Whether no other version of it is known, nor that it is gone."""
        with self._lock:
            known = self._policies.objects.get(policy.uid)
        return known is not None and known.resource_version == policy.resource_version

    def delete_policy(self, policy: ObservedPolicy) -> None:
        """A policy's deletion was seen: until the next list nobody knows whether the others are still wanted."""
        with self._lock:
            if self._policies.delete(policy.uid, policy.resource_version):
                self._policies_known = False
                self._list_asked = True
                self._changed(changed=True)

    def see_pod(self, pod: ObservedPod) -> None:
        """A pod was added or changed; without the label it is none of ours."""
        with self._lock:
            gone = not pod.is_managed and self._pods.delete(pod.uid, pod.resource_version)
            self._changed(changed=gone or (pod.is_managed and self._pods.see(pod)))

    def delete_pod(self, pod: ObservedPod) -> None:
        """A pod is gone, or opted out."""
        with self._lock:
            self._changed(changed=self._pods.delete(pod.uid, pod.resource_version))

    def replace_policies(self, policies: Collection[ObservedPolicy], version: int) -> None:
        """A full list of policies succeeded."""
        with self._lock:
            self.policy_watch.hold_against(policies, restored=self._policies.is_restored(version))
            changed = self._policies.replace(policies, version)
            self._changed(changed=changed or not self._policies_known)
            self._policies_known = True

    def replace_pods(self, pods: Collection[ObservedPod], version: int) -> None:
        """A full list of opted-in pods succeeded."""
        with self._lock:
            first = self._pods.listed is None
            self.pod_watch.hold_against(pods, restored=self._pods.is_restored(version))
            self._changed(changed=self._pods.replace(pods, version) or first)

    def doubt_policies(self) -> None:
        """The kind is not served, or about to vanish."""
        with self._lock:
            self._changed(changed=self._policies_known)
            self._policies_known = False

    def ask_list(self) -> None:
        """A watch began anew: deletions may have been missed."""
        with self._lock:
            self._list_asked = True
        self.wake.set()

    def begin_watch_anew(self) -> None:
        """A kind has come that the running watch may not know."""
        self._watch_anew.set()
        self.watch_over.set()

    def take_watch_anew(self) -> bool:
        """Whether the watch that has ended is to begin anew."""
        anew = self._watch_anew.is_set()
        self._watch_anew.clear()
        self.watch_over.clear()
        return anew

    @property
    def listed_version(self) -> int | None:
        """Of the last full list of policies; None before the first."""
        return self._policies.listed

    @property
    def event_at(self) -> float | None:
        """When any watch last brought something, by the clock."""
        told = [watch.event_at for watch in (self.policy_watch, self.pod_watch) if watch.event_at is not None]
        return max(told, default=None)

    @property
    def behind_seconds(self) -> float:
        """How long any watch has owed what a list showed; 0 where none does."""
        return max(self.policy_watch.behind_seconds, self.pod_watch.behind_seconds)

    def policies_since_list(self) -> frozenset[str]:
        """By uid, those that a list must hold, or else say that they were deleted."""
        with self._lock:
            return self._policies.since_list()

    def take_list_asked(self) -> bool:
        """Whether a list was asked for since the last call."""
        with self._lock:
            asked, self._list_asked = self._list_asked, False
            return asked

    def view(self) -> View:
        """The cluster now."""
        with self._lock:
            return View(
                self._version,
                tuple(self._policies.objects.values()),
                tuple(self._pods.objects.values()),
                known=self._policies_known and self._pods.listed is not None,
            )

    def _changed(self, *, changed: bool) -> None:
        if changed:
            self._version += 1
            self.wake.set()


def _differ_in_status_alone(before: ObservedPolicy, after: ObservedPolicy) -> bool:
    return replace(before, status=after.status, resource_version=after.resource_version) == after
