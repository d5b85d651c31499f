"""Signed orders and report requests: what the controller sends a sidecar over the pod network.

Covers: the messages, the bytes that are signed, and the pure rule by which an order is accepted. Does not sign or
verify (`membudget_controller.keys`, `membudget_sidecar.plans.order_keys`) and does not send. Neighbours: `plan` for
what an order carries.

Signature: Ed25519 over a domain prefix and the raw body, checked before the body is parsed. The prefix keeps a
signed report request from being replayed as an order.
"""

from __future__ import annotations

import enum
from typing import Final

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message, Plan
from membudget_contract.recommend import PodNeed

ORDER_PATH: Final = "/v1/order"
"""POST Order -> Acknowledgement."""
REPORT_PATH: Final = "/v1/report"
"""POST ReportRequest -> PodReport."""
KEY_HEADER: Final = "Membudget-Key"
SIGNATURE_HEADER: Final = "Membudget-Signature"
"""Base64 of the 64 bytes of the signature."""
ORDER_DOMAIN: Final = b"membudget/order/v1\0"
REPORT_DOMAIN: Final = b"membudget/report/v1\0"
MAX_ORDER_BYTES: Final = 256 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024
"""A sidecar's answer; the controller reads no more."""

SUPPORTED_REQUIREMENTS: Final[frozenset[str]] = frozenset()
"""Names that an order may list in `requires`: what must not be ignored by a reader that does not know it."""


class PodIdentity(Message, frozen=True, kw_only=True):
    """One pod; the uid tells it from a later one of the same name."""

    namespace: str
    name: str
    uid: str


class PolicyIdentity(Message, frozen=True, kw_only=True):
    """One policy at one generation; serves acknowledgement, never ordering."""

    name: str
    uid: str
    generation: int


class Order(Message, frozen=True, kw_only=True):
    """Hold this plan. `policy` is None where no policy selects the pod: it gets its built-in profile."""

    contract: str = CONTRACT_VERSION
    requires: tuple[str, ...] = ()
    epoch: int
    sequence: int
    pod: PodIdentity
    policy: PolicyIdentity | None
    plan: Plan
    plan_hash: str
    """`plan_hash(plan)`: an order whose plan does not match it is no order."""


class OrderNumber(Message, frozen=True, kw_only=True, order=True):
    """What orders are ordered by: the controller's epoch, then its count."""

    epoch: int
    sequence: int


class HeldOrder(Message, frozen=True, kw_only=True):
    """The last accepted order as a sidecar keeps it on disk."""

    number: OrderNumber
    policy: PolicyIdentity | None
    plan: Plan
    plan_hash: str


class Acknowledgement(Message, frozen=True, kw_only=True):
    """This pod holds this order; anything else is no acknowledgement."""

    contract: str = CONTRACT_VERSION
    changed: bool
    pod_uid: str
    number: OrderNumber
    plan_hash: str
    effective_plan_hash: str
    overridden: bool
    """Environment or a `configure` call refines the plan here."""
    problem: str | None = None
    """Why the plan is held and not, or not whole, in force yet, as a percent of a limit that is not known."""


class ReportRequest(Message, frozen=True, kw_only=True):
    """Ask one pod how it is; changes nothing."""

    contract: str = CONTRACT_VERSION
    pod: PodIdentity


class PodReport(Message, frozen=True, kw_only=True):
    """How one pod is. Figures are None where they could not be read."""

    contract: str = CONTRACT_VERSION
    pod_uid: str
    number: OrderNumber | None
    policy: PolicyIdentity | None
    plan_hash: str | None
    effective_plan_hash: str
    overridden: bool
    level: str
    engine: str
    usage_bytes: int | None
    usage_age_seconds: float | None = None
    """How long ago the use was measured; None where it is not known, or the sidecar is older than this field."""
    budget_bytes: int
    problem: str | None = None
    """Why the newest plan is not, or not whole, in force; None when it is."""
    need: PodNeed | None = None
    """What it would need, from what was seen; None from a sidecar that does not tell."""


class Verdict(enum.StrEnum):
    """What becomes of an order."""

    ACCEPTED = "Accepted"
    UNCHANGED = "Unchanged"
    """The same order again: answered 200, nothing done."""
    FOREIGN = "Foreign"
    """For another pod."""
    OLDER = "Older"
    NEWER_EPOCH = "NewerEpoch"
    """A newer controller has spoken: the sender steps down."""
    CONTRADICTION = "Contradiction"
    """Another plan under a number that was used."""
    GENERATION_FELL = "GenerationFell"
    """Within one epoch a policy's generation never falls."""
    UNSUPPORTED = "Unsupported"
    """Written for a later contract, or requires what this reader does not know."""


def judge_order(held: HeldOrder | None, order: Order, pod: PodIdentity) -> Verdict:
    """Whether a verified order is for this pod and newer than what it holds."""
    if not _understood(order):
        return Verdict.UNSUPPORTED
    if order.pod != pod:
        return Verdict.FOREIGN
    return Verdict.ACCEPTED if held is None else _against_held(held, order)


def _against_held(held: HeldOrder, order: Order) -> Verdict:
    number = OrderNumber(epoch=order.epoch, sequence=order.sequence)
    if number < held.number:
        return Verdict.NEWER_EPOCH if order.epoch < held.number.epoch else Verdict.OLDER
    if number == held.number:
        same = (order.policy, order.plan_hash) == (held.policy, held.plan_hash)
        return Verdict.UNCHANGED if same else Verdict.CONTRADICTION
    if order.epoch == held.number.epoch and _generation_fell(held.policy, order.policy):
        return Verdict.GENERATION_FELL
    return Verdict.ACCEPTED


def _understood(order: Order) -> bool:
    major = CONTRACT_VERSION.partition(".")[0]
    return order.contract.partition(".")[0] == major and SUPPORTED_REQUIREMENTS.issuperset(order.requires)


def _generation_fell(held: PolicyIdentity | None, asked: PolicyIdentity | None) -> bool:
    return held is not None and asked is not None and held.uid == asked.uid and asked.generation < held.generation
