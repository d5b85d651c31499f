"""Metrics are the loop's snapshots: what is absent is no series, and there are never more than 500 (R-S10)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from membudget_contract.control_api import FREE_PATH
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.acting.observed_link import OBSERVED
from membudget_sidecar.deciding.alerts import Facts
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.sample import Sample
from membudget_sidecar.serving.collector import SidecarCollector
from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import HandDriven, policy_text
from sidecar.scraped import Scraped
from sidecar.signed_orders import Controller, OrderedPod, order

MIB = 1 << 20


@pytest.fixture
def registry(sidecar: HandDriven) -> Scraped:
    """What Prometheus reads."""
    return Scraped(SidecarCollector(sidecar.loop))


def series(registry: Scraped) -> list[str]:
    """All lines with a figure."""
    lines = registry.text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_without_an_engine_there_are_no_figures_of_one(sidecar: HandDriven, registry: Scraped) -> None:
    """Guarantee 4, known bug 7: absent is no series; that it is absent is counted."""
    sidecar.tick()
    names = {line.partition("{")[0].partition(" ")[0] for line in series(registry)}
    unknown = {
        "membudget_signal_bytes",
        "membudget_limit_bytes",
        "membudget_engine_process_resident_bytes",
        "membudget_room_bytes",
        "membudget_component_owned_bytes",
    }
    assert set() == unknown & names
    assert 0 == registry.get_sample_value("membudget_engine_up")
    assert 1 == registry.get_sample_value("membudget_reading_errors_total", {"reading": "signal"})


def test_figures_are_those_of_the_last_look(sidecar: HandDriven, registry: Scraped, engine: FakeEngine) -> None:
    """R-S10: signal with its kind, budget, components, level."""
    engine.hold_managed(5 * MIB)
    sidecar.write_policy(policy_text())
    sidecar.tick()
    assert sidecar.loop.watch.used.bytes == registry.get_sample_value(
        "membudget_signal_bytes", {"signal": "ResidentSetSize"}
    )
    assert 100 * MIB == registry.get_sample_value("membudget_budget_bytes")
    assert 5 * MIB == registry.get_sample_value("membudget_component_owned_bytes", {"component": "semanticCache"})
    assert registry.get_sample_value("membudget_component_mapped_bytes", {"component": "semanticCache"}) is None
    assert (0, 1, 1) == (
        registry.get_sample_value("membudget_ladder_level"),
        registry.get_sample_value("membudget_enforcing"),
        registry.get_sample_value("membudget_engine_up"),
    )


def test_actions_are_counted_by_how_they_ended_with_the_bytes_as_read(
    sidecar: HandDriven, registry: Scraped, engine: FakeEngine
) -> None:
    """R-S10, known bug 3: freed bytes are the signal's fall, so a mere claim adds next to nothing."""
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    sidecar.tick()
    sidecar.settle()
    engine.set_mode(FREE_PATH, "claims")
    engine.fill_to(85 * MIB)
    sidecar.tick(10)
    sidecar.settle()
    assert 1 == registry.get_sample_value("membudget_actions_total", {"kind": "Evict", "status": "Ineffective"})
    assert 0 == registry.get_sample_value("membudget_action_freed_bytes_total", {"kind": "Evict"})
    assert 1 == registry.get_sample_value("membudget_ladder_level")


def test_actions_and_freed_bytes_are_counted_from_0_on(sidecar: HandDriven, registry: Scraped) -> None:
    """R-S10, R-T04: of a counter that begins at 1, `increase()` misses the first."""
    sidecar.tick()
    labels = {"kind": "Evict", "status": "Ineffective"}
    assert 0 == registry.get_sample_value("membudget_actions_total", labels)
    assert 0 == registry.get_sample_value("membudget_action_freed_bytes_total", {"kind": "Spill"})


def test_an_observed_process_is_not_told_as_an_engine_that_does_not_answer(
    sidecar: HandDriven, registry: Scraped
) -> None:
    """R-S14, R-T04: it has no control socket, and MembudgetEngineUnreachable is not its alert."""
    before = registry.get_sample_value("membudget_engine_up")
    sidecar.loop.link.state = OBSERVED
    assert (0, None) == (before, registry.get_sample_value("membudget_engine_up"))


def test_whatever_the_engine_and_the_policy_name_there_are_at_most_500_series(
    sidecar: HandDriven, registry: Scraped, engine: FakeEngine
) -> None:
    """R-S10, R-S02, fault 115: two thousand components and collections, all kinds of actions in all their endings."""
    engine.set_components(2000)
    engine.set_collections(2000)
    document = json.loads(policy_text())
    document["spec"]["budget"]["components"] = {f"part{number}": "1Ki" for number in range(32)}
    sidecar.write_policy(json.dumps(document))
    sidecar.tick()
    for kind in ActionKind:
        for status in ActionStatus:
            record = ActionRecord(id=1, kind=kind, cause="", status=status, plan_hash="", asked_bytes=0, queued_at=0)
            sidecar.loop.tally.count_action(record)
    lines = series(registry)
    families = {line.partition("{")[0] for line in lines}
    assert 200 < len(lines) <= 500
    assert {"membudget_component_budget_bytes", "membudget_collection_owned_bytes"} <= families
    assert any("semanticCache" in line for line in lines)


def test_the_20_largest_collections_have_a_series_and_the_rest_together(
    sidecar: HandDriven, registry: Scraped, engine: FakeEngine
) -> None:
    """R-S02: 20 and `other`, which is all the rest."""
    engine.set_collections(50)
    sidecar.tick()
    owned = {line for line in series(registry) if line.startswith("membudget_collection_owned_bytes")}
    named = {
        number: registry.get_sample_value("membudget_collection_owned_bytes", {"collection": f"collection{number}"})
        for number in (0, 19, 20)
    }
    assert (21, {0: 50 * MIB, 19: 31 * MIB, 20: None}) == (len(owned), named)
    rest = registry.get_sample_value("membudget_collection_owned_bytes", {"collection": "other"})
    assert sum(range(1, 31)) * MIB == rest


def test_kernel_figures_are_exported_by_kind_and_absent_ones_are_no_series(
    sidecar: HandDriven, registry: Scraped, engine: FakeEngine
) -> None:
    """R-S01, R-S10: process, faults, gc; without a cgroup of its own there is nothing of one."""
    engine.fill_to(40 * MIB)
    sidecar.tick()
    sample = sidecar.loop.watch.sample
    assert isinstance(sample, Sample)
    memory = {
        kind: registry.get_sample_value("membudget_engine_process_memory_bytes", {"kind": kind})
        for kind in ("anonymous", "file", "swap")
    }
    read = sample.process
    assert {"anonymous": read.anonymous, "file": read.file, "swap": read.swap} == memory
    assert read.major_faults == registry.get_sample_value("membudget_engine_process_faults_total", {"kind": "major"})
    assert 0 == registry.get_sample_value("membudget_engine_gc_collections_total")
    pressure = registry.get_sample_value("membudget_pressure_ratio")
    used = sidecar.loop.watch.used.bytes
    assert isinstance(used, int)
    assert used / sidecar.keeper.effective.total_bytes == pressure
    unknown = isinstance(sample.cgroup, Absent)
    assert unknown == (not any(line.startswith("membudget_cgroup_") for line in series(registry)))


def test_alerts_leaks_and_a_stop_by_hand_are_exported(
    sidecar: HandDriven, registry: Scraped, engine: FakeEngine
) -> None:
    """R-S07, R-S08, R-S09: each alert by name, whether it holds and how often it was raised."""
    engine.fill_to(40 * MIB)
    sidecar.tick()
    before = registry.get_sample_value("membudget_enforcement_stopped")
    sidecar.keeper.stop_enforcing(60, None)
    plan = sidecar.keeper.effective
    sidecar.loop.alerts.look(plan, Facts(plan.total_bytes), sidecar.now)
    labels = {"alert": "UsageHigh"}
    values = [registry.get_sample_value(f"membudget_alert{name}", labels) for name in ("_active", "s_total")]
    assert ([1, 1], 0, 1) == (values, before, registry.get_sample_value("membudget_enforcement_stopped"))
    assert 0 == registry.get_sample_value("membudget_enforcing")
    assert 0 == registry.get_sample_value("membudget_alert_active", {"alert": "SlowSpill"})


def test_names_and_units_follow_prometheus(registry: Scraped) -> None:
    """R-S10: a prefix of our own, base units, `_total` on counters and only there."""
    for family in registry.collect():
        assert family.name.startswith("membudget_")
        assert family.documentation.endswith(".")
        totals = {sample.name.endswith("_total") for sample in family.samples}
        assert totals <= {family.type == "counter"}


def test_orders_are_counted_by_their_answer_and_have_an_age(tmp_path: Path) -> None:
    """R-S10, R-P08: none before the first one, and it goes on over a restart."""
    controller = Controller()
    controller.publish(tmp_path / "keys")
    pod = OrderedPod(tmp_path)
    registry = Scraped(SidecarCollector(pod.driven.loop, pod.gate, lambda: 5060.0))
    before = registry.get_sample_value("membudget_order_age_seconds")
    pod.send(controller.sign(order(2)))
    pod.send(controller.sign(order(2)))
    pod.send(controller.sign(order(1)))
    pod.send(controller.ask())
    counted = {
        answer: registry.get_sample_value("membudget_orders_total", {"answer": answer})
        for answer in ("Accepted", "Unchanged", "Older", "BadSignature")
    }
    assert dict.fromkeys(counted, 1.0) == counted
    assert 1 == registry.get_sample_value("membudget_bad_signatures_total")
    again = OrderedPod(tmp_path)
    registry = Scraped(SidecarCollector(again.driven.loop, again.gate, lambda: 5090.0))
    assert (None, 90) == (before, registry.get_sample_value("membudget_order_age_seconds"))


def test_without_a_controller_there_are_no_series_of_orders(registry: Scraped) -> None:
    """Guarantee 4: file mode has none to be 0."""
    assert [] == [line for line in series(registry) if "order" in line or "signature" in line]
