"""What people and agents ask one sidecar, beside a fake engine whose memory is real, and beside a real runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from membudget_contract.breakdown_api import Breakdown, PartKind
from membudget_contract.control_api import FREE_PATH, RELOAD_PATH
from membudget_contract.plan import plan_hash
from membudget_sidecar.deciding.alerts import Facts
from membudget_sidecar.deciding.leaks import Holding, LeakRule, Leaks
from membudget_sidecar.serving.api import local_api
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.routing import Routes
from membudget_sidecar.serving.status import rung_views
from sidecar.exchanged import Answered, request
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text
from sidecar.runtime_process import ENTRIES, ENTRY_BYTES, RuntimeProcess

MIB = 1 << 20
WALL_AHEAD = 1e9


@pytest.fixture
def local(sidecar: HandDriven) -> Routes:
    """What the Unix socket serves, by the hand-driven clock."""
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    served = Served(
        sidecar.loop, None, sidecar.settings, clock=lambda: sidecar.now, wall=lambda: WALL_AHEAD + sidecar.now
    )
    return local_api(served, own_uid=os.getuid())


@pytest.fixture
def runtime(tmp_path: Path) -> Generator[RuntimeProcess]:
    """A service that embeds the runtime."""
    with RuntimeProcess(tmp_path) as process:
        yield process


def read(local: Routes, path: str) -> Any:
    """A GET that is answered."""
    answered = request(local, "GET", path)
    assert 200 == answered.status, answered.body
    return answered.json


def posted(local: Routes, path: str, message: dict[str, Any] | None = None) -> Answered:
    """A POST."""
    return request(local, "POST", path, b"" if message is None else json.dumps(message).encode())


def refusal(answered: Answered) -> tuple[int, str]:
    """Status and reason of a problem."""
    assert "application/problem+json" == answered.headers["content-type"]
    return answered.status, answered.json["reason"]


def test_status_has_every_figure_of_the_kernel_or_its_reason(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S01: process, cgroup, pressure, faults, gc; what is absent says why and is no 0."""
    engine.fill_to(40 * MIB)
    sidecar.tick()
    status = read(local, "/v1/status")
    used = status["usage"]["value"]
    assert used / (100 * MIB) == status["pressure"]["value"]
    process = status["process"]
    kinds = sum(process[name]["value"] for name in ("anonymous", "file", "shmem"))
    assert kinds == status["resident"]["value"]
    assert (True, 0) == (process["minorFaults"]["value"] > 0, process["swap"]["value"])
    assert {"collections": 0, "collected": 0}.items() <= status["gc"].items()
    figures = [*process.values(), *(value for name, value in status["cgroup"].items() if name != "version")]
    assert all((figure["value"] is None) == bool(figure["absent"]) for figure in figures)


def test_before_the_engine_every_figure_has_the_same_reason(local: Routes, sidecar: HandDriven) -> None:
    """R-S01, guarantee 4."""
    sidecar.tick()
    status = read(local, "/v1/status")
    reasons = {figure["absent"] for figure in (*status["process"].values(), status["available"], status["pressure"])}
    assert {"no engine was seen yet"} == reasons
    assert (None, None, "no engine was seen yet") == (
        status["gc"],
        status["cgroup"]["version"],
        status["cgroup"]["stallPercent"]["absent"],
    )


def test_history_has_the_last_samples_by_the_wall_clock(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S01, R-S09: as many as asked for, oldest first, with the statistics of all; gaps say why."""
    engine.fill_to(40 * MIB)
    for _ in range(5):
        sidecar.tick(10)
    history = read(local, "/v1/history?last=3")
    expected = [WALL_AHEAD + sidecar.now - ago for ago in (20, 10, 0)]
    assert (expected, 5) == ([sample["at"] for sample in history["samples"]], history["kept"])
    assert history["peakBytes"] >= history["samples"][-1]["usedBytes"] > 30 * MIB
    engine.kill()
    sidecar.tick(10)
    last = read(local, "/v1/history")["samples"][-1]
    assert (None, True) == (last["usedBytes"], bool(last["absent"]))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/history?last=0",
        "/v1/history?last=1001",
        "/v1/history?last=x",
        "/v1/history?lats=3",
        "/v1/history?last=" + "9" * 40,
        "/v1/status?verbose=1",
        "/v1/actions?kind=Explode",
        "/v1/actions?status=evict",
        "/v1/actions?limit=-1",
    ],
)
def test_a_query_that_is_not_understood_is_refused(local: Routes, sidecar: HandDriven, path: str) -> None:
    """R-S09, fault 112: a misspelt filter must not list everything."""
    sidecar.tick()
    assert (400, "Invalid") == refusal(request(local, "GET", path))


def test_thresholds_are_bytes_with_the_way_to_each(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S09, R-P06: percent and headroom; a distance of what is not known is none."""
    hard = {"percent": 93, "headroom": "8Mi"}
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 70}, "hard": hard}))
    unknown = rung_views(sidecar.keeper.effective, None, None)
    assert {(None, None)} == {(rung.distance_bytes, rung.headroom_distance_bytes) for rung in unknown}
    engine.fill_to(40 * MIB)
    sidecar.tick()
    view = read(local, "/v1/thresholds")
    used, limit = view["usage"]["value"], sidecar.loop.watch.limit
    expected = [("Collect", 70), ("Soft", 80), ("Hard", 93), ("Emergency", 98)]
    assert expected == [(rung["name"], rung["entryBytes"] / MIB) for rung in view["rungs"]]
    assert [percent * MIB - used for _, percent in expected] == [rung["distanceBytes"] for rung in view["rungs"]]
    near = None if limit is None else limit - 8 * MIB - used
    assert (8 * MIB, near) == (view["rungs"][2]["headroomBytes"], view["rungs"][2]["headroomDistanceBytes"])


def test_explain_says_why_nothing_is_done_and_when_something_is(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09, R-S03: the ladder's own words; before the first look there are none."""
    assert (503, "NoLookYet") == refusal(request(local, "GET", "/v1/explain"))
    engine.fill_to(40 * MIB)
    sidecar.tick()
    calm = read(local, "/v1/explain")
    assert ("Normal", True) == (calm["level"], calm["reason"].startswith("nothing to do"))
    engine.set_mode(FREE_PATH, "claims")
    engine.fill_to(85 * MIB)
    sidecar.tick(10)
    assert ("Soft", [False, False]) == (
        read(local, "/v1/explain")["level"],
        [rung["entered"] for rung in read(local, "/v1/explain")["rungs"][1:]],
    )


def test_breakdown_sums_to_what_the_kernel_says(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S02, R-S09: signal, resident set and mappings of a real process; components against ceilings, collections."""
    engine.hold_managed(10 * MIB)
    engine.set_collections(3)
    sidecar.tick()
    answered = request(local, "GET", "/v1/breakdown")
    breakdown = msgspec.json.decode(answered.body, type=Breakdown)
    for whole in (breakdown.signal, breakdown.resident, breakdown.regions):
        assert whole.figure.value == sum(part.part_bytes for part in whole.parts)
        assert whole.figure.value == pytest.approx(engine.resident(), abs=2 * MIB)
    assert breakdown.proportional.value is not None
    assert ["semanticCache", "working"] == [use.name for use in breakdown.components]
    assert ["collection0", "collection1", "collection2"] == [use.name for use in breakdown.collections]


def test_what_a_real_runtime_reports_fits_into_what_the_kernel_counts(
    local: Routes, sidecar: HandDriven, runtime: RuntimeProcess
) -> None:
    """R-S02: reconciled under every signal a process has without a cgroup of its own; nothing overlaps."""
    for signal in ("Unreclaimable", "ResidentSetSize"):
        sidecar.write_policy(policy_text("300Mi", signal=signal))
        sidecar.tick(10)
        sidecar.settle()
        breakdown = msgspec.json.decode(request(local, "GET", "/v1/breakdown").body, type=Breakdown)
        assert signal == breakdown.signal.name
        owned = {part.name: part.part_bytes for part in breakdown.signal.parts if part.kind is PartKind.OWNED}
        kinds = {part.kind for whole in (breakdown.signal, breakdown.resident) for part in whole.parts}
        report = sidecar.link.report
        assert report is not None
        assert {part.name: part.owned_bytes for part in report.components} == owned
        assert owned["semanticCache"] >= ENTRIES * ENTRY_BYTES
        assert PartKind.OVERLAP not in kinds
        assert runtime.pid == report.pid


def test_a_breakdown_is_read_once_a_second_at_most(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S02: the walk holds a lock that the engine wants, so asking often must not walk often."""
    sidecar.tick()
    first = read(local, "/v1/breakdown")
    engine.fill_to(engine.resident() + 20 * MIB)
    sidecar.now += 0.875
    again = read(local, "/v1/breakdown")
    sidecar.now += 0.125
    later = read(local, "/v1/breakdown")
    assert first == again
    grown = later["resident"]["figure"]["value"] - first["resident"]["figure"]["value"]
    assert grown == pytest.approx(20 * MIB, abs=2 * MIB)


def test_breakdown_before_the_engine_says_so(local: Routes, sidecar: HandDriven) -> None:
    """R-S02, guarantee 4."""
    sidecar.tick()
    breakdown = read(local, "/v1/breakdown")
    reasons = {breakdown[name]["figure"]["absent"] for name in ("signal", "resident", "regions")}
    assert ({"no engine was seen yet"}, []) == (reasons, breakdown["signal"]["parts"])


def test_alerts_and_leaks_are_listed(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S07, R-S08, R-S09: active ones, their count and since when anybody looks; suspects by the wall clock."""
    engine.fill_to(40 * MIB)
    sidecar.tick()
    plan = sidecar.keeper.effective
    assert ([], []) == (read(local, "/v1/alerts")["active"], read(local, "/v1/leaks")["suspects"])
    sidecar.loop.alerts.look(plan, Facts(90 * MIB), sidecar.now)
    listed = read(local, "/v1/alerts")
    assert (["UsageHigh", "Growth"], 2) == ([alert["name"] for alert in listed["active"]], listed["count"])
    assert listed["active"] == read(local, "/v1/status")["alerts"]
    leaks = sidecar.loop.watch.leaks = Leaks(LeakRule())
    for second in range(600):
        leaks.look(sidecar.now + second, 0, {"a": Holding(second * MIB // 8, 0)})
    (suspect,) = read(local, "/v1/leaks")["suspects"]
    assert ("a", True, True) == (
        suspect["subject"],
        suspect["likely"],
        WALL_AHEAD <= suspect["since"] <= WALL_AHEAD + sidecar.now + 600,
    )


def test_a_recommendation_says_what_is_missing_and_then_a_budget(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09: from what was measured, with the reasons; nothing is applied."""
    engine.hold_managed(10 * MIB)
    engine.fill_to(50 * MIB)
    sidecar.tick()
    early = read(local, "/v1/recommendations")
    assert (None, True) == (early["totalBytes"], "it takes 600 s" in early["absent"])
    for _ in range(70):
        sidecar.tick(10)
    late = read(local, "/v1/recommendations")
    assert 50 * MIB < late["totalBytes"] < 90 * MIB
    assert late["totalBytes"] < late["limitBytes"]
    assert {"semanticCache", "working"} == set(late["components"])
    assert any("unmanaged memory peaked" in reason for reason in late["reasons"])
    assert 100 * MIB == sidecar.keeper.effective.total_bytes


def test_actions_are_listed_by_kind_status_and_number(local: Routes, sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S04, R-S09: the newest so many, oldest first."""
    engine.hold_managed(20 * MIB)
    sidecar.tick()
    for kind in ("Evict", "Trim", "Evict"):
        asked = {"kind": kind} if kind == "Trim" else {"kind": kind, "targetBytes": MIB}
        assert 202 == posted(local, "/v1/actions", asked).status
    sidecar.settle()

    def ids(query: str) -> list[int]:
        return [record["id"] for record in read(local, f"/v1/actions?{query}")["actions"]]

    evicted = ids("kind=Evict")
    assert (2, evicted[-1:]) == (len(evicted), ids("kind=Evict&limit=1"))
    assert ([], evicted) == (ids("kind=Evict&status=Failed"), ids("kind=Evict&status=Effective"))


def test_enforcement_is_stopped_for_a_time_as_if_the_plan_said_observe(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S09: the engine is told, nothing is given back, the plan stays what it was, and it ends by itself."""
    engine.hold_managed(50 * MIB)
    sidecar.tick()
    sidecar.settle()
    before = sidecar.keeper.effective
    stopped = posted(local, "/v1/enforcement/stop", {"ttlSeconds": 60}).json
    assert (False, "Enforce", WALL_AHEAD + sidecar.now + 60) == (
        stopped["active"],
        stopped["mode"],
        stopped["stoppedUntil"],
    )
    engine.fill_to(85 * MIB)
    sidecar.tick()
    records = sidecar.settle()
    assert ("Observe", False) == (read(local, "/v1/status")["mode"], read(local, "/v1/enforcement")["active"])
    assert {"Observed"} == {record.status.value for record in records if record.kind.value != "Resize"}
    assert (50, "Configure") == (
        sidecar.link.report.managed_bytes // MIB if sidecar.link.report else 0,
        read(local, "/v1/plan")["plan"]["layers"]["mode"],
    )
    sidecar.tick(61)
    assert before == sidecar.keeper.effective
    (change,) = read(local, "/v1/enforcement")["changes"]
    assert (os.getuid(), stopped["stoppedUntil"]) == (change["uid"], change["stoppedUntil"])


def test_enforcement_is_started_again_before_the_time_is_over(local: Routes, sidecar: HandDriven) -> None:
    """R-S09: recorded too; what was not stopped cannot be started."""
    sidecar.tick()
    assert posted(local, "/v1/enforcement/start").json["changes"] == []
    posted(local, "/v1/enforcement/stop", {"ttlSeconds": 60})
    started = posted(local, "/v1/enforcement/start").json
    assert (True, None, 2) == (started["active"], started["stoppedUntil"], len(started["changes"]))


@pytest.mark.parametrize("ttl", [0, -1, 86_401, "60", None, 1.5])
def test_enforcement_is_never_stopped_for_ever(local: Routes, sidecar: HandDriven, ttl: object) -> None:
    """R-S09: a day at most."""
    sidecar.tick()
    assert (400, "Invalid") == refusal(posted(local, "/v1/enforcement/stop", {"ttlSeconds": ttl}))
    assert read(local, "/v1/enforcement")["active"]


def test_ending_what_was_configured_takes_nothing_beside_it(local: Routes, sidecar: HandDriven) -> None:
    """R-S09: a total that nobody reads would look as if it held."""
    sidecar.tick()
    for beside in ({"total": "90Mi"}, {"total": ""}, {"components": {"index": "1Mi"}}):
        assert (400, "Invalid") == refusal(posted(local, "/v1/configure", {"ttlSeconds": 0, **beside}))
    assert 200 == posted(local, "/v1/configure", {"ttlSeconds": 0}).status


def test_allocations_are_granted_and_released_by_the_engine(
    local: Routes, sidecar: HandDriven, runtime: RuntimeProcess
) -> None:
    """R-S09: handed to the real runtime, with its own refusals."""
    sidecar.tick()
    granted = posted(local, "/v1/allocations", {"id": "batch 7", "requestBytes": MIB}).json
    assert ("batch 7", MIB) == (granted["id"], granted["grantedBytes"])
    listed = read(local, "/v1/allocations")
    assert ([("batch 7", MIB)], MIB) == (
        [(each["id"], each["grantedBytes"]) for each in listed["allocations"]],
        listed["heldBytes"],
    )
    assert (409, "IdTaken") == refusal(posted(local, "/v1/allocations", {"id": "batch 7", "requestBytes": 2 * MIB}))
    too_large = {"id": "huge", "requestBytes": 1 << 40}
    assert (507, "ValueTooLarge") == refusal(posted(local, "/v1/allocations", too_large))
    unknown = {"id": "x", "requestBytes": MIB, "component": "nowhere"}
    assert (404, "UnknownComponent") == refusal(posted(local, "/v1/allocations", unknown))
    assert MIB == posted(local, "/v1/allocations/release", {"id": "batch 7"}).json["releasedBytes"]
    assert 0 == posted(local, "/v1/allocations/release", {"id": "batch 7"}).json["releasedBytes"]
    assert runtime.pid > 0


def test_memory_is_tracked_and_released_by_the_engine(
    local: Routes, sidecar: HandDriven, runtime: RuntimeProcess
) -> None:
    """R-S09: what somebody allocated already counts in its component."""
    sidecar.tick()
    told = {"id": "model", "component": "semanticCache", "trackedBytes": 3 * MIB, "type": "weights"}
    assert 3 * MIB == posted(local, "/v1/tracked", told).json["trackedBytes"]
    assert ["model"] == [each["id"] for each in read(local, "/v1/tracked")["tracked"]]
    sidecar.tick(10)
    (part,) = [part for part in read(local, "/v1/status")["components"] if part["name"] == "semanticCache"]
    assert (3 * MIB, True) == (part["trackedBytes"], part["ownedBytes"] > 3 * MIB)
    assert 3 * MIB == posted(local, "/v1/tracked/release", {"id": "model"}).json["releasedBytes"]
    assert runtime.pid == read(local, "/v1/status")["enginePid"]


def carried_out(local: Routes, sidecar: HandDriven, number: int) -> dict[str, Any]:
    """An action once it has ended."""
    sidecar.settle()
    return read(local, f"/v1/actions/{number}")


def test_reload_and_persist_reach_the_engine(local: Routes, sidecar: HandDriven, runtime: RuntimeProcess) -> None:
    """R-S09, R-S05: actions like the others, with a record of what came of them; they claim nothing freed."""
    sidecar.tick()
    reloaded = posted(local, "/v1/reload")
    assert (202, True) == (reloaded.status, reloaded.json["policyAsked"])
    record = carried_out(local, sidecar, reloaded.json["action"]["id"])
    assert ("Reload", "Done", None) == (record["kind"], record["status"], record["signalBeforeBytes"])
    record = carried_out(local, sidecar, posted(local, "/v1/actions", {"kind": "Persist"}).json["id"])
    assert ("Persist", "Done", None) == (record["kind"], record["status"], record["error"])
    assert runtime.pid == read(local, "/v1/status")["enginePid"]


def test_a_reload_or_persist_without_an_engine_is_a_failed_action(local: Routes, sidecar: HandDriven) -> None:
    """R-S05: with the reason in its record; the policy is read all the same."""
    sidecar.tick()
    number = posted(local, "/v1/reload").json["action"]["id"]
    record = carried_out(local, sidecar, number)
    assert ("Failed", True) == (record["status"], "engine.sock" in record["error"])


def test_a_reload_that_takes_long_does_not_hold_up_an_eviction(
    local: Routes, sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S05: a large generation is read from end to end; an emergency does not wait for that."""
    sidecar.tick()
    sidecar.settle()
    engine.set_mode(RELOAD_PATH, "hangs")
    reload_number = posted(local, "/v1/reload").json["action"]["id"]
    evict_number = posted(local, "/v1/actions", {"kind": "Evict", "targetBytes": MIB}).json["id"]

    def evicted() -> bool:
        return sidecar.tick(0.0) >= 0 and read(local, f"/v1/actions/{evict_number}")["finishedAt"] is not None

    eventually(evicted, "the eviction ends")
    assert "Running" == read(local, f"/v1/actions/{reload_number}")["status"]


def test_without_an_engine_what_it_would_answer_is_503(local: Routes, sidecar: HandDriven) -> None:
    """R-S09: with when to come again."""
    sidecar.tick()
    refused = request(local, "GET", "/v1/allocations")
    assert ((503, "EngineUnreachable"), "1") == (refusal(refused), refused.headers["retry-after"])


def test_diagnostics_is_one_document_that_names_what_is_wrong(
    local: Routes, sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-S09: versions, plan, figures, failed actions, problems in sentences; of the environment only names."""
    monkeypatch.setenv("MEMBUDGET_API_TOKEN", "hunter2")
    engine.hold_managed(10 * MIB)
    engine.set_mode(FREE_PATH, "refuses")
    sidecar.tick()
    posted(local, "/v1/actions", {"kind": "Evict", "targetBytes": MIB})
    sidecar.settle()
    posted(local, "/v1/enforcement/stop", {"ttlSeconds": 60})
    answered = request(local, "GET", "/v1/diagnostics")
    document = answered.json
    assert (b"hunter2" in answered.body, "MEMBUDGET_API_TOKEN" in document["environment"]) == (False, True)
    assert plan_hash(sidecar.keeper.effective) == document["plan"]["planHash"] == document["status"]["planHash"]
    assert (["Failed"], "Busy: not now") == (
        [record["status"] for record in document["failedActions"]],
        document["failedActions"][0]["error"],
    )
    assert any("enforcement was stopped by hand" in problem for problem in document["problems"])
    engine.kill()
    sidecar.tick(10)
    assert any("Unreachable" in problem for problem in read(local, "/v1/diagnostics")["problems"])
    assert document["loop"]["residentBytes"] > MIB
