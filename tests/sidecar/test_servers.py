"""The sidecar as a process: what a person starts, signals, kills and starts again (R-S12, fault 40)."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from membudget_contract.control_api import BUDGETS_PATH
from membudget_sidecar.plans.plan_keeper import KEPT_PLAN
from memory_cgroup import require
from sidecar.exchanged import Answered, parsed
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import policy_text
from sidecar.raw_peer import Peer, received
from sidecar.sidecar_process import Started

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a policy of 100Mi in it."""
    (tmp_path / "policy.yaml").write_text(policy_text())
    return tmp_path


@pytest.fixture
def started(folder: Path) -> Generator[Started]:
    """A sidecar that follows the policy file."""
    made = Started(folder, "--policy", str(folder / "policy.yaml"))
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def test_it_starts_before_the_engine_and_takes_the_policy_to_it(started: Started) -> None:
    """R-S12: waiting, then connected, then the engine holds the plan of the file, and that of its next edit."""
    started.until(engine="WaitingForEngine", policy="by-hand", budgetBytes=100 * MIB)
    engine = FakeEngine(started.folder).start()
    try:
        started.until(engine="Connected", enginePid=engine.pid)
        eventually(lambda: len(engine.requests(BUDGETS_PATH)) == 1, "the plan is held")
        started.policy.write_text(policy_text("90Mi"))
        started.until(budgetBytes=90 * MIB)
        eventually(lambda: engine.requests(BUDGETS_PATH)[-1]["totalBytes"] == 90 * MIB, "the new plan is held")
    finally:
        engine.kill()


def test_sighup_reads_a_policy_that_did_not_change(started: Started) -> None:
    """R-S12: as an operator expects of any daemon."""
    started.until(policy="by-hand")
    for times in (2, 3):
        started.process.send_signal(signal.SIGHUP)
        eventually(lambda times=times: started.log().count("took ") == times, "the policy is read again")


def test_sigterm_exits_0_and_takes_the_socket_along(started: Started) -> None:
    """R-S12: and writes no traceback."""
    started.until(engine="WaitingForEngine")
    code, errors = started.end()
    assert (0, False, False) == (code, (started.folder / "sidecar.sock").exists(), "Traceback" in errors)


def test_sigterm_beside_a_frozen_engine_exits_0_in_time(started: Started) -> None:
    """Fault 43: an action under way does not hold the sidecar."""
    engine = FakeEngine(started.folder).start()
    try:
        started.until(engine="Connected")
        with engine.frozen():
            started.ask("POST", "/v1/actions", {"kind": "Trim"})
            code, errors = started.end()
        assert (0, False) == (code, "Traceback" in errors)
    finally:
        engine.kill()


def test_the_socket_is_for_its_own_user_and_group(started: Started) -> None:
    """R-S09: 0660."""
    started.until(engine="WaitingForEngine")
    assert 0o660 == stat.S_IMODE((started.folder / "sidecar.sock").stat().st_mode)


def test_the_network_side_has_metrics_and_nothing_that_writes(started: Started) -> None:
    """R-S10: over the real port."""
    started.until(policy="by-hand")
    answers: list[tuple[int, bytes]] = []
    for method, path in (("GET", "/metrics"), ("GET", "/readyz"), ("POST", "/v1/actions")):
        connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=5)
        connection.request(method, path)
        response = connection.getresponse()
        answers.append((response.status, response.read()))
        connection.close()
    assert [200, 200, 404] == [code for code, _ in answers]
    assert b"membudget_budget_bytes 104857600.0" in answers[0][1]


def test_hanging_connections_do_not_hold_its_end(started: Started) -> None:
    """R-S12: 2 s, with heads and bodies that never end on both faces."""
    started.until(engine="WaitingForEngine")
    peer = Peer(started)
    hanging = [peer.connect(face) for face in ("local", "network") for _ in range(20)]
    for connection in hanging[::2]:
        connection.sendall(b"POST /v1/actions HTTP/1.1\r\nHost: pod\r\nContent-Length: 10\r\n\r\nhalf")
    started.process.send_signal(signal.SIGINT)
    code = started.process.wait(timeout=2)
    for connection in hanging:
        connection.close()
    assert (0, False) == (code, "Traceback" in started.log())


def test_a_stopped_loop_is_seen_by_the_probe(started: Started) -> None:
    """R-S10: while it looks, the process is healthy; the rest is `test_a_loop_that_is_stuck_or_dead_is_not_healthy`."""
    started.until(engine="WaitingForEngine")
    answered = parsed(Peer(started).send("network", b"GET /healthz HTTP/1.1\r\nHost: pod\r\n\r\n"))
    assert (200, b"ok\n") == (answered.status, answered.body)


@contextlib.contextmanager
def as_nobody() -> Generator[None]:
    """The kernel takes the effective uid of the moment in which a connection is made."""
    require(os.geteuid() == 0, "only root can become another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_another_user_who_was_let_in_may_read_and_not_write(folder: Path) -> None:
    """R-S09: as uid 65534 on a socket that was opened to everybody; the kernel says who it is."""
    with tempfile.TemporaryDirectory() as run:  # unlike the test's own folder, it can be opened to others
        started = Started(Path(run), "--policy", str(folder / "policy.yaml"))
        try:
            started.until(policy="by-hand")
            Path(run).chmod(0o755)
            (Path(run) / "sidecar.sock").chmod(0o666)
            answers: list[Answered] = []
            for asked in (b"GET /v1/status", b"POST /v1/reload"):
                with as_nobody():
                    connection = Peer(started).connect("local")
                with connection:
                    connection.sendall(asked + b" HTTP/1.1\r\nHost: sidecar\r\n\r\n")
                    answers.append(parsed(received(connection)))
            assert [200, 403] == [answered.status for answered in answers]
            assert "only uid 0, the sidecar's own, may write here; this is uid 65534" == answers[1].json["detail"]
            assert 202 == started.ask("POST", "/v1/reload")[0]
        finally:
            started.end()


def test_on_request_the_local_api_is_read_on_loopback(folder: Path) -> None:
    """R-S09: by its own names only, and nothing is written there; without the option nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = Started(folder, "--policy", str(folder / "policy.yaml"), "--api-port", str(port))
    try:
        started.until(policy="by-hand")
        asked = [("GET", "/v1/status", f"127.0.0.1:{port}"), ("GET", "/v1/status", "evil.example")]
        asked += [("POST", "/v1/reload", f"localhost:{port}"), ("GET", "/metrics", f"localhost:{port}")]
        codes: list[int] = []
        for method, path, host in asked:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                codes.append(parsed(received(connection)).status)
        assert [200, 403, 403, 404] == codes
    finally:
        started.end()


def test_killed_and_started_again_it_goes_on_with_its_last_plan(started: Started) -> None:
    """Fault 40, guarantee 5: also with the policy file gone, and over the socket file that was left behind."""
    started.until(budgetBytes=100 * MIB)
    eventually((started.folder / "state" / KEPT_PLAN).exists, "the plan is kept")
    started.end(signal.SIGKILL)
    assert (started.folder / "sidecar.sock").exists()
    started.policy.unlink()
    again = Started(started.folder, "--policy", str(started.policy))
    try:
        again.until(budgetBytes=100 * MIB, policy="by-hand")
        eventually(lambda: "cannot be read" in (again.status()["policyProblem"] or ""), "the reason is said")
    finally:
        again.end()


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and message of a sidecar that cannot start."""
    started = Started(folder, *arguments)
    return started.process.wait(timeout=10), started.log()


def test_a_port_in_use_is_one_clear_line(folder: Path) -> None:
    """R-S12: exit code 1, the address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = refused(folder, "--port", str(port))
    assert (1, 1) == (code, errors.count("\n"))
    assert errors.startswith(f"membudget-sidecar: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert errors.endswith("choose another with --host and --port\n")


def test_a_second_sidecar_for_the_same_engine_is_refused(started: Started) -> None:
    """Design, ladder: two would order against each other; the first keeps its socket."""
    started.until(engine="WaitingForEngine")
    code, errors = refused(started.folder)
    assert (1, 1) == (code, errors.count("\n"))
    assert f"another sidecar serves {started.folder}/sidecar.sock" in errors
    started.until(engine="WaitingForEngine")


@pytest.mark.parametrize(
    ("variable", "value"), [("MEMBUDGET_TOTAL", "a lot"), ("MEMBUDGET_SAMPLING_INTERVAL_SECONDS", "0")]
)
def test_an_environment_that_cannot_be_read_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """R-P05: exit code 1 and the variable's name."""
    monkeypatch.setenv(variable, value)
    code, errors = refused(folder)
    assert (1, 1) == (code, errors.count("\n"))
    assert errors.startswith(f"membudget-sidecar: {variable}: ")


def test_a_folder_that_cannot_be_made_is_one_clear_line(folder: Path) -> None:
    """R-S12: exit code 1 and the path."""
    (folder / "state").write_text("a file where the folder should be")
    code, errors = refused(folder)
    assert (1, 1) == (code, errors.count("\n"))
    assert os.fspath(folder / "state") in errors
