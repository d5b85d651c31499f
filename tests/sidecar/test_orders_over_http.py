"""A sidecar process under orders: signed POSTs on its port move the engine's budget, everything else is refused."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.control_api import BUDGETS_PATH
from membudget_contract.orders import KEY_HEADER, ORDER_PATH, REPORT_PATH, SIGNATURE_HEADER
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.sidecar_process import Started
from sidecar.signed_orders import EPOCH, POD, Controller, Signed, order

MIB = 1 << 20
CONTROLLER = Controller()
POD_ENVIRONMENT = {
    "MEMBUDGET_POD_NAMESPACE": POD.namespace,
    "MEMBUDGET_POD_NAME": POD.name,
    "MEMBUDGET_POD_UID": POD.uid,
}


class Ordered(Started):
    """A sidecar process in controller mode."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--keys", str(folder / "keys"))
        eventually(lambda: bool(self.status()), "it answers")

    def post(self, path: str, request: Signed) -> tuple[int, Any]:
        """Status and answer of a signed request on the port."""
        headers = {KEY_HEADER: request.key_id, SIGNATURE_HEADER: request.signature}
        return self.over_port("POST", path, request.body, headers)

    def over_port(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request on the port; the answer parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, json.loads(content) if is_json else content
        finally:
            connection.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the controller's key mounted, of a pod that was told who it is."""
    for variable, value in POD_ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    CONTROLLER.publish(tmp_path / "keys")
    return tmp_path


@pytest.fixture
def ordered(folder: Path) -> Generator[Ordered]:
    """A sidecar that waits for its first order."""
    made = Ordered(folder)
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def newest_budget(engine: FakeEngine) -> int | None:
    """The total the engine was told last."""
    asked = engine.requests(BUDGETS_PATH)
    return asked[-1]["totalBytes"] if asked else None


def test_an_order_moves_the_engine_and_survives_a_kill(ordered: Ordered) -> None:
    """R-P08, guarantees 3 and 5, fault 114: acknowledged, carried out, resumed after SIGKILL, never replayed."""
    engine = FakeEngine(ordered.folder).start()
    try:
        ordered.until(engine="Connected")
        status, answer = ordered.post(ORDER_PATH, CONTROLLER.sign(order(6, "90Mi")))
        assert (200, True, POD.uid) == (status, answer["changed"], answer["podUid"])
        eventually(lambda: newest_budget(engine) == 90 * MIB, "the engine holds the order")
        assert 200 == ordered.post(ORDER_PATH, CONTROLLER.sign(order(7, "80Mi")))[0]
        held = {"order": {"epoch": EPOCH, "sequence": 7}, "policyGeneration": 7, "policy": "search/retrieval"}
        ordered.until(budgetBytes=80 * MIB, **held)
        eventually(lambda: newest_budget(engine) == 80 * MIB, "the engine holds the next")
        ordered.end(signal.SIGKILL)
    finally:
        engine.kill()
    again = Ordered(ordered.folder)
    try:
        again.until(budgetBytes=80 * MIB, **held)
        replayed = again.post(ORDER_PATH, CONTROLLER.sign(order(6, "90Mi")))
        assert (409, "Older") == (replayed[0], replayed[1]["reason"])
        assert again.post(ORDER_PATH, CONTROLLER.sign(order(7, "80Mi")))[1]["changed"] is False
        report = again.post(REPORT_PATH, CONTROLLER.ask())
        assert (200, 80 * MIB, held["order"]) == (report[0], report[1]["budgetBytes"], report[1]["number"])
    finally:
        assert 0 == again.end()[0]


def test_what_is_no_order_is_refused_at_the_door(ordered: Ordered) -> None:
    """R-S10, faults 93 and 106: sizes, methods, replays, a flood of bad signatures; and metrics count them."""
    cases = [
        ordered.over_port("GET", ORDER_PATH),
        ordered.over_port("PUT", REPORT_PATH),
        ordered.over_port("POST", "/v1/actions", b"{}"),
        ordered.post(ORDER_PATH, Signed("", "", b"")),
        ordered.post(ORDER_PATH, CONTROLLER.sign(b" " * 300 * 1024)),
        ordered.post(ORDER_PATH, CONTROLLER.ask()),
        ordered.post(REPORT_PATH, CONTROLLER.sign(order(1))),
    ]
    assert [405, 405, 404, 401, 413, 401, 401] == [status for status, _ in cases]
    bad = CONTROLLER.sign(order(1))._replace(body=b"{}")
    eventually(lambda: ordered.post(ORDER_PATH, bad)[0] == 429, "the flood is braked")
    eventually(lambda: ordered.post(ORDER_PATH, CONTROLLER.sign(order(1)))[0] == 200, "the second is over")
    counted: bytes = ordered.over_port("GET", "/metrics")[1]
    lines = counted.decode().splitlines()
    assert {
        'membudget_orders_total{answer="TooLarge"} 1.0',
        'membudget_orders_total{answer="UnknownKey"} 1.0',
        'membudget_orders_total{answer="Accepted"} 1.0',
    } <= set(lines)
    figures = dict(line.split() for line in lines if not line.startswith("#") and "{" not in line)
    assert float(figures["membudget_bad_signatures_total"]) >= 5
    assert 0 <= float(figures["membudget_order_age_seconds"]) < 60
    assert "Traceback" not in ordered.log()


def test_a_body_that_breaks_off_or_never_ends_is_no_order(ordered: Ordered) -> None:
    """Faults 106 and 107: chunks without end are cut at 256 kB; a sender that goes away leaves nothing behind."""
    head = f"POST {ORDER_PATH} HTTP/1.1\r\nHost: pod\r\n"
    with socket.create_connection(("127.0.0.1", ordered.port), timeout=5) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nhalf".encode())
    with socket.create_connection(("127.0.0.1", ordered.port), timeout=5) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
        connection.sendall(chunk * 33)  # 264 kB, and no end
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert 200 == ordered.post(ORDER_PATH, CONTROLLER.sign(order(1)))[0]
    assert "Traceback" not in ordered.log()


def test_keys_that_are_mounted_later_let_orders_in(ordered: Ordered) -> None:
    """R-P08: no restart."""
    (ordered.folder / "keys" / CONTROLLER.key_id).unlink()
    pending = ordered.post(ORDER_PATH, CONTROLLER.sign(order(1)))
    CONTROLLER.publish(ordered.folder / "keys")
    assert (401, "NoKeys") == (pending[0], pending[1]["reason"])
    assert 200 == ordered.post(ORDER_PATH, CONTROLLER.sign(order(1)))[0]


def test_file_mode_has_no_door_for_orders(folder: Path) -> None:
    """R-S10: nothing listens for what nothing could verify."""
    started = Started(folder)
    try:
        started.until(engine="WaitingForEngine", order=None, policyGeneration=None)
        connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=5)
        connection.request("POST", ORDER_PATH, b"{}")
        assert 404 == connection.getresponse().status
        connection.close()
    finally:
        started.end()


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and message of a sidecar that cannot start."""
    started = Started(folder, *arguments)
    return started.process.wait(timeout=10), started.log()


def test_a_policy_file_and_keys_exclude_each_other(folder: Path) -> None:
    """Design, MemoryPolicy: only one may say what holds; exit code 2."""
    code, errors = refused(folder, "--policy", "policy.yaml", "--keys", "keys")
    assert (2, True) == (code, "not allowed with argument" in errors)


@pytest.mark.parametrize("variable", POD_ENVIRONMENT)
def test_a_pod_that_does_not_know_who_it_is_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """R-P08: one clear line that names the variable, exit code 1."""
    monkeypatch.delenv(variable)
    code, errors = refused(folder, "--keys", str(folder / "keys"))
    assert (1, 1) == (code, errors.count("\n"))
    assert errors.startswith(f"membudget-sidecar: {variable}: is missing")
