"""A controller as a sidecar knows it, its key and what it signs; and a pod whose gate takes orders.

`Controller` writes real signed requests, also those that no controller would. `OrderedPod` is a hand-driven sidecar in
controller mode: `send` hands a request to its gate and says what came of it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from nacl.signing import SigningKey

from membudget_contract.compile import compile_policy
from membudget_contract.orders import (
    ORDER_DOMAIN,
    REPORT_DOMAIN,
    Order,
    OrderNumber,
    PodIdentity,
    PolicyIdentity,
    ReportRequest,
)
from membudget_contract.plan import Message, Plan, plan_hash
from membudget_contract.policy import parse_policy
from membudget_sidecar.errors import Refused
from membudget_sidecar.plans.order_gate import OrderGate
from membudget_sidecar.plans.order_keeper import OrderKeeper
from membudget_sidecar.plans.order_keys import OrderKeys
from sidecar.hand_driven import HandDriven

POD = PodIdentity(namespace="search", name="retriever-0", uid="5b1f")
EPOCH = 1_786_000_000


class Signed(NamedTuple):
    """What a POST carries."""

    key_id: str
    signature: str
    body: bytes


def ordered_plan(total: str = "100Mi", **budget: Any) -> Plan:
    """A plan with that total, measured by the resident set, so that no other process counts."""
    asked = {"signal": "ResidentSetSize", "total": total, **budget}
    metadata = {"name": "retrieval", "namespace": "search"}
    document = {"apiVersion": "membudget.dev/v1alpha1", "kind": "MemoryPolicy", "metadata": metadata}
    return compile_policy(parse_policy({**document, "spec": {"budget": asked}}))


def order(sequence: int, total: str = "100Mi", *, generation: int | None = None, **changed: Any) -> Order:
    """An order for POD; its generation is its sequence, as when a policy is edited again and again."""
    plan = ordered_plan(total)
    made = Order(
        epoch=EPOCH,
        sequence=sequence,
        pod=POD,
        policy=PolicyIdentity(name="retrieval", uid="a0c4", generation=generation or sequence),
        plan=plan,
        plan_hash=plan_hash(plan),
    )
    return msgspec.structs.replace(made, **changed)


def number(sequence: int, epoch: int = EPOCH) -> OrderNumber:
    """What an order is ordered by."""
    return OrderNumber(epoch=epoch, sequence=sequence)


class Controller:
    """One key; the same name makes the same key."""

    def __init__(self, key_id: str = "0a1b") -> None:
        self.key_id = key_id
        self._key = SigningKey(key_id.encode().ljust(32, b"."))

    def publish(self, folder: Path) -> None:
        """Put the public key where the pod mounts it."""
        folder.mkdir(exist_ok=True)
        (folder / self.key_id).write_bytes(base64.b64encode(bytes(self._key.verify_key)))

    def sign(self, message: Message | bytes, domain: bytes = ORDER_DOMAIN) -> Signed:
        """A request that carries it."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message, order="deterministic")
        return Signed(self.key_id, base64.b64encode(self._key.sign(domain + body).signature).decode(), body)

    def ask(self, pod: PodIdentity = POD) -> Signed:
        """A request for a report."""
        return self.sign(ReportRequest(pod=pod), REPORT_DOMAIN)


class OrderedPod:
    """Made again on the same folder it is the next life of the same sidecar."""

    def __init__(self, folder: Path, *, pod: PodIdentity = POD) -> None:
        self.keys = folder / "keys"
        self.state = folder / "state"
        self.driven = HandDriven(folder, action_seconds=1.0, follows_orders=True)
        self.orders = OrderKeeper(self.state, pod, self.driven.keeper, wall=lambda: 5000.0)
        self.gate = OrderGate(self.driven.loop, OrderKeys(self.keys), pod, self.orders, clock=lambda: self.driven.now)

    def send(self, request: Signed) -> tuple[int, str]:
        """Status and reason of the answer; of an acknowledgement, whether it was new."""
        try:
            return 200, "Accepted" if self.gate.order(*request).changed else "Unchanged"
        except Refused as refused:
            return refused.status, refused.reason

    def ask(self, request: Signed) -> tuple[int, str]:
        """The same of a request for a report."""
        try:
            return 200, self.gate.report(*request).pod_uid
        except Refused as refused:
            return refused.status, refused.reason

    @property
    def held(self) -> OrderNumber | None:
        """The number of the order it holds."""
        return self.orders.held.number if self.orders.held else None

    @property
    def total(self) -> int:
        """In force, in MiB."""
        return self.driven.keeper.effective.total_bytes >> 20
