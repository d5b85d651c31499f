"""The local API answers with the contract's messages and refuses in problem+json; the network face changes nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from membudget_contract.control_api import FREE_PATH
from membudget_contract.plan import plan_hash
from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.acting.actions import WAITING
from membudget_sidecar.serving.api import local_api, loopback_api
from membudget_sidecar.serving.collector import SidecarCollector
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.network_api import STUCK_SECONDS, network_api
from membudget_sidecar.serving.routing import MAX_BODY_BYTES, Routes
from sidecar.exchanged import Answered, exchanged, request
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text

MIB = 1 << 20


@pytest.fixture
def local(sidecar: HandDriven) -> Routes:
    """What the Unix socket serves; the policy is taken, the engine is wherever the test has it."""
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    return local_api(Served(sidecar.loop, None, sidecar.settings), own_uid=os.getuid())


def posted(application: Routes, path: str, message: dict[str, Any] | bytes) -> Answered:
    """A POST with a JSON body."""
    return request(application, "POST", path, message if isinstance(message, bytes) else json.dumps(message).encode())


def refusal(answered: Answered) -> tuple[int, str]:
    """Status and reason of a problem; fails when the answer is none."""
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.json["status"] == answered.status
    assert answered.json["detail"]
    return answered.status, answered.json["reason"]


def test_status_before_the_engine_is_honest(local: Routes, sidecar: HandDriven) -> None:
    """R-S09, guarantee 4: what is not known is absent with the reason, never 0."""
    sidecar.tick()
    status = request(local, "GET", "/v1/status").json
    assert ("WaitingForEngine", None, None) == (status["engine"], status["enginePid"], status["roomBytes"])
    assert {"value": None, "source": None, "absent": "no engine was seen yet"} == status["usage"]
    assert (100 * MIB, "by-hand", None) == (status["budgetBytes"], status["policy"], status["policyProblem"])


def test_status_beside_an_engine_names_figures_and_sources(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09, R-S01: usage with the file it was read from, components as reported."""
    engine.hold_managed(5 * MIB)
    sidecar.tick()
    status = request(local, "GET", "/v1/status").json
    assert ("Connected", engine.pid, "Enforce", "Normal") == (
        status["engine"],
        status["enginePid"],
        status["mode"],
        status["level"],
    )
    assert status["usage"]["value"] == pytest.approx(engine.resident(), abs=2 * MIB)
    assert f"/proc/{engine.pid}/" in status["usage"]["source"]
    assert [("semanticCache", 5 * MIB)] == [(part["name"], part["ownedBytes"]) for part in status["components"]]
    assert status["historyPeakBytes"] == status["usage"]["value"]


def test_the_plan_is_shown_with_the_layer_of_each_value(local: Routes, sidecar: HandDriven) -> None:
    """R-S09, R-P05: what `explain` shows."""
    sidecar.tick()
    view = request(local, "GET", "/v1/plan").json
    assert plan_hash(sidecar.keeper.effective) == view["planHash"]
    assert ("Policy", "Profile") == (view["plan"]["layers"]["budget.total"], view["plan"]["layers"]["mode"])


def test_an_action_by_hand_is_carried_out_and_can_be_followed(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09: submitted, listed, read by its id with what was measured."""
    engine.hold_managed(20 * MIB)
    sidecar.tick()
    answered = posted(local, "/v1/actions", {"kind": "Evict", "targetBytes": 10 * MIB, "description": "a drill"})
    assert (202, "Queued", "asked by hand: a drill") == (
        answered.status,
        answered.json["status"],
        answered.json["cause"],
    )
    sidecar.settle()
    record = request(local, "GET", f"/v1/actions/{answered.json['id']}").json
    assert (ActionStatus.EFFECTIVE.value, 10 * MIB) == (record["status"], record["ownedAfterBytes"])
    assert record in request(local, "GET", "/v1/actions").json["actions"]


@pytest.mark.parametrize("number", ["0", "999", "-1", "x", "1e3", "9" * 5000, "%00", "²"])
def test_an_action_that_is_not_remembered_is_not_found(local: Routes, number: str) -> None:
    """Fault 112: whatever stands in its place."""
    assert (404, "NotFound") == refusal(request(local, "GET", f"/v1/actions/{number}"))


def test_configure_answers_before_and_after_and_holds_with_the_next_tick(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09, R-P05: previous and new limits, and when it ends."""
    engine.fill_to(40 * MIB)
    sidecar.tick()
    answered = posted(local, "/v1/configure", {"total": "80Mi", "ttlSeconds": 60})
    assert (200, 100 * MIB, 80 * MIB) == (
        answered.status,
        answered.json["previous"]["totalBytes"],
        answered.json["current"]["totalBytes"],
    )
    assert answered.json["expiresAt"] == request(local, "GET", "/v1/status").json["overriddenUntil"]
    assert (422, "BudgetBelowFloor") == refusal(posted(local, "/v1/configure", {"total": "30Mi", "ttlSeconds": 60}))
    assert 80 * MIB == sidecar.keeper.effective.total_bytes


def test_reload_reads_a_policy_that_did_not_change(
    local: Routes, sidecar: HandDriven, caplog: pytest.LogCaptureFixture
) -> None:
    """R-S12: with the next tick, as SIGHUP does."""
    caplog.set_level("INFO")
    sidecar.tick()
    assert 202 == posted(local, "/v1/reload", b"").status
    sidecar.tick()
    assert 2 == sum(record.message.startswith("took ") for record in caplog.records)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/actions", b"", (400, "Invalid")),
        ("/v1/actions", b"{}", (400, "Invalid")),
        ("/v1/actions", b"\xff", (400, "Invalid")),
        ("/v1/actions", b"[" * 60_000, (400, "Invalid")),
        ("/v1/actions", {"kind": "Explode"}, (400, "Invalid")),
        ("/v1/actions", {"kind": "Resize"}, (400, "Invalid")),
        ("/v1/actions", {"kind": "Evict", "targetBytes": -1}, (400, "Invalid")),
        ("/v1/actions", {"kind": "Evict", "targetBytes": 1.5}, (400, "Invalid")),
        ("/v1/actions", {"kind": "Evict", "targetByte": 1}, (400, "Invalid")),
        ("/v1/actions", {"kind": "Evict", "description": "x" * 201}, (400, "Invalid")),
        ("/v1/actions", b" " * (MAX_BODY_BYTES + 1), (413, "TooLarge")),
        ("/v1/configure", {"total": "80Mi"}, (400, "Invalid")),
        ("/v1/configure", {"total": "80Mi", "ttlSeconds": -1}, (400, "Invalid")),
        ("/v1/configure", {"total": "80Mi", "ttlSeconds": 86_401}, (400, "Invalid")),
        ("/v1/configure", {"ttlSeconds": 60}, (400, "Invalid")),
        ("/v1/configure", {"total": "a lot", "ttlSeconds": 60}, (400, "Invalid")),
        ("/v1/configure", {"total": "101Mi", "ttlSeconds": 60}, (422, "LooserThanPlan")),
        ("/v1/configure", {"components": {"nothing": "1Mi"}, "ttlSeconds": 60}, (422, "LooserThanPlan")),
        ("/v1/nothing", b"", (404, "NotFound")),
        ("/v1/status", b"", (405, "MethodNotAllowed")),
    ],
)
def test_what_cannot_be_done_is_refused_in_problem_json(
    local: Routes, sidecar: HandDriven, path: str, body: dict[str, Any] | bytes, expected: tuple[int, str]
) -> None:
    """R-S09, faults 106 to 110: 4xx with a reason a program can read, and nothing changed."""
    sidecar.tick()
    before = sidecar.keeper.effective
    assert expected == refusal(posted(local, path, body))
    assert (before, []) == (sidecar.keeper.effective, sidecar.records())


def test_a_refused_method_names_those_that_are_served(local: Routes) -> None:
    """Fault 112: DELETE on a path that is there."""
    answered = request(local, "DELETE", "/v1/plan")
    assert 405 == answered.status
    assert "GET" in answered.headers["allow"]


def test_a_body_in_many_parts_is_refused_before_it_is_whole(local: Routes) -> None:
    """Fault 106: the limit counts what came, not what was announced."""
    parts = [b" " * 1024] * (MAX_BODY_BYTES // 1024 + 2)
    assert (413, "TooLarge") == refusal(request(local, "POST", "/v1/configure", *parts))


def test_a_full_queue_is_a_503_that_can_be_tried_again(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S04: the 65th action that waits."""
    sidecar.tick()
    sidecar.settle()
    engine.set_mode(FREE_PATH, "hangs")
    posted(local, "/v1/actions", {"kind": "Trim"})
    eventually(lambda: bool(engine.requests(FREE_PATH)), "the first is in work")
    codes = [posted(local, "/v1/actions", {"kind": "Trim"}).status for _ in range(WAITING)]
    assert {202} == set(codes)
    assert (503, "QueueFull") == refusal(posted(local, "/v1/actions", {"kind": "Trim"}))


# --- the network face ---------------------------------------------------------------------------------------------


@pytest.fixture
def network(sidecar: HandDriven) -> Routes:
    """What the pod network sees."""
    return network_api(sidecar.loop, SidecarCollector(sidecar.loop), clock=lambda: sidecar.now)


def test_the_network_sees_metrics_and_probes(network: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S10: ready before the engine and beside it, not while it does not answer."""
    seen = [request(network, "GET", "/readyz")]
    sidecar.tick()
    seen.append(request(network, "GET", "/readyz"))
    engine.kill()
    sidecar.tick(1.0)
    seen.append(request(network, "GET", "/readyz"))
    assert [(200, b"WaitingForEngine\n"), (200, b"Connected\n"), (503, b"Unreachable\n")] == [
        (answered.status, answered.body) for answered in seen
    ]
    assert (200, b"ok\n") == (request(network, "GET", "/healthz").status, request(network, "GET", "/healthz").body)
    assert b"\nmembudget_budget_bytes " in request(network, "GET", "/metrics").body


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["status", "plan", "actions", "actions/1", "configure", "reload"])
def test_the_network_has_no_local_api(network: Routes, method: str, path: str) -> None:
    """R-S09, R-S10: writes exist on the Unix socket only, and so do the reads."""
    assert 404 == request(network, method, f"/v1/{path}").status


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_the_network_can_only_read(network: Routes, path: str) -> None:
    """R-S10: nothing there changes anything."""
    assert [405, 405, 405] == [request(network, method, path).status for method in ("POST", "PUT", "DELETE")]


def test_a_loop_that_is_stuck_or_dead_is_not_healthy(network: Routes, sidecar: HandDriven) -> None:
    """R-S10: 30 s beyond the interval of the plan (10 s), and the reason is said; a look later it is well again."""
    sidecar.tick()
    sidecar.loop.looked_at = sidecar.now
    sidecar.now += STUCK_SECONDS + 10
    late = request(network, "GET", "/healthz").status
    sidecar.now += 1
    stuck = request(network, "GET", "/healthz")
    sidecar.loop.looked_at = sidecar.now
    assert (200, 503, 200) == (late, stuck.status, request(network, "GET", "/healthz").status)
    assert b"the loop is stuck or ended: its last look was 41 s ago\n" == stuck.body


# --- who may ask what ---------------------------------------------------------------------------------------------

WRITES = (("POST", "/v1/actions"), ("POST", "/v1/configure"), ("POST", "/v1/reload"), ("DELETE", "/v1/plan"))
ASKED = "{} {} HTTP/1.1\r\nHost: {}\r\n\r\n"


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("other", [65534, 0, None])
def test_only_the_own_uid_writes(sidecar: HandDriven, method: str, path: str, other: int | None) -> None:
    """R-S09: root is no exception, and neither is a peer that the kernel does not name."""
    routes = local_api(Served(sidecar.loop, None, sidecar.settings), own_uid=1000)
    asked = ASKED.format(method, path, "sidecar").encode()
    refused = exchanged(routes, asked, peer_uid=other)
    assert (403, "NotOwnUid") == refusal(refused)
    assert "only uid 1000" in refused.json["detail"]
    assert 403 != exchanged(routes, asked, peer_uid=1000).status


@pytest.mark.parametrize("path", ["/v1/status", "/v1/plan", "/v1/actions"])
def test_who_may_open_the_socket_may_read(local: Routes, sidecar: HandDriven, path: str) -> None:
    """R-S09: its mode says who that is."""
    sidecar.tick()
    assert 200 == exchanged(local, ASKED.format("GET", path, "sidecar").encode(), peer_uid=65534).status


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_loopback_only_reads(sidecar: HandDriven, method: str, path: str) -> None:
    """R-S09: whoever asks."""
    routes = loopback_api(Served(sidecar.loop, None, sidecar.settings), port=9466)
    answered = exchanged(routes, ASKED.format(method, path, "localhost:9466").encode(), peer_uid=None)
    assert (403, "ReadOnly") == refusal(answered)


@pytest.mark.parametrize("host", ["localhost:9466", "127.0.0.1:9466", "[::1]:9466", "LocalHost:9466"])
def test_loopback_answers_to_its_own_names(sidecar: HandDriven, host: str) -> None:
    """R-S09: with the port, as every client sends it."""
    routes = loopback_api(Served(sidecar.loop, None, sidecar.settings), port=9466)
    assert 200 == exchanged(routes, ASKED.format("GET", "/v1/status", host).encode(), peer_uid=None).status


@pytest.mark.parametrize(
    "host", ["evil.example:9466", "localhost", "localhost:9465", "127.0.0.1.evil.example:9466", ""]
)
def test_loopback_answers_to_no_other_name(sidecar: HandDriven, host: str) -> None:
    """R-S09: a name that a web page had resolved to 127.0.0.1 reads nothing (DNS rebinding)."""
    routes = loopback_api(Served(sidecar.loop, None, sidecar.settings), port=9466)
    answered = exchanged(routes, ASKED.format("GET", "/v1/status", host).encode(), peer_uid=None)
    assert (403, "ForeignHost") == refusal(answered)


@pytest.mark.parametrize("path", ["/v1/status", "/metrics"])
def test_head_is_get_without_the_body(local: Routes, network: Routes, sidecar: HandDriven, path: str) -> None:
    """R-S09: as a monitor probes."""
    sidecar.tick()
    answered = request(local if "status" in path else network, "HEAD", path)
    assert (200, b"") == (answered.status, answered.body)
    assert int(answered.headers["content-length"]) > 100
