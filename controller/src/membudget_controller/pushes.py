"""What a sidecar's answer means: an order acknowledged or refused, a report, or nothing that counts.

Covers: reading answers into typed results. An acknowledgement counts only if it names this pod, this number and this
plan. Pure. Does not send (`transport`), decide whom to ask (`reconcile`) nor when to try again (`progress`).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from msgspec.json import Decoder

from membudget_contract import CONTRACT_VERSION
from membudget_contract.control_api import Problem
from membudget_contract.decoding import json_decoder
from membudget_contract.orders import Acknowledgement, PodReport
from membudget_contract.recommend import is_plausible
from membudget_controller.orders import NumberedOrder
from membudget_controller.transport import HttpAnswer, Unreached

BAD_SIGNATURE: Final = "BadSignature"
"""The reason of a 401 where the key is known; any other 401 is a key that has not arrived yet."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The pod holds the order."""

    acknowledgement: Acknowledgement


@dataclass(frozen=True, slots=True)
class Reported:
    """The pod says how it is."""

    report: PodReport


@dataclass(frozen=True, slots=True)
class Refused:
    """The sidecar understood and says no; its last good plan stays."""

    reason: str
    detail: str
    status: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nothing is known of what the pod holds now."""

    why: Unreached


@dataclass(frozen=True, slots=True)
class KeysPending:
    """The sidecar has no such key yet; the kubelet brings it."""


Failure = Refused | Unreachable | KeysPending
Result = Acknowledged | Reported | Failure
Message = TypeVar("Message", Acknowledgement, PodReport, Problem)

# Made by the one thread that imports: see `objects`.
_acknowledgements: Final = json_decoder(Acknowledgement)
_reports: Final = json_decoder(PodReport)
_problems: Final = json_decoder(Problem)


def read_acknowledgement(answer: HttpAnswer | Unreached, order: NumberedOrder) -> Acknowledged | Failure:
    """What came of an order."""
    if isinstance(answer, Unreached):
        return Unreachable(answer)
    if answer.status != HTTPStatus.OK:
        return _failure(answer)
    said = _decoded(answer.body, _acknowledgements)
    if said is None:
        return Unreachable(Unreached.NOT_A_SIDECAR)
    if (said.pod_uid, said.number, said.plan_hash) != (order.pod.uid, order.number, order.desired.plan_hash):
        return Unreachable(Unreached.OTHER_ORDER)
    return Acknowledged(said)


def read_report(answer: HttpAnswer | Unreached, pod_uid: str) -> Reported | Failure:
    """What came of a request for a report."""
    if isinstance(answer, Unreached):
        return Unreachable(answer)
    if answer.status != HTTPStatus.OK:
        return _failure(answer)
    said = _decoded(answer.body, _reports)
    if said is None:
        return Unreachable(Unreached.NOT_A_SIDECAR)
    if said.pod_uid != pod_uid:
        return Unreachable(Unreached.OTHER_ORDER)
    believable = said.need is None or is_plausible(said.need)
    return Reported(said if believable else msgspec.structs.replace(said, need=None))


def _failure(answer: HttpAnswer) -> Failure:
    problem = _decoded(answer.body, _problems)
    if problem is None or answer.status < HTTPStatus.BAD_REQUEST:
        return Unreachable(Unreached.NOT_A_SIDECAR)
    if answer.status == HTTPStatus.UNAUTHORIZED and problem.reason != BAD_SIGNATURE:
        return KeysPending()
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unreachable(Unreached.BUSY)
    return Refused(problem.reason, problem.detail, answer.status)


def _decoded(body: bytes, decoder: Decoder[Message]) -> Message | None:
    """Of the contract's own major version, or None."""
    try:
        message = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if message.contract.partition(".")[0] == CONTRACT_VERSION.partition(".")[0] else None
