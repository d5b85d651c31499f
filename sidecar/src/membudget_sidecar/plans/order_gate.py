"""Who may order, and which order counts: every check between a POST on the pod network and a plan in force (R-P08).

Covers: size, the brake on bad signatures, the signature, parsing, the judgement, the counts of answers. Does not
speak HTTP (`network_api`), read keys (`order_keys`) nor keep orders (`order_keeper`). The rule by which an order is
newer is pure and the contract's: `judge_order`. Blocks on the disk: to be called outside the event loop.

Invariant: nothing of a body is parsed before its signature is verified, and orders are judged and kept one at a time.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from membudget_contract import CONTRACT_VERSION
from membudget_contract.decoding import decode_json
from membudget_contract.errors import ContractError
from membudget_contract.orders import (
    MAX_ORDER_BYTES,
    ORDER_DOMAIN,
    REPORT_DOMAIN,
    Acknowledgement,
    Order,
    OrderNumber,
    PodIdentity,
    PodReport,
    ReportRequest,
    Verdict,
    judge_order,
)
from membudget_contract.plan import Message, plan_hash
from membudget_sidecar.errors import Refused
from membudget_sidecar.kernel.sample import Sample
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_keeper import OrderKeeper
from membudget_sidecar.plans.order_keys import OrderKeys, Proof
from membudget_sidecar.serving.pod_report import is_overridden, pod_report

BAD_SIGNATURES: Final = 5
"""Within one second; then nothing is verified until that second is over."""
BRAKE_SECONDS: Final = 1.0

_DETAILS: Final = {
    Proof.NO_KEYS: "no public key is mounted here yet; the controller publishes them in ConfigMap membudget-keys",
    Proof.UNKNOWN_KEY: "no public key of that name is mounted here, or not yet",
    Proof.BAD_SIGNATURE: "the signature is not that of this key over this body",
    Verdict.FOREIGN: "this is another pod: namespace, name and uid must be its own",
    Verdict.OLDER: "a newer order holds here",
    Verdict.NEWER_EPOCH: "an order of a newer controller holds here",
    Verdict.CONTRADICTION: "another order holds here under the same number",
    Verdict.GENERATION_FELL: "a later generation of the same policy holds here, of the same epoch",
    Verdict.UNSUPPORTED: f"written for another contract than {CONTRACT_VERSION}, or requires what it does not have",
}

Parsed = TypeVar("Parsed", bound=Message)


class OrderGate:
    """`answers` counts orders by the reason they were answered with, `bad_signatures` those of reports too."""

    def __init__(
        self, loop: Loop, keys: OrderKeys, pod: PodIdentity, orders: OrderKeeper, *, clock: Callable[[], float]
    ) -> None:
        self.orders = orders
        self.answers: Counter[str] = Counter()
        self.bad_signatures = 0
        self._loop = loop
        self._keys = keys
        self._pod = pod
        self._clock = clock
        self._judging = threading.Lock()
        self._lock = threading.Lock()
        self._second_began = -float("inf")
        self._bad_in_second = 0

    def order(self, key_id: str, signature: str, body: bytes) -> Acknowledgement:
        """Take an order; acknowledged means kept on the disk.

        Raises:
            Refused: with the answer; the last good plan holds.
        """
        try:
            self._verify(key_id, ORDER_DOMAIN, signature, body)
            order = _parsed(body, Order)
            with self._judging:
                verdict = self._judged(order, body)
                answer = self._acknowledgement(order, changed=verdict is Verdict.ACCEPTED)
        except Refused as refused:
            self.count(refused.reason)
            raise
        self.count(verdict.value)
        return answer

    def report(self, key_id: str, signature: str, body: bytes) -> PodReport:
        """Say how this pod is; changes nothing, and never waits for the disk.

        Raises:
            Refused: with the answer.
        """
        self._verify(key_id, REPORT_DOMAIN, signature, body)
        request = _parsed(body, ReportRequest)
        if request.contract.partition(".")[0] != CONTRACT_VERSION.partition(".")[0]:
            raise _refused(422, Verdict.UNSUPPORTED)
        if request.pod != self._pod:
            raise _refused(409, Verdict.FOREIGN)
        return pod_report(self._loop, self._pod, self.orders.held, self._clock())

    def count(self, answer: str) -> None:
        """One order more that was answered so; also for what was refused before it came here."""
        with self._lock:
            self.answers[answer] += 1

    def _verify(self, key_id: str, domain: bytes, signature: str, body: bytes) -> None:
        if len(body) > MAX_ORDER_BYTES:
            raise Refused(413, "TooLarge", f"a body has at most {MAX_ORDER_BYTES} bytes")
        with self._lock:
            self._brake()
            proof = self._keys.verify(key_id, domain, body, signature)
            if proof is Proof.BAD_SIGNATURE:
                self.bad_signatures += 1
                self._bad_in_second += 1
        if proof is not Proof.VERIFIED:
            raise _refused(401, proof)

    def _brake(self) -> None:
        now = self._clock()
        if now - self._second_began >= BRAKE_SECONDS:
            self._second_began, self._bad_in_second = now, 0
        if self._bad_in_second >= BAD_SIGNATURES:
            raise Refused(429, "TooManyBadSignatures", "too many bad signatures; try again in a second")

    def _judged(self, order: Order, body: bytes) -> Verdict:
        if not _plan_matches(order, body):
            raise Refused(409, Verdict.CONTRADICTION.value, "planHash is not that of the plan")
        verdict = judge_order(self.orders.held, order, self._pod)
        if verdict is Verdict.ACCEPTED:
            self._accept(order)
        elif verdict is not Verdict.UNCHANGED:
            raise _refused(422 if verdict is Verdict.UNSUPPORTED else 409, verdict)
        return verdict

    def _accept(self, order: Order) -> None:
        watch = self._loop.watch
        self._loop.keeper.follow(watch.limit, watch.floor)  # the loop may have seen a limit and not yet told it
        try:
            self.orders.accept(order, watch.floor, limit_was_looked_for=isinstance(watch.sample, Sample))
        except ContractError as error:
            raise Refused(422, error.reason, str(error)) from None
        except OSError as error:
            detail = f"the order was not taken, since it cannot be kept: {error.strerror}"
            raise Refused(503, "NotKept", detail) from None
        self._loop.wake()

    def _acknowledgement(self, order: Order, *, changed: bool) -> Acknowledgement:
        plans = self._loop.keeper
        effective = plans.effective
        return Acknowledgement(
            changed=changed,
            pod_uid=self._pod.uid,
            number=OrderNumber(epoch=order.epoch, sequence=order.sequence),
            plan_hash=order.plan_hash,
            effective_plan_hash=plan_hash(effective),
            overridden=is_overridden(effective),
            problem=plans.problem,
        )


class _PlanBytes(msgspec.Struct):
    """The plan as it was sent: a controller of another minor version hashed fields that this one does not know."""

    plan: msgspec.Raw


def _plan_matches(order: Order, body: bytes) -> bool:
    sent = decode_json(body, _PlanBytes).plan
    return order.plan_hash in {hashlib.sha256(sent).hexdigest(), plan_hash(order.plan)}


def _parsed(body: bytes, kind: type[Parsed]) -> Parsed:
    try:
        return decode_json(body, kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(400, "Invalid", str(error)) from None


def _refused(status: int, why: Proof | Verdict) -> Refused:
    return Refused(status, why.value, _DETAILS[why])
