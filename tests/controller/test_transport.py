"""Whoever listens at a pod's address is bounded in time and size and changes nothing by what it answers (R-P08)."""

from __future__ import annotations

import socket
import time
import tracemalloc

import pytest
from nacl.signing import SigningKey

from controller.cluster_objects import make_pod, make_policy
from controller.fake_sidecar import FakeSidecar, keys_of, serve
from controller.hostile_server import Answer, dripping, endless, listening, silent, whole
from membudget_contract.orders import ORDER_PATH, PodIdentity, PolicyIdentity
from membudget_controller.keys import Authority, OrderKey
from membudget_controller.orders import NumberedOrder, OrderWriter
from membudget_controller.pushes import (
    Acknowledged,
    Failure,
    KeysPending,
    Refused,
    Reported,
    Unreachable,
    read_acknowledgement,
    read_report,
)
from membudget_controller.targets import assign
from membudget_controller.transport import EXCHANGE_SECONDS, Unreached, post

HOST = "127.0.0.1"
KEY = OrderKey(SigningKey(b"k" * 32))
WRITER = OrderWriter(Authority(KEY, 7))
TARGET = assign([make_policy(generation=3)], [make_pod()]).targets["uid-of-retriever-0"]
PROBLEM = '{"title": "t", "status": 1, "reason": "%s", "detail": "because"}'


def push(port: int, order: NumberedOrder | None = None) -> Acknowledged | Failure:
    """One order over real HTTP."""
    told = order or WRITER.number(TARGET.pod, TARGET.desired)
    return read_acknowledgement(post(HOST, port, WRITER.order_request(told)), told)


def sidecar(*keys: OrderKey) -> FakeSidecar:
    """The pod's own."""
    return FakeSidecar(TARGET.pod, keys_of(*keys))


def answer(status: int, body: str) -> Answer:
    """A whole answer."""
    return whole(f"HTTP/1.1 {status} Any\nContent-Length: {len(body)}\n\n{body}")


def test_an_order_is_verified_accepted_and_acknowledged() -> None:
    """R-P08: over real HTTP, signature checked by PyNaCl over domain and raw body."""
    pod = sidecar(KEY)
    with serve(pod) as port:
        result = push(port)
        report = read_report(post(HOST, port, WRITER.report_request(TARGET.pod)), TARGET.pod.uid)
    assert isinstance(result, Acknowledged)
    assert isinstance(report, Reported)
    assert (True, TARGET.desired.plan_hash) == (result.acknowledgement.changed, report.report.plan_hash)
    assert PolicyIdentity(name="retrieval", uid="uid-of-retrieval", generation=3) == report.report.policy


def test_a_reply_lost_after_the_order_was_applied_is_answered_unchanged() -> None:
    """R-P08, guarantee 3, fault 90: the retry has the same number and the same bytes and is applied once."""
    pod = sidecar(KEY)
    order = WRITER.number(TARGET.pod, TARGET.desired)
    with serve(pod) as port:
        pod.mode = "reply lost"
        lost = push(port, order)
        pod.mode = ""
        again = push(port, order)
    assert Unreachable(Unreached.NO_CONNECTION) == lost
    assert isinstance(again, Acknowledged)
    assert ([True, False], 1) == ([changed for _, changed in pod.orders], len(set(pod.bodies)))
    assert not again.acknowledgement.changed


@pytest.mark.parametrize("mode", ["other uid", "other number", "other hash"])
def test_an_acknowledgement_of_something_else_is_none(mode: str) -> None:
    """Design, Orders: it carries pod uid, number and plan hash; else it is none."""
    pod = sidecar(KEY)
    pod.mode = mode
    with serve(pod) as port:
        assert Unreachable(Unreached.OTHER_ORDER) == push(port)


def test_a_report_of_another_pod_is_none() -> None:
    """Fault 5: the address went to another pod."""
    identity = PodIdentity(namespace="search", name="retriever-0", uid="another")
    with serve(FakeSidecar(identity, keys_of(KEY))) as port:
        foreign = read_report(post(HOST, port, WRITER.report_request(TARGET.pod)), TARGET.pod.uid)
    assert Refused("Foreign", "for another pod", 409) == foreign


def test_a_key_that_the_pod_does_not_have_is_awaited_and_a_wrong_signature_is_refused() -> None:
    """R-P08: KeysPending heals by itself, BadSignature never does."""
    stranger = OrderKey(SigningKey(b"s" * 32))
    impostor = FakeSidecar(TARGET.pod, lambda: {KEY.key_id: stranger.public_text})
    with serve(sidecar()) as pending, serve(impostor) as wrong:
        assert KeysPending() == push(pending)
        assert Refused("BadSignature", "signed by somebody else", 401) == push(wrong)


def test_a_report_request_is_no_order() -> None:
    """Fault 93: the domains differ, so a replayed signature does not verify."""
    request = WRITER.report_request(TARGET.pod)
    status, _ = sidecar(KEY).answer(ORDER_PATH, request.body, request.headers)
    assert 401 == status


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (422, "NoLimit", Refused("NoLimit", "because", 422)),
        (409, "NewerEpoch", Refused("NewerEpoch", "because", 409)),
        (413, "TooLarge", Refused("TooLarge", "because", 413)),
        (429, "TooManyRequests", Unreachable(Unreached.BUSY)),
        (500, "Broken", Unreachable(Unreached.BUSY)),
        (302, "Elsewhere", Unreachable(Unreached.NOT_A_SIDECAR)),
        (201, "Created", Unreachable(Unreached.NOT_A_SIDECAR)),
    ],
)
def test_refusals_keep_their_reason(status: int, reason: str, expected: Failure) -> None:
    """R-P10: the condition says what the sidecar said."""
    with listening(answer(status, PROBLEM % reason)) as (port, _):
        assert expected == push(port)


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        (answer(200, "<html>welcome</html>"), Unreached.NOT_A_SIDECAR),
        (answer(403, "<html>forbidden</html>"), Unreached.NOT_A_SIDECAR),
        (answer(200, "[" * 20_000), Unreached.NOT_A_SIDECAR),
        (answer(200, '{"changed": true}'), Unreached.NOT_A_SIDECAR),
        (answer(200, "\xff\xfe"), Unreached.NOT_A_SIDECAR),
        (answer(401, PROBLEM.replace("{", '{"contract": "9.0", ', 1) % "UnknownKey"), Unreached.NOT_A_SIDECAR),
        (whole("SSH-2.0-OpenSSH_9.2\n"), Unreached.NOT_A_SIDECAR),
        (whole("HTTP/1.1 200 OK\nContent-Length: -1\n\n{}"), Unreached.NOT_A_SIDECAR),
        (whole("HTTP/1.1 200 OK\nContent-Length: 900\n\n{}"), Unreached.NOT_A_SIDECAR),
        (whole("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\n"), Unreached.NOT_A_SIDECAR),
        (whole("HTTP/1.1 200 OK\n" + "X-Many: 1\n" * 200 + "\n{}"), Unreached.NOT_A_SIDECAR),
        (whole(""), Unreached.NO_CONNECTION),
        (endless, Unreached.TOO_LARGE),
        (silent, Unreached.TIMED_OUT),
        (dripping("HTTP/1.1 200 OK\nContent-Length: 65536\n\n"), Unreached.TIMED_OUT),
        (dripping("HTTP/1.1 200 OK\nX-Slow: "), Unreached.TIMED_OUT),
        (dripping(""), Unreached.TIMED_OUT),
        (dripping("HTTP/1.1 200 OK\nX-Slow: ", count=7), Unreached.TIMED_OUT),
    ],
)
def test_what_no_sidecar_answers_is_no_answer_and_costs_little(hostile: Answer, expected: Unreached) -> None:
    """Faults 89, 90, 91 and 106: at most 2 s in all and 64 kB, whatever is listening there."""
    with listening(hostile) as (port, _):
        tracemalloc.start()
        began = time.monotonic()
        result = push(port)
        seconds, (_, most_bytes) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert Unreachable(expected) == result
    assert (True, True) == (seconds < EXCHANGE_SECONDS + 0.5, most_bytes < 1 << 20)


def test_a_redirect_is_not_followed() -> None:
    """Design, Orders, fault 91: an order never travels to an address that is not the pod's."""
    with listening(whole("HTTP/1.1 200 OK\n\n")) as (elsewhere, followed):
        location = f"HTTP/1.1 307 Go\nLocation: http://{HOST}:{elsewhere}/v1/order\nContent-Length: 0\n\n"
        with listening(whole(location)) as (port, asked):
            result = push(port)
    assert (Unreachable(Unreached.NOT_A_SIDECAR), 1, []) == (result, len(asked), followed)


def test_nobody_there_is_no_connection() -> None:
    """R-P10: Unreachable, at once."""
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    assert Unreachable(Unreached.NO_CONNECTION) == push(port)
