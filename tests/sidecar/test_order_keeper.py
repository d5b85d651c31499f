"""What was acknowledged is on the disk, and a restart neither forgets nor loosens it (R-P08, guarantees 3 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from membudget_contract.errors import EnvironmentInvalid
from membudget_contract.orders import PodIdentity
from membudget_contract.plan import plan_hash
from membudget_sidecar.kernel.sample import Sample
from membudget_sidecar.plans.order_keeper import KEPT_ORDER
from membudget_sidecar.plans.plan_keeper import KEPT_PLAN, PlanKeeper
from membudget_sidecar.settings import own_pod
from sidecar.fake_engine import FakeEngine
from sidecar.signed_orders import POD, Controller, OrderedPod, number, order, ordered_plan

MIB = 1 << 20
CONTROLLER = Controller()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the controller's key mounted."""
    CONTROLLER.publish(tmp_path / "keys")
    return tmp_path


def test_a_restart_goes_on_with_the_order_and_its_number(folder: Path) -> None:
    """Guarantees 3 and 5: the plan is in force before anybody asks; older orders are still older."""
    OrderedPod(folder).send(CONTROLLER.sign(order(7, "90Mi")))
    again = OrderedPod(folder)
    assert (number(7), 90, 5000.0, None) == (
        again.held,
        again.total,
        again.orders.accepted_at,
        again.driven.keeper.problem,
    )
    seen = [again.send(CONTROLLER.sign(order(sequence, "90Mi"))) for sequence in (6, 7, 8)]
    assert [(409, "Older"), (200, "Unchanged"), (200, "Accepted")] == seen


def test_orders_are_kept_whole_and_only_once(folder: Path) -> None:
    """Guarantee 5: no second file that a kill could leave one order behind."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(7)))
    pod.driven.tick()
    assert [KEPT_ORDER] == [path.name for path in pod.state.iterdir()]


def test_a_plan_of_file_mode_is_not_taken_for_an_order(folder: Path) -> None:
    """R-S12: the modes exclude each other, over a restart too."""
    (folder / "state").mkdir()
    (folder / "state" / KEPT_PLAN).write_text("whatever stands here")
    pod = OrderedPod(folder)
    assert (150, None, None) == (pod.total, pod.held, pod.driven.keeper.problem)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda kept: kept[:0],
    "cut": lambda kept: kept[:-1],
    "flipped": lambda kept: kept.replace(b"90Mi", b"91Mi"),
    "newer version": lambda kept: kept.replace(b"membudget-kept 1", b"membudget-kept 2"),
    "other type": lambda kept: kept.replace(b"KeptOrder", b"Plan"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_file_leaves_the_built_in_plan_and_the_next_order_counts(folder: Path, damage: str) -> None:
    """Fault 52: said in status and report; the number is not known, so that any is newer."""
    OrderedPod(folder).send(CONTROLLER.sign(order(7, "90Mi")))
    path = folder / "state" / KEPT_ORDER
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = OrderedPod(folder)
    report = again.gate.report(*CONTROLLER.ask())
    assert (150, None, None) == (again.total, again.held, report.plan_hash)
    assert "is torn, changed, or of another version" in (report.problem or "")
    assert (200, "Accepted") == again.send(CONTROLLER.sign(order(3, "80Mi")))
    assert (80, None) == (again.total, again.driven.keeper.problem)


def test_a_controller_that_is_gone_for_days_changes_nothing(folder: Path, engine: FakeEngine) -> None:
    """Fault 53: the last good plan holds for ever, never looser; how old it is is told, an alert may speak of it."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(1, "90Mi")))
    for _ in range(3 * 24):
        pod.driven.tick(3600.0)
    assert (90, number(1), None) == (pod.total, pod.held, pod.driven.keeper.problem)
    assert engine.pid == (pod.driven.link.process.pid if pod.driven.link.process else None)
    assert (409, "Older") == pod.send(CONTROLLER.sign(order(0, "100Mi")))


def test_a_disk_that_takes_nothing_takes_no_order(folder: Path) -> None:
    """Fault 73: 503, the controller tries again; an acknowledged order that a restart forgets would be a lie."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(1, "90Mi")))
    (pod.state / KEPT_ORDER).rename(folder / "aside")
    (pod.state / KEPT_ORDER).mkdir()  # root writes through read-only modes, but not over a folder
    assert (503, "NotKept") == pod.send(CONTROLLER.sign(order(2, "80Mi")))
    assert (number(1), 90) == (pod.held, pod.total)
    (pod.state / KEPT_ORDER).rmdir()
    assert (200, "Accepted") == pod.send(CONTROLLER.sign(order(2, "80Mi")))


def test_a_volume_that_outlives_its_pod_brings_the_plan_and_no_number(folder: Path) -> None:
    """Guarantee 3: the number was another pod's; held on to, it could stand against a rebuilt cluster for ever."""
    OrderedPod(folder).send(CONTROLLER.sign(order(7, "90Mi")))
    later = msgspec.structs.replace(POD, uid="6c2a")
    next_pod = OrderedPod(folder, pod=later)
    before = (next_pod.held, next_pod.total)
    assert ((None, 90), (200, "Accepted")) == (before, next_pod.send(CONTROLLER.sign(order(1, "80Mi", pod=later))))
    assert (409, "Foreign") == next_pod.send(CONTROLLER.sign(order(8, "90Mi")))


# --- the container's limit ----------------------------------------------------------------------------------------


def test_a_percent_is_held_before_the_engine_is_up_and_follows_its_limit(folder: Path) -> None:
    """R-P03, R-P08: acknowledged as held, with the hash of what is in force meanwhile and what it waits for."""
    pod = OrderedPod(folder)
    asked = order(1, "50%")
    answer = pod.gate.order(*CONTROLLER.sign(asked))
    assert (True, asked.plan_hash, 150) == (answer.changed, answer.plan_hash, pod.total)
    assert plan_hash(pod.driven.keeper.effective) == answer.effective_plan_hash
    assert "needs a container limit" in (answer.problem or "")
    again = OrderedPod(folder)
    again.driven.keeper.follow(200 * MIB, None)
    report = again.gate.report(*CONTROLLER.ask())
    assert (number(1), 100 * MIB, None) == (report.number, report.budget_bytes, report.problem)


@pytest.mark.parametrize(("limit", "expected"), [(None, (422, "NoLimit")), (200 * MIB, (200, "Accepted"))])
def test_a_percent_beside_an_engine_is_judged_by_what_was_just_seen_of_its_limit(
    folder: Path, engine: FakeEngine, limit: int | None, expected: tuple[int, str]
) -> None:
    """Design, MemoryPolicy: NoLimit only once somebody looked; a limit seen a moment ago counts at once."""
    pod = OrderedPod(folder)
    pod.driven.tick()
    watch = pod.driven.loop.watch
    assert engine.pid == (pod.driven.link.process.pid if pod.driven.link.process else None)
    assert isinstance(watch.sample, Sample)
    watch.limit = limit
    assert expected == pod.send(CONTROLLER.sign(order(1, "50%")))
    assert (None if limit is None else 100) == (pod.held and pod.total)


def test_a_held_percent_is_replaced_by_a_newer_order(folder: Path) -> None:
    """R-P08: and never comes into force afterwards."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(1, "50%")))
    pod.send(CONTROLLER.sign(order(2, "90Mi")))
    pod.driven.keeper.follow(200 * MIB, None)
    assert (90, None) == (pod.total, pod.driven.keeper.problem)


def test_a_refused_order_leaves_what_waits_waiting(folder: Path) -> None:
    """R-P08: the last good order, although it is not in force yet."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(1, "50%")))
    pod.send(CONTROLLER.sign(order(2, "0")))
    pod.driven.keeper.follow(200 * MIB, None)
    assert (number(1), 100) == (pod.held, pod.total)


@pytest.mark.parametrize(("limit", "total"), [(300, 200), (200, 200), (120, 120), (40, 40)])
def test_an_order_from_before_the_limit_was_known_is_cut_to_it(folder: Path, limit: int, total: int) -> None:
    """Design, orders: an order can never loosen past the container's limit; the report says that it was cut."""
    pod = OrderedPod(folder)
    pod.send(CONTROLLER.sign(order(1, "200Mi")))
    pod.driven.keeper.follow(limit * MIB, None)
    problem = pod.gate.report(*CONTROLLER.ask()).problem
    assert (total, limit < 200) == (pod.total, problem is not None)
    pod.driven.keeper.follow(400 * MIB, None)
    assert (200, None) == (pod.total, pod.driven.keeper.problem)


def test_ceilings_in_bytes_do_not_keep_a_total_above_the_limit(folder: Path) -> None:
    """Design, orders: ceilings meant for the total as written give way; those in percent follow."""
    pod = OrderedPod(folder)
    plan = ordered_plan("200Mi", components={"index": "150Mi", "sqlite": "10%"})
    pod.send(CONTROLLER.sign(order(1, plan=plan, plan_hash=plan_hash(plan))))
    pod.driven.keeper.follow(100 * MIB, None)
    components = pod.driven.keeper.effective.components
    assert (100, 10 * MIB, 100 * MIB) == (pod.total, components["sqlite"], sum(components.values()))


def test_an_environment_cannot_carry_an_order_past_the_limit() -> None:
    """R-P05: MEMBUDGET_TOTAL refines, within the limit."""
    keeper = PlanKeeper(None, {"MEMBUDGET_TOTAL": "300Mi"}, monotonic=lambda: 0.0, wall=lambda: 0.0)
    keeper.follow(200 * MIB, None)
    assert 200 * MIB == keeper.effective.total_bytes


# --- which pod this is --------------------------------------------------------------------------------------------

TOLD = {"MEMBUDGET_POD_NAMESPACE": "search", "MEMBUDGET_POD_NAME": "retriever-0", "MEMBUDGET_POD_UID": "5b1f"}


def test_the_downward_api_tells_which_pod_this_is() -> None:
    """R-P08: namespace, name, uid."""
    assert PodIdentity(namespace="search", name="retriever-0", uid="5b1f") == own_pod(TOLD)


@pytest.mark.parametrize("variable", TOLD)
@pytest.mark.parametrize("empty", [True, False])
def test_a_variable_that_is_missing_is_named(variable: str, empty: bool) -> None:
    """R-P08: an empty one is missing too."""
    told = {name: value for name, value in TOLD.items() if name != variable} | ({variable: ""} if empty else {})
    with pytest.raises(EnvironmentInvalid, match=f"{variable}: is missing"):
        own_pod(told)
