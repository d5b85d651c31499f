"""An order counts when it is signed, for this pod, newer, and can hold here; nothing else moves a plan (R-P08)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import BUDGETS_PATH
from membudget_contract.kept_file import write_kept
from membudget_contract.orders import MAX_ORDER_BYTES, REPORT_DOMAIN, Order, PodIdentity, PolicyIdentity, ReportRequest
from membudget_contract.plan import Message, Plan, plan_hash
from membudget_contract.policy import Signal
from membudget_contract.sidecar_api import ConfigureRequest
from membudget_sidecar.plans import order_keeper
from membudget_sidecar.plans.order_keeper import KEPT_ORDER
from membudget_sidecar.plans.plan_keeper import Floor
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.signed_orders import (
    EPOCH,
    POD,
    Controller,
    OrderedPod,
    Signed,
    number,
    order,
    ordered_plan,
)

MIB = 1 << 20
CONTROLLER = Controller()


@pytest.fixture
def pod(tmp_path: Path) -> Generator[OrderedPod]:
    """With the controller's key mounted, and no order yet."""
    CONTROLLER.publish(tmp_path / "keys")
    made = OrderedPod(tmp_path)
    yield made
    made.driven.close()


def asking(plan: Plan, sequence: int = 2) -> Order:
    """An order of that plan."""
    return order(sequence, plan=plan, plan_hash=plan_hash(plan))


# --- what is taken ------------------------------------------------------------------------------------------------


def test_an_order_is_kept_before_it_is_acknowledged_with_what_holds(pod: OrderedPod) -> None:
    """R-P08: pod, number, plan and effective plan: else it is no acknowledgement."""
    asked = order(7, "90Mi")
    answer = pod.gate.order(*CONTROLLER.sign(asked))
    assert (True, POD.uid, number(7), asked.plan_hash, None) == (
        answer.changed,
        answer.pod_uid,
        answer.number,
        answer.plan_hash,
        answer.problem,
    )
    assert plan_hash(pod.driven.keeper.effective) == answer.effective_plan_hash
    assert (90, False, True) == (pod.total, answer.overridden, (pod.state / KEPT_ORDER).exists())


def test_the_same_order_again_changes_nothing_and_is_acknowledged(pod: OrderedPod) -> None:
    """R-P08: an answer that was lost is asked for again; nothing is written."""
    seen = [pod.send(CONTROLLER.sign(order(7)))]
    written = (pod.state / KEPT_ORDER).stat().st_ino
    seen.append(pod.send(CONTROLLER.sign(order(7))))
    assert [(200, "Accepted"), (200, "Unchanged")] == seen
    assert written == (pod.state / KEPT_ORDER).stat().st_ino


def test_pushes_out_of_order_and_twice_end_at_the_newest_applied_once(pod: OrderedPod, engine: FakeEngine) -> None:
    """Fault 48: g7, g5, g6, g7; the engine gets one Resize for it."""
    pod.driven.tick()
    pod.driven.settle()
    before = len(engine.requests(BUDGETS_PATH))
    sent = [pod.send(CONTROLLER.sign(order(sequence, f"{60 + sequence}Mi"))) for sequence in (7, 5, 6, 7)]
    pod.driven.tick()
    pod.driven.settle()
    assert [(200, "Accepted"), (409, "Older"), (409, "Older"), (200, "Unchanged")] == sent
    assert [67 * MIB] == [asked["totalBytes"] for asked in engine.requests(BUDGETS_PATH)[before:]]
    assert {"Accepted": 1, "Older": 2, "Unchanged": 1} == dict(pod.gate.answers)


def test_a_policy_made_again_under_the_same_name_starts_at_generation_1(pod: OrderedPod) -> None:
    """Design, orders: delete and re-create makes a new uid and a new sequence; precedence and defaults likewise."""
    made_again = order(10, "80Mi", policy=PolicyIdentity(name="retrieval", uid="ffff", generation=1))
    profile = compile_policy(None)
    without = order(11, policy=None, plan=profile, plan_hash=plan_hash(profile))
    sent = [pod.send(CONTROLLER.sign(asked)) for asked in (order(9, generation=4), made_again, without)]
    assert ([(200, "Accepted")] * 3, 150) == (sent, pod.total)


def test_within_one_epoch_a_generation_never_falls(pod: OrderedPod) -> None:
    """Design, orders: a restored etcd is confirmed by a new epoch, not by a higher sequence."""
    pod.send(CONTROLLER.sign(order(9, "90Mi", generation=4)))
    fallen = order(10, "80Mi", generation=3)
    confirmed = order(1, "80Mi", generation=3, epoch=EPOCH + 1)
    seen = [pod.send(CONTROLLER.sign(fallen)), pod.send(CONTROLLER.sign(confirmed))]
    assert [(409, "GenerationFell"), (200, "Accepted")] == seen


def test_a_former_controller_is_told_to_step_down(pod: OrderedPod) -> None:
    """R-P08: whatever sequence it had reached."""
    pod.send(CONTROLLER.sign(order(1, epoch=EPOCH + 1)))
    assert (409, "NewerEpoch") == pod.send(CONTROLLER.sign(order(999)))


def test_both_keys_count_while_they_rotate(pod: OrderedPod) -> None:
    """Issue 4, point 3: the retired one no more."""
    newer = Controller("0b2c")
    seen = [pod.send(CONTROLLER.sign(order(1))), pod.send(newer.sign(order(2)))]
    newer.publish(pod.keys)
    seen += [pod.send(newer.sign(order(2))), pod.send(CONTROLLER.sign(order(3)))]
    (pod.keys / CONTROLLER.key_id).unlink()
    seen.append(pod.send(CONTROLLER.sign(order(4))))
    accepted, unknown = (200, "Accepted"), (401, "UnknownKey")
    assert [accepted, unknown, accepted, accepted, unknown] == seen


def test_a_controller_of_a_later_minor_version_is_understood(pod: OrderedPod) -> None:
    """R-P08: fields this sidecar does not know are in the plan's hash too."""
    asked: dict[str, Any] = msgspec.to_builtins(order(3, "90Mi"))
    asked["plan"]["addedLater"] = {"by": 2}
    plan = msgspec.json.encode(asked["plan"])
    asked |= {"contract": "1.9", "planHash": hashlib.sha256(plan).hexdigest()}
    assert (200, "Accepted") == pod.send(CONTROLLER.sign(msgspec.json.encode(asked)))


def test_orders_at_the_same_moment_are_judged_one_after_the_other(pod: OrderedPod) -> None:
    """R-P08: 20 at once; the newest holds, in memory and on the disk, and each number was accepted at most once."""
    answers: list[tuple[int, str]] = []
    requests = [CONTROLLER.sign(order(1 + turn // 2, f"{50 + turn // 2}Mi")) for turn in range(20)]
    threads = [threading.Thread(target=lambda: answers.append(pod.send(requests.pop()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = OrderedPod(pod.driven.settings.run_folder)
    assert (number(10), number(10), 59, 59) == (pod.held, again.held, pod.total, again.total)
    assert answers.count((200, "Accepted")) <= 10
    assert {200, 409} >= {status for status, _ in answers}


def test_an_older_order_waits_while_a_newer_one_is_written(pod: OrderedPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-P08: judged against what was held before, it would come into force after the newer one."""
    writing, go_on = threading.Event(), threading.Event()

    def slow_write(path: Path, message: Message) -> None:
        if not writing.is_set():
            writing.set()
            go_on.wait(5)
        write_kept(path, message)

    monkeypatch.setattr(order_keeper, "write_kept", slow_write)
    answers: list[tuple[int, str]] = []
    newer = threading.Thread(target=lambda: answers.append(pod.send(CONTROLLER.sign(order(7, "70Mi")))))
    older = threading.Thread(target=lambda: answers.append(pod.send(CONTROLLER.sign(order(6, "60Mi")))))
    newer.start()
    assert writing.wait(5)
    older.start()
    older.join(0.1)
    report = pod.ask(CONTROLLER.ask())
    go_on.set()
    newer.join()
    older.join()
    assert ([(200, "Accepted"), (409, "Older")], (200, POD.uid)) == (answers, report)
    assert (number(7), 70) == (pod.held, pod.total)


def test_an_order_while_a_resize_is_in_flight_is_carried_out_after_it(pod: OrderedPod, engine: FakeEngine) -> None:
    """R-P08: never two at once, and the engine ends at the newest."""
    pod.driven.tick()
    pod.driven.settle()
    engine.set_mode(BUDGETS_PATH, "hangs")
    pod.send(CONTROLLER.sign(order(1, "90Mi")))
    pod.driven.tick()
    eventually(lambda: engine.requests(BUDGETS_PATH)[-1]["totalBytes"] == 90 * MIB, "the Resize is under way")
    assert (200, "Accepted") == pod.send(CONTROLLER.sign(order(2, "80Mi")))
    pod.driven.tick()
    assert 1 == len(pod.driven.unended())
    engine.set_mode(BUDGETS_PATH, "works")
    pod.driven.settle()
    pod.driven.tick()
    pod.driven.settle()
    assert 80 * MIB == engine.requests(BUDGETS_PATH)[-1]["totalBytes"]


# --- what is refused ----------------------------------------------------------------------------------------------

CUT = CONTROLLER.sign(order(2))._replace(signature=CONTROLLER.sign(order(2)).signature[:40])
REFUSALS: dict[str, tuple[Signed, tuple[int, str]]] = {
    "too large": (CONTROLLER.sign(b" " * (MAX_ORDER_BYTES + 1)), (413, "TooLarge")),
    "no headers": (CONTROLLER.sign(order(2))._replace(key_id="", signature=""), (401, "UnknownKey")),
    "unknown key": (Controller("ffff").sign(order(2)), (401, "UnknownKey")),
    "cut signature": (CUT, (401, "BadSignature")),
    "other body": (CONTROLLER.sign(order(2))._replace(body=msgspec.json.encode(order(3))), (401, "BadSignature")),
    "other key's name": (Controller("ffff").sign(order(2))._replace(key_id="0a1b"), (401, "BadSignature")),
    "other domain": (CONTROLLER.sign(order(2), b"membudget/order/v2\0"), (401, "BadSignature")),
    "no domain": (CONTROLLER.sign(order(2), b""), (401, "BadSignature")),
    "report as order": (CONTROLLER.ask(), (401, "BadSignature")),
    "unsigned garbage": (CONTROLLER.sign(b"{")._replace(signature="AAAA"), (401, "BadSignature")),
    "empty": (CONTROLLER.sign(b""), (400, "Invalid")),
    "no JSON": (CONTROLLER.sign(b"\xff"), (400, "Invalid")),
    "no order": (CONTROLLER.sign(b"{}"), (400, "Invalid")),
    "deep": (CONTROLLER.sign(b"[" * 200_000), (400, "Invalid")),
    "deep in a field nobody knows": (
        CONTROLLER.sign(msgspec.json.encode(order(2))[:-1] + b',"x":' + b"[" * 200_000),
        (400, "Invalid"),
    ),
    "wrong type": (CONTROLLER.sign(msgspec.json.encode(order(2)).replace(b":2,", b':"2",')), (400, "Invalid")),
    "report signed as order": (CONTROLLER.sign(ReportRequest(pod=POD)), (400, "Invalid")),
    "hash of another plan": (CONTROLLER.sign(order(2, plan_hash="0" * 64)), (409, "Contradiction")),
    "another plan, same number": (CONTROLLER.sign(order(1, "80Mi")), (409, "Contradiction")),
    "another policy, same number": (CONTROLLER.sign(order(1, generation=2)), (409, "Contradiction")),
    "older": (CONTROLLER.sign(order(0, generation=9)), (409, "Older")),
    "older epoch": (CONTROLLER.sign(order(9, epoch=EPOCH - 1)), (409, "NewerEpoch")),
    "other uid": (CONTROLLER.sign(order(2, pod=msgspec.structs.replace(POD, uid="f"))), (409, "Foreign")),
    "other name": (CONTROLLER.sign(order(2, pod=msgspec.structs.replace(POD, name="f"))), (409, "Foreign")),
    "other namespace": (CONTROLLER.sign(order(2, pod=msgspec.structs.replace(POD, namespace="f"))), (409, "Foreign")),
    "next major": (CONTROLLER.sign(order(2, contract="2.0")), (422, "Unsupported")),
    "requires": (CONTROLLER.sign(order(2, requires=("telepathy",))), (422, "Unsupported")),
    "components over total": (
        CONTROLLER.sign(asking(ordered_plan("80Mi", components={"index": "81Mi"}))),
        (422, "Invalid"),
    ),
    "no quantity": (CONTROLLER.sign(asking(msgspec.structs.replace(ordered_plan(), total="lots"))), (422, "Invalid")),
    "nothing": (CONTROLLER.sign(order(2, "0")), (422, "BudgetBelowFloor")),
    "below what is Critical": (CONTROLLER.sign(order(2, "69Mi")), (422, "BudgetBelowFloor")),
    "over the limit": (CONTROLLER.sign(order(2, "201Mi")), (422, "BudgetOverLimit")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_order_changes_nothing_and_is_counted(pod: OrderedPod, name: str) -> None:
    """Faults 93 and 114: status and reason; the last good plan stays, in force and on the disk."""
    request, expected = REFUSALS[name]
    pod.driven.keeper.follow(200 * MIB, None)
    pod.send(CONTROLLER.sign(order(1)))
    pod.driven.loop.watch.floor = Floor(Signal.RESIDENT_SET_SIZE, 70 * MIB)
    before, kept = pod.driven.keeper.effective, (pod.state / KEPT_ORDER).read_bytes()
    assert expected == pod.send(request)
    assert (before, kept, number(1)) == (
        pod.driven.keeper.effective,
        (pod.state / KEPT_ORDER).read_bytes(),
        pod.held,
    )
    assert {"Accepted": 1, expected[1]: 1} == dict(pod.gate.answers)
    assert int(expected[1] == "BadSignature") == pod.gate.bad_signatures
    pod.driven.keeper.follow(None, None)
    assert before is pod.driven.keeper.effective


def test_without_keys_the_answer_says_so(tmp_path: Path) -> None:
    """R-P08: the controller shows KeysPending, not a forgery."""
    assert (401, "NoKeys") == OrderedPod(tmp_path).send(CONTROLLER.sign(order(1)))


def test_a_plan_that_cannot_hold_is_named_in_the_status_until_one_holds(pod: OrderedPod) -> None:
    """R-P08: what is refused with 422 is what a person has to change."""
    pod.send(CONTROLLER.sign(order(1)))
    pod.driven.loop.watch.floor = Floor(Signal.RESIDENT_SET_SIZE, 70 * MIB)
    pod.send(CONTROLLER.sign(order(2, "60Mi")))
    refused = pod.driven.keeper.problem
    pod.driven.keeper.follow(None, Floor(Signal.RESIDENT_SET_SIZE, 50 * MIB))
    still = pod.total
    pod.send(CONTROLLER.sign(order(3, "90Mi")))
    assert "ask for at least 90Mi" in (refused or "")
    assert (100, 90, None) == (still, pod.total, pod.driven.keeper.problem)


def test_a_refused_number_can_be_used_again(pod: OrderedPod) -> None:
    """R-P08: the controller tries again with the same order when there is room."""
    pod.send(CONTROLLER.sign(order(1)))
    pod.driven.loop.watch.floor = Floor(Signal.RESIDENT_SET_SIZE, 70 * MIB)
    request = CONTROLLER.sign(order(2, "60Mi"))
    seen = [pod.send(request)]
    pod.driven.loop.watch.floor = Floor(Signal.RESIDENT_SET_SIZE, 50 * MIB)
    seen.append(pod.send(request))
    assert [(422, "BudgetBelowFloor"), (200, "Accepted")] == seen


SENT = CONTROLLER.sign(order(7, "90Mi"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from(Signed._fields), data=st.data())
def test_no_flipped_bit_is_ever_accepted(pod: OrderedPod, part: str, data: st.DataObject) -> None:
    """Fault 93: in the body, the signature or the key's name."""
    pod.driven.now += 1.0  # not the brake's second
    value: str | bytes = getattr(SENT, part)
    flipped = bytearray(value if isinstance(value, bytes) else value.encode())
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    changed = bytes(flipped) if isinstance(value, bytes) else flipped.decode("latin-1")
    status, reason = pod.send(SENT._replace(**{part: changed}))
    assert (401, True) == (status, reason in {"UnknownKey", "BadSignature"})
    assert pod.held is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.integers(0, len(SENT.body) - 1))
def test_no_cut_body_is_ever_accepted(pod: OrderedPod, end: int) -> None:
    """Fault 93: wherever the connection broke."""
    pod.driven.now += 1.0
    assert (401, "BadSignature") == pod.send(SENT._replace(body=SENT.body[:end]))


# --- the brake ----------------------------------------------------------------------------------------------------


def test_after_five_bad_signatures_nothing_is_verified_until_the_second_is_over(pod: OrderedPod) -> None:
    """Design, orders: a good one waits as well; no signature costs anything meanwhile."""
    bad, good = CUT, CONTROLLER.sign(order(1))
    seen: list[tuple[int, str]] = []
    for _ in range(6):
        seen.append(pod.send(bad))
        pod.driven.now += 0.125
    seen.append(pod.send(good))
    pod.driven.now += 0.25
    seen.append(pod.send(good))
    forged, braked = (401, "BadSignature"), (429, "TooManyBadSignatures")
    assert [forged] * 5 + [braked] * 2 + [(200, "Accepted")] == seen
    assert 5 == pod.gate.bad_signatures


def test_bad_signatures_of_reports_and_orders_are_counted_together(pod: OrderedPod) -> None:
    """Design, orders: two doors, one lock."""
    bad_report = CONTROLLER.ask()._replace(signature=CUT.signature)
    seen = [pod.ask(bad_report) for _ in range(3)] + [pod.send(CUT) for _ in range(3)]
    assert [401] * 5 + [429] == [status for status, _ in seen]


def test_keys_that_are_not_known_do_not_pull_the_brake(pod: OrderedPod) -> None:
    """Design, orders: a controller whose new key is not mounted yet must not be locked out with it."""
    seen = [pod.send(Controller("ffff").sign(order(1))) for _ in range(20)]
    assert {(401, "UnknownKey")} == set(seen)
    assert (200, "Accepted") == pod.send(CONTROLLER.sign(order(1)))


# --- reports ------------------------------------------------------------------------------------------------------


def test_a_report_says_what_is_held_and_how_the_pod_is(pod: OrderedPod, engine: FakeEngine) -> None:
    """R-P08: number, policy, both hashes; figures as read."""
    asked = order(7, "90Mi")
    pod.send(CONTROLLER.sign(asked))
    pod.driven.tick()
    report = pod.gate.report(*CONTROLLER.ask())
    assert (POD.uid, number(7), asked.policy, asked.plan_hash) == (
        report.pod_uid,
        report.number,
        report.policy,
        report.plan_hash,
    )
    assert (plan_hash(pod.driven.keeper.effective), 90 * MIB, "Normal", "Connected", None, False) == (
        report.effective_plan_hash,
        report.budget_bytes,
        report.level,
        report.engine,
        report.problem,
        report.overridden,
    )
    assert report.usage_bytes == pytest.approx(engine.resident(), abs=2 * MIB)


@pytest.mark.usefixtures("engine")
def test_a_report_says_how_long_ago_its_figure_was_measured(pod: OrderedPod) -> None:
    """Guarantee 4: a controller lowers no limit by an old figure; before the first there is no age."""
    before = pod.gate.report(*CONTROLLER.ask()).usage_age_seconds
    pod.driven.tick()
    at_once = pod.gate.report(*CONTROLLER.ask()).usage_age_seconds
    pod.driven.now += 7.5
    assert (None, 0.0, 7.5) == (before, at_once, pod.gate.report(*CONTROLLER.ask()).usage_age_seconds)


def test_a_report_before_the_first_order_and_the_engine_is_honest(pod: OrderedPod) -> None:
    """Guarantee 4: None, never 0."""
    report = pod.gate.report(*CONTROLLER.ask())
    assert (None, None, None, None, "WaitingForEngine") == (
        report.number,
        report.policy,
        report.plan_hash,
        report.usage_bytes,
        report.engine,
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CONTROLLER.sign(order(1)), (401, "BadSignature")),
        (CONTROLLER.sign(ReportRequest(pod=POD)), (401, "BadSignature")),
        (CONTROLLER.sign(b"[]", REPORT_DOMAIN), (400, "Invalid")),
        (CONTROLLER.sign(b" " * (MAX_ORDER_BYTES + 1), REPORT_DOMAIN), (413, "TooLarge")),
        (CONTROLLER.ask(PodIdentity(namespace="search", name="retriever-0", uid="other")), (409, "Foreign")),
        (CONTROLLER.sign(ReportRequest(contract="2.0", pod=POD), REPORT_DOMAIN), (422, "Unsupported")),
        (Controller("ffff").ask(), (401, "UnknownKey")),
    ],
)
def test_a_report_is_for_the_controller_alone(pod: OrderedPod, request_: Signed, expected: tuple[int, str]) -> None:
    """Fault 93: and an order replayed as a report request is none."""
    assert expected == pod.ask(request_)


def test_what_environment_or_configure_refines_is_said(pod: OrderedPod) -> None:
    """R-P05: reported as overridden, so that nobody looks for the difference in the policy."""
    pod.driven.keeper.configure(ConfigureRequest(total="80Mi", ttl_seconds=60), None)
    assert pod.gate.report(*CONTROLLER.ask()).overridden
    assert pod.gate.order(*CONTROLLER.sign(order(1))).overridden
