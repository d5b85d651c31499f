"""The server under handlers that wait, fail or never return: the others are served, and it ends in time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from membudget_sidecar.errors import QueueFull, Refused
from membudget_sidecar.serving.answers import Answer, text_answer
from membudget_sidecar.serving.http_server import MAX_CONNECTIONS, HttpServer
from membudget_sidecar.serving.listeners import unix_socket
from membudget_sidecar.serving.routing import Request, Route, Routes
from membudget_sidecar.serving.waiting_handlers import MAX_WAITING
from sidecar.exchanged import Answered, parsed
from sidecar.fake_engine import eventually
from sidecar.raw_peer import received


class Served:
    """A server of a few routes in a thread of its own; `gate` lets those on `/waits` go on."""

    def __init__(self, path: Path) -> None:
        self.gate = threading.Event()
        self.entered = 0
        self._path = path
        self._routes = Routes(
            [
                Route("GET", "/now", lambda _request: text_answer(200, "now")),
                Route("POST", "/waits", self._wait, waits=True),
                Route("GET", "/fails", self._fail),
                Route("GET", "/named/{name}", lambda request: text_answer(200, request.parameter)),
                Route("GET", "/asked", lambda request: text_answer(200, repr(dict(request.query)))),
                Route("GET", "/full", _full),
                Route("GET", "/refused", _refused),
            ]
        )

    @contextlib.contextmanager
    def running(self) -> Generator[HttpServer]:
        """Ends within 3 s, whatever hangs: 1 s is for answers."""
        with unix_socket(self._path) as listening:
            server = HttpServer([(listening, self._routes)])
            thread = threading.Thread(target=server.serve)
            thread.start()
            try:
                yield server
            finally:
                server.stop()
                thread.join(3.0)
                ended = not thread.is_alive()
                self.gate.set()
                thread.join()
            assert ended, "the server did not end"

    def connect(self, request: str) -> socket.socket:
        """A connection on which that was asked."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(5.0)
        connection.connect(str(self._path))
        connection.sendall(f"{request} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        return connection

    def ask(self, request: str) -> Answered:
        """One request and its answer."""
        with self.connect(request) as connection:
            return parsed(received(connection))

    def _wait(self, _request: Request) -> Answer:
        self.entered += 1
        self.gate.wait(60)
        return text_answer(200, "waited")

    def _fail(self, _request: Request) -> Answer:
        raise ZeroDivisionError("a defect")


def _full(_request: Request) -> Answer:
    raise QueueFull("64 wait")


def _refused(_request: Request) -> Answer:
    raise Refused(409, "Older", "a newer one holds")


@pytest.fixture
def served(tmp_path: Path) -> Generator[Served]:
    """Running, and ended after the test."""
    made = Served(tmp_path / "socket")
    with made.running():
        yield made


def test_a_handler_that_waits_does_not_hold_the_others(served: Served) -> None:
    """R-S10: an order waits for the disk; a scrape does not."""
    with served.connect("POST /waits") as waiting:
        eventually(lambda: served.entered == 1, "it waits")
        assert b"now" == served.ask("GET /now").body
        served.gate.set()
        assert b"waited" == parsed(received(waiting)).body


def test_more_than_a_few_that_wait_are_told_to_come_again(served: Served) -> None:
    """R-S10, fault 111: a disk that hangs does not take all connections."""
    waiting = [served.connect("POST /waits")]
    eventually(lambda: served.entered == 1, "the first is in work")
    waiting += [served.connect("POST /waits") for _ in range(MAX_WAITING)]
    refused = served.ask("POST /waits")
    assert (503, "Busy", "1") == (refused.status, refused.json["reason"], refused.headers["retry-after"])
    assert 200 == served.ask("GET /now").status
    served.gate.set()
    answers = [parsed(received(connection)).status for connection in waiting]
    for connection in waiting:
        connection.close()
    assert [200] * (MAX_WAITING + 1) == answers


def test_those_that_wait_keep_their_connection_in_a_flood(served: Served) -> None:
    """R-S10, fault 111: what is being answered never gives way."""
    with contextlib.ExitStack() as open_ones:
        waiting = open_ones.enter_context(served.connect("POST /waits"))
        eventually(lambda: served.entered == 1, "it waits")
        for _ in range(MAX_CONNECTIONS * 2):
            silent = open_ones.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            silent.connect(waiting.getpeername())
        assert 200 == served.ask("GET /now").status
        served.gate.set()
        assert 200 == parsed(received(waiting)).status


def test_the_server_ends_beside_a_handler_that_never_does(tmp_path: Path) -> None:
    """R-S12: its connection is closed, and nobody is kept waiting."""
    served = Served(tmp_path / "socket")
    with served.running():
        waiting = served.connect("POST /waits")
        eventually(lambda: served.entered == 1, "it waits")
    with waiting:
        assert b"" == received(waiting)


def test_ending_closes_unfinished_ones_at_once_and_lets_answers_out(tmp_path: Path) -> None:
    """R-S12: the half-sent request ends while the one that is being answered still waits, and then has its answer."""
    served = Served(tmp_path / "socket")
    with served.running() as server, served.connect("POST /waits") as waiting:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unfinished:
            unfinished.settimeout(5.0)
            unfinished.connect(waiting.getpeername())
            unfinished.sendall(b"POST /wai")
            eventually(lambda: served.entered == 1, "the other waits")
            server.stop()
            assert b"" == unfinished.recv(1)
        served.gate.set()
        assert 200 == parsed(received(waiting)).status


def test_a_defect_in_a_handler_is_a_500_and_a_line_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """R-S09: the reason stays here, and the service goes on."""
    answered = served.ask("GET /fails")
    assert (500, "Defect") == (answered.status, answered.json["reason"])
    assert ["a handler failed"] == [record.message for record in caplog.records]
    assert b"a defect" not in answered.body.replace(b"a defect of the sidecar", b"")
    assert 200 == served.ask("GET /now").status


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("GET /named/a.b_c~d-1", (200, b"a.b_c~d-1")),
        ("GET /asked?limit=10&kind=Trim", (200, b"{'limit': '10', 'kind': 'Trim'}")),
        ("GET /asked?a=%C3%A9+b&c=", (200, "{'a': 'é b', 'c': ''}".encode())),
    ],
)
def test_a_route_gets_its_parameter_and_the_query(served: Served, request_: str, expected: tuple[int, bytes]) -> None:
    """R-S09: the parameter as it was sent, the query with its escapes resolved."""
    answered = served.ask(request_)
    assert expected == (answered.status, answered.body)


@pytest.mark.parametrize(
    ("request_", "expected"), [("GET /full", (503, "QueueFull", "1")), ("GET /refused", (409, "Older", None))]
)
def test_what_a_handler_raises_is_said_in_problem_json(
    served: Served, request_: str, expected: tuple[int, str, str | None]
) -> None:
    """R-S09: with the word for programs; what can be tried again says when."""
    answered = served.ask(request_)
    assert expected == (answered.status, answered.json["reason"], answered.headers.get("retry-after"))
