"""Sidecars that speak the real contract: they verify signatures, judge orders by the contract's own rule, and report.

`FakeSidecar` answers requests; `FakeNetwork` is the controller's transport to many of them; `serve` puts one behind a
real HTTP server.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from membudget_contract.control_api import Problem
from membudget_contract.orders import (
    KEY_HEADER,
    ORDER_DOMAIN,
    ORDER_PATH,
    REPORT_DOMAIN,
    SIGNATURE_HEADER,
    Acknowledgement,
    HeldOrder,
    Order,
    OrderNumber,
    PodIdentity,
    PodReport,
    ReportRequest,
    Verdict,
    judge_order,
)
from membudget_contract.recommend import PodNeed
from membudget_controller.keys import OrderKey
from membudget_controller.orders import SignedRequest
from membudget_controller.settings import SIDECAR_PORT
from membudget_controller.transport import HttpAnswer, Unreached

Reply = tuple[int, msgspec.Struct]
OK: Final = 200
_orders: Final = msgspec.json.Decoder(Order)
_report_requests: Final = msgspec.json.Decoder(ReportRequest)


class FakeSidecar:
    """One pod's; `mode` is how it misbehaves."""

    def __init__(self, pod: PodIdentity, public_keys: Callable[[], Mapping[str, str]]) -> None:
        self.pod = pod
        self.mode = ""
        self.usage: int | None = 100
        self.usage_age: float | None = 0.5
        self.budget = 150
        self.overridden = False
        self.problem: str | None = None
        self.need: PodNeed | None = None
        self.held: HeldOrder | None = None
        self.orders: list[tuple[OrderNumber, bool]] = []
        """Verified orders in the order of their arrival, with whether each changed anything."""
        self.accepted: list[HeldOrder] = []
        """What it held, one after the other."""
        self.bodies: list[bytes] = []
        self.reports = 0
        self._public_keys = public_keys

    def mount(self, public_keys: Callable[[], Mapping[str, str]]) -> None:
        """Other keys than so far."""
        self._public_keys = public_keys

    def answer(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """As the sidecar answers on its port."""
        domain = ORDER_DOMAIN if path == ORDER_PATH else REPORT_DOMAIN
        key = self._public_keys().get(headers[KEY_HEADER])
        if key is None:
            return _problem(401, "UnknownKey", "no such key here")
        try:
            VerifyKey(base64.b64decode(key)).verify(domain + body, base64.b64decode(headers[SIGNATURE_HEADER]))
        except BadSignatureError:
            return _problem(401, "BadSignature", "signed by somebody else")
        return self._order(body) if path == ORDER_PATH else self._report(body)

    def _order(self, body: bytes) -> Reply:
        order = _orders.decode(body)
        number = OrderNumber(epoch=order.epoch, sequence=order.sequence)
        self.bodies.append(body)
        if self.mode == "refuse":
            return _problem(422, "NoLimit", "a total of 75% needs a container limit")
        verdict = judge_order(self.held, order, self.pod)
        if verdict not in {Verdict.ACCEPTED, Verdict.UNCHANGED}:
            return _problem(409, verdict.value, "not this one")
        changed = verdict is Verdict.ACCEPTED
        self.orders.append((number, changed))
        self.held = HeldOrder(number=number, policy=order.policy, plan=order.plan, plan_hash=order.plan_hash)
        if changed:
            self.accepted.append(self.held)
        return OK, Acknowledgement(
            changed=changed,
            pod_uid="another" if self.mode == "other uid" else self.pod.uid,
            number=OrderNumber(epoch=0, sequence=0) if self.mode == "other number" else number,
            plan_hash="another" if self.mode == "other hash" else order.plan_hash,
            effective_plan_hash="effective",
            overridden=self.overridden,
            problem=self.problem,
        )

    def _report(self, body: bytes) -> Reply:
        if _report_requests.decode(body).pod != self.pod:
            return _problem(409, Verdict.FOREIGN.value, "for another pod")
        self.reports += 1
        held = self.held
        return OK, PodReport(
            pod_uid=self.pod.uid,
            number=held.number if held else None,
            policy=held.policy if held else None,
            plan_hash=held.plan_hash if held else None,
            effective_plan_hash="effective",
            overridden=self.overridden,
            level="Normal",
            engine="Connected",
            usage_bytes=self.usage,
            usage_age_seconds=self.usage_age,
            budget_bytes=self.budget,
            problem=self.problem,
            need=self.need,
        )


class FakeNetwork:
    """The controller's transport: pods by address; none there is no route."""

    def __init__(self) -> None:
        self.sidecars: dict[str, FakeSidecar] = {}

    def __call__(self, address: str, port: int, request: SignedRequest) -> HttpAnswer | Unreached:
        """One exchange."""
        assert port == SIDECAR_PORT
        sidecar = self.sidecars.get(address)
        if sidecar is None or sidecar.mode == "down":
            return Unreached.NO_CONNECTION
        status, message = sidecar.answer(request.path, request.body, request.headers)
        if sidecar.mode == "reply lost":
            return Unreached.TIMED_OUT
        return HttpAnswer(status, msgspec.json.encode(message))

    def orders(self) -> int:
        """Verified orders that any pod ever got."""
        return sum(len(sidecar.orders) for sidecar in self.sidecars.values())


@contextmanager
def serve(sidecar: FakeSidecar, host: str = "127.0.0.1", port: int = 0) -> Generator[int]:
    """Behind a real HTTP server; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, message = sidecar.answer(self.path, body, dict(self.headers))
            if sidecar.mode == "reply lost":
                return
            content = msgspec.json.encode(message)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Silent."""

    with ThreadingHTTPServer((host, port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def keys_of(*keys: OrderKey) -> Callable[[], Mapping[str, str]]:
    """What pods see of these keys when they are published."""
    published = {key.key_id: key.public_text for key in keys}
    return lambda: published


def _problem(status: int, reason: str, detail: str) -> Reply:
    return status, Problem(title=reason, status=status, reason=reason, detail=detail)
