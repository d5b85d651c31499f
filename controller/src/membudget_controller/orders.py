"""Signed requests: orders with their numbers, and report requests.

Covers: the global count under the epoch, and the bytes and headers of a request. The same order makes the same bytes,
so a retry is recognised as such. Does not send (`pushes`). Neighbours: `keys` signs, `membudget_contract.orders` has
the messages.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import msgspec

from membudget_contract.orders import (
    KEY_HEADER,
    ORDER_DOMAIN,
    ORDER_PATH,
    REPORT_DOMAIN,
    REPORT_PATH,
    SIGNATURE_HEADER,
    Order,
    OrderNumber,
    PodIdentity,
    ReportRequest,
)
from membudget_controller.keys import Authority, OrderKey
from membudget_controller.targets import Desired

_encoder: Final = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class NumberedOrder:
    """What one pod is told, under the number it keeps through all retries."""

    pod: PodIdentity
    number: OrderNumber
    desired: Desired


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """One POST as it goes over the wire."""

    path: str
    body: bytes
    headers: dict[str, str]


class OrderWriter:
    """Numbers and signs; the count belongs to one thread, signing to any."""

    def __init__(self, authority: Authority) -> None:
        self.epoch = authority.epoch
        self._key = authority.key
        self._sequence = itertools.count(1)

    def use(self, key: OrderKey) -> None:
        """Sign with this one from now on; numbers go on."""
        self._key = key

    def number(self, pod: PodIdentity, desired: Desired) -> NumberedOrder:
        """An order with a number that none before had."""
        return NumberedOrder(pod, OrderNumber(epoch=self.epoch, sequence=next(self._sequence)), desired)

    def order_request(self, order: NumberedOrder) -> SignedRequest:
        """The request that carries an order."""
        message = Order(
            epoch=order.number.epoch,
            sequence=order.number.sequence,
            pod=order.pod,
            policy=order.desired.policy,
            plan=order.desired.plan,
            plan_hash=order.desired.plan_hash,
        )
        return _signed(self._key, ORDER_PATH, ORDER_DOMAIN, _encoder.encode(message))

    def report_request(self, pod: PodIdentity, key: OrderKey | None = None) -> SignedRequest:
        """The request for a report; signed with another key, only who knows that one answers."""
        return _signed(key or self._key, REPORT_PATH, REPORT_DOMAIN, _encoder.encode(ReportRequest(pod=pod)))


def _signed(key: OrderKey, path: str, domain: bytes, body: bytes) -> SignedRequest:
    headers = {
        "Content-Type": "application/json",
        KEY_HEADER: key.key_id,
        SIGNATURE_HEADER: key.sign(domain + body),
    }
    return SignedRequest(path, body, headers)
