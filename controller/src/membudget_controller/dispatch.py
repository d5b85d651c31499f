"""Does what `reconcile` found: asks and tells pods, and takes in what they answer.

Covers: progress of every target, numbering, starting exchanges, results, and stepping down before a newer controller.
Does not decide (`reconcile`). One thread; exchanges run in those of `fan_out`.

A pod that claims a newer epoch is believed only if the Secret says so too: else anyone who may label a pod could stop
the controller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from membudget_contract.orders import PolicyIdentity, Verdict
from membudget_controller import progress
from membudget_controller.clocks import Clocks
from membudget_controller.errors import SteppedDown
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.fan_out import FanOut
from membudget_controller.key_rotation import KeyProof
from membudget_controller.keys import Authority, OrderKey
from membudget_controller.metrics import Metrics
from membudget_controller.orders import NumberedOrder, OrderWriter
from membudget_controller.progress import Incarnation, Progress
from membudget_controller.pushes import (
    Acknowledged,
    Failure,
    KeysPending,
    Refused,
    Reported,
    Result,
    read_acknowledgement,
    read_report,
)
from membudget_controller.reconcile import Work
from membudget_controller.settings import ControllerSettings
from membudget_controller.targets import AddressProblem, Target
from membudget_controller.transport import Transport

REPORT_SPREAD: Final = 0.25
"""Reports are asked for up to so much of their interval earlier or later."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One exchange with one pod; `order` is None for a report."""

    pod_uid: str
    incarnation: Incarnation
    order: NumberedOrder | None
    result: Result
    seconds: float
    proof: bool = False
    """The request was signed with the next key."""


class Dispatch:
    """Progress by pod uid, and the exchanges in flight."""

    def __init__(
        self,
        writer: OrderWriter,
        metrics: Metrics,
        settings: ControllerSettings,
        clocks: Clocks,
        transport: Transport,
        *,
        stored_epoch: Callable[[], int],
        on_result: Callable[[], None],
    ) -> None:
        self.progress: dict[str, Progress] = {}
        self.keyless: set[str] = set()
        """Namespaces in which a pod did not know the key; the loop empties it."""
        self.fallen: dict[str, PolicyIdentity] = {}
        """By namespace, policies of which a pod holds a later generation in this epoch; the loop empties it."""
        self.proof = KeyProof()
        self._writer = writer
        self._metrics = metrics
        self._transport = transport
        self._port = settings.sidecar_port
        self._report_seconds = settings.report_seconds
        self._stored_epoch = stored_epoch
        self._clock = clocks.monotonic
        self._jitter = clocks.jitter
        self._fan_out: FanOut[Ended] = FanOut(on_result)
        self._targets: Mapping[str, Target] = {}

    @property
    def in_flight(self) -> set[str]:
        """Pods with an exchange under way."""
        return self._fan_out.in_flight

    def follow(self, targets: Mapping[str, Target]) -> None:
        """Forget pods that are no targets any more, and what others said before they restarted or moved."""
        self._targets = targets
        self.progress = {uid: self._of(uid, target) for uid, target in targets.items()}

    def renew(self, writer: OrderWriter) -> None:
        """Number orders under a new epoch from now on; what was refused under the one before is sent anew."""
        self._writer = writer
        self.progress = {uid: progress.renewed(known) for uid, known in self.progress.items()}

    def sign_with(self, authority: Authority) -> None:
        """Its key from now on, and its next key to be proven; numbers go on."""
        self._writer.use(authority.key)
        self.proof.follow(authority.next_key)

    def start(self, work: Work, now: float) -> None:
        """Begin all exchanges; results are for `collect`."""
        for uid in work.push:
            target, known = self._targets[uid], self.progress[uid]
            order = known.order
            if order is None or order.desired.content != target.desired.content:
                order = self._writer.number(target.pod, target.desired)
            self.progress[uid] = progress.sent(known, order, now)
            passed(Failpoint.BEFORE_PUSH)
            self._fan_out.start(uid, functools.partial(self._push, target, known.incarnation, order))
        for uid in work.ask:
            target, key = self._targets[uid], self.proof.key_for(uid, now)
            self._fan_out.start(uid, functools.partial(self._ask, target, self.progress[uid].incarnation, key))

    def collect(self, seconds: float) -> bool:
        """Take in what ended within that time; whether anything did.

        Raises:
            SteppedDown: a newer controller has taken over.
        """
        ended = self._fan_out.collect(seconds, self._clock)
        for one in ended:
            self._count(one)
            self._check_epoch(one)
            known = self.progress.get(one.pod_uid)
            if known is not None and known.incarnation == one.incarnation:
                self.progress[one.pod_uid] = self._after(known, one)
        return bool(ended)

    def stop(self) -> None:
        """Begin nothing more."""
        self._fan_out.stop()

    def _of(self, uid: str, target: Target) -> Progress:
        address = "" if isinstance(target.address, AddressProblem) else target.address
        incarnation = Incarnation(address, target.restarts)
        known = self.progress.get(uid)
        return known if known is not None and known.incarnation == incarnation else Progress(incarnation)

    def _push(self, target: Target, incarnation: Incarnation, order: NumberedOrder) -> Ended:
        began = self._clock()
        answer = self._transport(incarnation.address, self._port, self._writer.order_request(order))
        passed(Failpoint.AFTER_PUSH)
        result = read_acknowledgement(answer, order)
        return Ended(target.pod.uid, incarnation, order, result, self._clock() - began)

    def _ask(self, target: Target, incarnation: Incarnation, key: OrderKey | None) -> Ended:
        began = self._clock()
        request = self._writer.report_request(target.pod, key)
        result = read_report(self._transport(incarnation.address, self._port, request), target.pod.uid)
        return Ended(target.pod.uid, incarnation, None, result, self._clock() - began, proof=key is not None)

    def _after(self, known: Progress, ended: Ended) -> Progress:
        now, result, order = self._clock(), ended.result, ended.order
        if isinstance(result, Refused) and result.reason == Verdict.GENERATION_FELL and order and order.desired.policy:
            self.fallen[order.pod.namespace] = order.desired.policy
        if ended.proof and self.proof.take(ended.pod_uid, result, now):
            return replace(known, ask_at=now)  # with the present key
        if isinstance(result, KeysPending):
            self.keyless.add(self._targets[ended.pod_uid].pod.namespace)
        if isinstance(result, Reported):
            spread = (self._jitter() * 2 - 1) * REPORT_SPREAD
            return progress.reported(known, result, now, self._report_seconds * (1 + spread))
        if isinstance(result, Acknowledged):
            passed(Failpoint.BEFORE_RECORD)
            return progress.acknowledged(known, order, result, now) if order else known
        failed = progress.push_failed if order else progress.ask_failed
        return failed(known, result, now, self._jitter())

    def _count(self, ended: Ended) -> None:
        name = _result_name(ended.result)
        if ended.order is None:
            self._metrics.reports.labels(name).inc()
        else:
            self._metrics.pushes.labels(name).inc()
            self._metrics.push_seconds.observe(ended.seconds)

    def _check_epoch(self, ended: Ended) -> None:
        claimed = isinstance(ended.result, Refused) and ended.result.reason == Verdict.NEWER_EPOCH
        if isinstance(ended.result, Reported):
            number = ended.result.report.number
            claimed = number is not None and number.epoch > self._writer.epoch
        if claimed:
            stored = self._stored_epoch()
            if stored > self._writer.epoch:
                raise SteppedDown(self._writer.epoch, stored)


def _result_name(result: Acknowledged | Reported | Failure) -> str:
    return type(result).__name__
