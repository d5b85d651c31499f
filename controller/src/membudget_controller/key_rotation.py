"""The way from one key pair to the next, on request and without a pod that stops listening in between.

Covers: who has shown that it knows the next key, and when that is enough. A person asks by writing a new text into the
field `rotate` of the controller's Secret; then both public keys are published, a pod proves that it knows the next one
by answering a request for a report that is signed with it, and when every pod that can be reached has done so, orders
are signed with it and the key before is withdrawn. Does not write (`keys`, `key_publication`) nor send (`dispatch`).

A pod that is not reached, or knows no key at all, holds up nothing: the kubelet brings the key to it as to all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from membudget_controller.keys import OrderKey
from membudget_controller.progress import Progress
from membudget_controller.pushes import KeysPending, Reported, Result, Unreachable
from membudget_controller.targets import AddressProblem, Target

PROOF_PAUSE_SECONDS: Final = 10.0
"""Until a pod is tried again that did not know the next key; a kubelet takes a minute to bring it."""


class KeyProof:
    """By pod uid, who knows the next key."""

    def __init__(self) -> None:
        self._key: OrderKey | None = None
        self._proven: set[str] = set()
        self._again_at: dict[str, float] = {}

    def follow(self, next_key: OrderKey | None) -> None:
        """Another key is proven anew."""
        if next_key != self._key:
            self._key = next_key
            self._proven.clear()
            self._again_at.clear()

    def key_for(self, pod_uid: str, now: float) -> OrderKey | None:
        """The next key, where the pod's knowing it is still to be shown; None for the present one."""
        if pod_uid in self._proven or now < self._again_at.get(pod_uid, now):
            return None
        return self._key

    def take(self, pod_uid: str, result: Result, now: float) -> bool:
        """What came of a request signed with it; whether the pod is to be asked with the present key instead."""
        if isinstance(result, Reported):
            self._proven.add(pod_uid)
        elif isinstance(result, KeysPending):
            self._again_at[pod_uid] = now + PROOF_PAUSE_SECONDS
            return True
        return False

    def wanted(self, progress: Mapping[str, Progress], now: float) -> tuple[str, ...]:
        """The pods to be asked before their next report is due; one that fails is asked when its pause is over."""
        if self._key is None:
            return ()
        return tuple(
            uid for uid, known in progress.items() if known.failures == 0 and self.key_for(uid, now) is not None
        )

    def missing(self, targets: Mapping[str, Target], progress: Mapping[str, Progress]) -> frozenset[str]:
        """The pods that believe the present key, as far as known, and have not shown it."""
        return frozenset(
            uid
            for uid, target in targets.items()
            if uid not in self._proven
            and not isinstance(target.address, AddressProblem)
            and not isinstance(progress[uid].trouble, Unreachable | KeysPending)
        )

    def next_at(self, missing: frozenset[str]) -> float | None:
        """When the first of these is asked again."""
        return min((self._again_at[uid] for uid in missing if uid in self._again_at), default=None)
