import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from membudget_contract.control_api import (
    BUDGETS_PATH,
    FREE_PATH,
    REPORT_PATH,
    ROOM_PATH,
    Accepted,
    AllocationRequest,
    Allocations,
    Budgets,
    Freed,
    FreeRequest,
    Granted,
    Means,
    Persisted,
    Problem,
    Released,
    Reloaded,
    Report,
    Room,
    Track,
    Tracked,
    TrackedList,
)
from membudget_contract.plan import Message
from membudget_contract.policy import Priority
from membudget_runtime.component import Ranking, Removed
from membudget_runtime.control_routes import StillAsked
from membudget_runtime.control_server import CONNECTIONS, MAX_BODY_BYTES, ControlServer
from membudget_runtime.errors import AlreadyServed
from membudget_runtime.interpreter.leak_detector import LeakDetector
from membudget_runtime.limiter import AllocationLimiter
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.persistence import Persistence
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.reloads import Reloads
from membudget_runtime.report import report
from membudget_runtime.tracking import TrackedAllocations
from memory_cgroup import require
from runtime.fakes import MB, NOTHING_COLLECTED, Pile, budgets_with, ledger_of, start

NOBODY = 65534
BUDGETS = start()
TYPES: tuple[type[Report | Freed | Accepted], ...] = (Report, Freed, Accepted, Freed)


class Service:
    """Notes what it is asked; an eviction can be made to take until it is released, or to fail."""

    def __init__(self) -> None:
        self.ledger, _ = ledger_of(Pile("index", {"low": 10}), ceilings={"working": 100})
        self.reclaimer = Reclaimer(self.ledger, BUDGETS)
        self.limiter = AllocationLimiter(self.ledger, time.monotonic, ceiling_bytes=200)
        self.tracking = TrackedAllocations(self.ledger)
        self.leaks = LeakDetector(
            read_bytes=lambda: None, trim=self.ledger.trim, uninterrupted=contextlib.nullcontext, clock=time.monotonic
        )
        self.reloads = Reloads()
        self.persistence = Persistence(Path("/nowhere"), time.time)
        self.asked: list[Message] = []
        self.entered = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def report(self) -> Report:
        """As the runtime does."""
        return report(self.ledger, NOTHING_COLLECTED)

    def apply(self, budgets: Budgets, still_asked: StillAsked) -> Freed:
        """Noted; bounds stay."""
        del still_asked
        self.asked.append(budgets)
        return self.reclaimer.free(FreeRequest(means=Means.TRIM, target_bytes=0))

    def tell_room(self, room: Room) -> Accepted:
        """Noted."""
        self.asked.append(room)
        return Accepted()

    def free(self, request: FreeRequest, still_asked: StillAsked) -> Freed:
        """Waits until it may go on; a negative target is what it cannot do."""
        del still_asked
        self.asked.append(request)
        self.entered.release()
        self.may_go_on.wait()
        if request.target_bytes < 0:
            raise ArithmeticError("less than nothing")
        return self.reclaimer.free(request)

    def reload(self) -> Reloaded:
        """As the runtime does, without observers."""
        return self.reloads.run()

    def persist(self) -> Persisted:
        """As the runtime does, with nothing to persist."""
        return self.persistence.persist()

    def allocate(self, asked: AllocationRequest) -> Granted:
        """As the runtime does."""
        return self.limiter.request(asked)

    def release_allocation(self, grant_id: str) -> Released:
        """As the runtime does."""
        return self.limiter.release(grant_id)

    def allocations(self) -> Allocations:
        """As the runtime does."""
        return self.limiter.listing()

    def track(self, told: Track) -> Tracked:
        """As the runtime does."""
        return self.tracking.track(told)

    def release_tracked(self, tracked_id: str) -> Released:
        """As the runtime does."""
        return self.tracking.release(tracked_id)

    def tracked(self) -> TrackedList:
        """As the runtime does."""
        return self.tracking.listing()


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        """To the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request: status and body; a refusal may come before all of the body went."""
        with contextlib.suppress(BrokenPipeError):
            self.request(method, path, body)
        answer = self.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def folder() -> Generator[Path]:
    """Reachable for every user, and short: a socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def service() -> Service:
    """What the server calls."""
    return Service()


@pytest.fixture
def served(folder: Path, service: Service) -> Generator[Path]:
    """The path of a served socket."""
    server = ControlServer(folder / "engine.sock", service)
    yield folder / "engine.sock"
    service.may_go_on.set()
    server.close()


@pytest.fixture
def connection(served: Path) -> Generator[Connection]:
    """One to the served socket."""
    with contextlib.closing(Connection(served)) as opened:
        yield opened


def test_every_path_answers_its_message_on_one_connection(connection: Connection, service: Service) -> None:
    """R-E10: the four paths of the contract."""
    free, room, told = FreeRequest(means=Means.EVICT, target_bytes=4), Room(room_bytes=7), service.report()
    answers = [
        connection.ask("GET", REPORT_PATH),
        connection.ask("PUT", BUDGETS_PATH, msgspec.json.encode(BUDGETS)),
        connection.ask("PUT", ROOM_PATH, msgspec.json.encode(room)),
        connection.ask("POST", FREE_PATH, msgspec.json.encode(free)),
    ]
    bodies = [msgspec.json.decode(body, type=kind) for (_, body), kind in zip(answers, TYPES, strict=True)]
    assert ([status for status, _ in answers], service.asked) == ([200] * 4, [BUDGETS, room, free])
    assert isinstance(bodies[0], Report)
    assert isinstance(bodies[3], Freed)
    assert (bodies[0].pid, bodies[0].components) == (os.getpid(), told.components)
    assert (bodies[3].owned_before_bytes, bodies[3].owned_after_bytes) == (10, 6)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/v2/report", b"", 404, "NotFound"),
        ("PUT", "/v1/nothing", b"a body that is no request", 404, "NotFound"),
        ("POST", REPORT_PATH, b"", 404, "NotFound"),
        ("PUT", ROOM_PATH, b"", 400, "Invalid"),
        ("PUT", ROOM_PATH, b'{"roomBytes": "much"}', 400, "Invalid"),
        ("PUT", ROOM_PATH, b"[" * 100_000, 400, "Invalid"),
        ("PUT", ROOM_PATH, b"\xff\xfe", 400, "Invalid"),
        ("POST", FREE_PATH, b'{"means": "Pray", "targetBytes": 1}', 400, "Invalid"),
        ("POST", FREE_PATH, b'{"means": "Evict", "targetBytes": -1}', 500, "ArithmeticError"),
        ("DELETE", ROOM_PATH, b"", 501, "Invalid"),
    ],
)
def test_what_cannot_be_done_is_answered_as_a_problem_and_the_next_request_works(
    connection: Connection, method: str, path: str, body: bytes, status: int, reason: str
) -> None:
    """R-E10: with a reason for programs; a body that was not read is never taken for a request."""
    found, answer = connection.ask(method, path, body)
    problem = msgspec.json.decode(answer, type=Problem)
    assert (found, problem.status, problem.reason) == (status, status, reason)
    assert connection.ask("GET", REPORT_PATH)[0] == 200


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "9" * 30, "-1", "many"])
def test_a_body_too_large_is_refused_unread(connection: Connection, length: str) -> None:
    """R-E10: by its header."""
    connection.putrequest("PUT", ROOM_PATH)
    connection.putheader("Content-Length", length)
    connection.endheaders()
    answer = connection.getresponse()
    assert msgspec.json.decode(answer.read(), type=Problem).reason == "TooLarge"
    assert (answer.status, connection.ask("GET", REPORT_PATH)[0]) == (413, 200)


def test_a_line_that_is_no_http_is_refused(served: Path) -> None:
    """R-E10: and the server goes on."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served))
        raw.sendall(b"\x16\x03\x01 hello there general\r\n\r\n")
        raw.settimeout(20)
        assert b"Invalid" in raw.makefile("rb").read()
    with contextlib.closing(Connection(served)) as opened:
        assert opened.ask("GET", REPORT_PATH)[0] == 200


def test_another_user_is_refused_even_where_the_file_lets_them_in(served: Path) -> None:
    """R-E10: budgets are moved by the own uid and by root."""
    require(os.geteuid() == 0, "becoming another user needs root")
    served.chmod(0o666)
    attempt = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1))"
    # The system's interpreter: the one of a virtual environment may lie where nobody may look.
    argv = [shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable, "-c", attempt, str(served)]
    run = subprocess.run(
        argv, user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE, timeout=20, check=True
    )
    assert (run.returncode, run.stdout) == (0, b"b''\n")


def test_the_socket_is_closed_to_others(served: Path) -> None:
    """R-E10: 0660."""
    assert served.stat().st_mode & 0o777 == 0o660


def test_a_second_server_is_refused_and_the_first_goes_on(served: Path, connection: Connection) -> None:
    """R-E10: one process per control socket."""
    with pytest.raises(AlreadyServed, match=f"another process serves {served};"):
        ControlServer(served, Service())
    assert connection.ask("GET", REPORT_PATH)[0] == 200


def test_the_socket_of_a_killed_process_is_taken_over(folder: Path) -> None:
    """R-E10: a stale file never stands in the way."""
    code = (
        "import pathlib, sys, time\nfrom membudget_runtime.memory_runtime import MemoryRuntime\n"
        "folder = pathlib.Path(sys.argv[1])\nruntime = MemoryRuntime(folder, {})\n"
        "runtime.serve(folder / 'engine.sock')\nprint('serving', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert (folder / "engine.sock").is_socket()
    server = ControlServer(folder / "engine.sock", Service())
    with contextlib.closing(Connection(folder / "engine.sock")) as opened:
        assert opened.ask("GET", REPORT_PATH)[0] == 200
    server.close()


def test_a_socket_that_cannot_be_made_leaves_no_lock(folder: Path) -> None:
    """R-E10: the next attempt meets the same error, not its own lock."""
    path = folder / ("x" * 200)
    for _ in range(2):
        with pytest.raises(OSError, match="too long"):
            ControlServer(path, Service())


def test_idle_connections_give_way_to_a_new_one(served: Path, connection: Connection) -> None:
    """R-E10: a client that holds every connection open keeps no sidecar out."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2 * CONNECTIONS)]
        for one in idle:
            one.connect(str(served))
        assert connection.ask("GET", REPORT_PATH)[0] == 200
        idle[0].settimeout(20)
        assert idle[0].recv(1) == b""


def test_a_request_in_work_never_gives_way(served: Path, service: Service) -> None:
    """R-E10: with all connections at work the next one is refused, and all answers come."""
    service.may_go_on.clear()
    statuses: list[int] = []

    def act() -> None:
        with contextlib.closing(Connection(served)) as opened:
            body = msgspec.json.encode(FreeRequest(means=Means.EVICT, target_bytes=0))
            statuses.append(opened.ask("POST", FREE_PATH, body)[0])

    threads = [threading.Thread(target=act) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
        assert service.entered.acquire(timeout=20)
    with contextlib.closing(Connection(served)) as refused, pytest.raises(ConnectionError):
        refused.ask("GET", REPORT_PATH)
    service.may_go_on.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * CONNECTIONS


class SlowDisk(Pile):
    """Its spill waits, without the ledger's lock, until it may go on."""

    def __init__(self) -> None:
        super().__init__("index", {"low": 100 * MB})
        self.entered = threading.Semaphore(0)
        self.may_go_on = threading.Event()

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Nothing, slowly."""
        del target_bytes, priority, ranking
        self.entered.release()
        self.may_go_on.wait(20)
        return Removed()


@pytest.fixture
def slow(folder: Path) -> Generator[tuple[Path, SlowDisk, MemoryRuntime]]:
    """A real runtime whose spill takes until it may go on."""
    runtime, disk = MemoryRuntime(folder, {}), SlowDisk()
    runtime.ledger.register(disk)
    runtime.serve(folder / "engine.sock")
    yield folder / "engine.sock", disk, runtime
    disk.may_go_on.set()
    runtime.close()


ORDERS = {
    "Evict": ("POST", FREE_PATH, FreeRequest(means=Means.EVICT, target_bytes=10 * MB)),
    "Resize": ("PUT", BUDGETS_PATH, msgspec.structs.replace(budgets_with({"index": 90 * MB}), plan_hash="late")),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("given_up", "held"), [(True, 100 * MB), (False, 90 * MB)])
def test_an_action_whose_asker_gave_up_while_it_waited_for_its_turn_is_not_carried_out(
    slow: tuple[Path, SlowDisk, MemoryRuntime], order: str, given_up: bool, held: int
) -> None:
    """R-E10: the next request, of one who only ended its sending side, is."""
    path, disk, runtime = slow
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(Connection(path)))
        first.request("POST", FREE_PATH, msgspec.json.encode(FreeRequest(means=Means.SPILL, target_bytes=1)))
        assert disk.entered.acquire(timeout=20)
        method, target, message = ORDERS[order]
        second = stack.enter_context(contextlib.closing(Connection(path)))
        second.request(method, target, msgspec.json.encode(message))
        time.sleep(0.2)  # it waits behind the first
        if given_up:
            second.close()
        else:
            second.sock.shutdown(socket.SHUT_WR)
        disk.may_go_on.set()
        statuses = [waiting.getresponse().status for waiting in (first, second) if waiting.sock]
        last = stack.enter_context(contextlib.closing(Connection(path)))
        trim = msgspec.json.encode(FreeRequest(means=Means.TRIM, target_bytes=0))
        statuses.append(last.ask("POST", FREE_PATH, trim)[0])
    kept_hash = runtime.report().plan_hash
    assert (statuses, disk.owned_bytes()) == ([200] * (2 if given_up else 3), held)
    assert (kept_hash == "late") == (order == "Resize" and not given_up)


FROZEN = """
import pathlib, sys
from membudget_runtime.memory_runtime import MemoryRuntime
folder = pathlib.Path(sys.argv[1])
runtime = MemoryRuntime(folder, {})
cache = runtime.cache("semanticCache", ttl_seconds=60.0)
for key in range(500):
    cache.put(key, bytes([key % 256]) * 1000)
runtime.serve(folder / "engine.sock")
print("serving", flush=True)
sys.stdin.readline()
"""


def test_a_frozen_engine_does_not_carry_out_what_timed_out_meanwhile(folder: Path) -> None:
    """R-E10: fault 43: three evictions and a room, given up before the engine goes on."""
    path, argv = folder / "engine.sock", [sys.executable, "-c", FROZEN, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        evict = msgspec.json.encode(FreeRequest(means=Means.EVICT, target_bytes=100_000))
        room = msgspec.json.encode(Room(room_bytes=1))
        for method, target, body in (*[("POST", FREE_PATH, evict)] * 3, ("PUT", ROOM_PATH, room)):
            with contextlib.closing(Connection(path)) as given_up:
                given_up.request(method, target, body)
        process.send_signal(signal.SIGCONT)
        with contextlib.closing(Connection(path)) as asking:
            for _ in range(20):
                time.sleep(0.02)
                told = msgspec.json.decode(asking.ask("GET", REPORT_PATH)[1], type=Report)
                assert ([part.entries for part in told.components], (told.room_bytes or 0) > 1) == ([500], True)
        process.stdin.write(b"\n")


def test_a_closed_server_answers_no_more_and_leaves_no_socket(folder: Path) -> None:
    """R-E10: open connections end too."""
    path = folder / "engine.sock"
    server = ControlServer(path, Service())
    with contextlib.closing(Connection(path)) as opened:
        before = opened.ask("GET", REPORT_PATH)[0]
        server.close()
        assert (before, path.exists()) == (200, False)
        with pytest.raises(ConnectionError):
            opened.ask("GET", REPORT_PATH)
