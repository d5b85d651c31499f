"""What makes each alert fire: its real cause, brought about in a running fleet.

Covers: the causes and their order. An alert is in the table once; `test_alert_causes` holds the table against the
rules. Does not cover thresholds and durations to the last second: promtool's unit tests in `alerts/` do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from membudget_contract.quantities import MIB
from observability.observed_fleet import ObservedFleet
from observability.prometheus_server import Firing, Prometheus, wait_for

FIRES_WITHIN_SECONDS: Final = 75.0
"""The slowest is the leak: 20 s of calm, then 48 s of steady growth, the shortest that is called a leak."""
PROVOKED_WITHIN_SECONDS: Final = 60.0
SETTLED_SECONDS: Final = 22
"""What grows earlier belongs to the start of an engine (`membudget_sidecar.deciding.growth.PAUSE_SECONDS`)."""
SWINGS: Final = 3


class Cause(NamedTuple):
    """`provoke` returns when the cause is there; the alerts follow."""

    alerts: tuple[str, ...]
    pod: str
    provoke: Callable[[ObservedFleet, Prometheus], None]


@dataclass
class Story:
    """What fired when nothing had happened yet, what fired of each cause, and how long all of it took."""

    at_rest: set[Firing]
    fired: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Alerts with the pod of their cause."""
    seconds: float = 0.0


def tell(fleet: ObservedFleet, server: Prometheus) -> Story:
    """Bring about one cause after the other; meanwhile one pod leaks."""
    story, began = Story(server.firing()), time.monotonic()
    leak = threading.Thread(target=_grow_once_settled, args=(fleet, server), daemon=True)
    leak.start()
    for cause in CAUSES:
        cause.provoke(fleet, server)
        expected = {(alert, cause.pod) for alert in cause.alerts}
        deadline = time.monotonic() + FIRES_WITHIN_SECONDS
        while not expected <= story.fired and time.monotonic() < deadline:
            story.fired |= {(one.alert, one.pod) for one in server.firing()} & expected
            time.sleep(0.2)
    leak.join()
    story.seconds = time.monotonic() - began
    return story


def _crowd_once(fleet: ObservedFleet, server: Prometheus) -> None:
    """With memory that nobody manages it takes 94 of 100 MiB, under a budget of 80; caches have 4 MiB to give."""
    empty = server.query('min_over_time(membudget_signal_bytes{pod="crowded-0"}[5m])')[0][1]
    fleet.crowded.tell(f"fill docs {4 * MIB}")
    fleet.crowded.tell(f"hold {94 * MIB - 4 * MIB - int(empty)}")


def _swing(fleet: ObservedFleet, server: Prometheus) -> None:
    """It comes and goes; each time the ladder asks the caches for more than they have."""
    for swing in range(1, SWINGS):
        wait_for(
            lambda count=swing: _ineffective(server) >= count,
            PROVOKED_WITHIN_SECONDS,
            f"action {swing} was ineffective",
        )
        fleet.crowded.tell("hold 0")
        room = f'membudget_room_bytes{{pod="crowded-0"}} > {8 * MIB}'
        wait_for(lambda room=room: bool(server.query(room)), PROVOKED_WITHIN_SECONDS, "there is room again")
        _crowd_once(fleet, server)


def _fill_the_spill_folder(fleet: ObservedFleet, server: Prometheus) -> None:
    """A folder of 8 MiB, and 16 to be spilled."""
    del server
    fleet.plain.tell(f"fill docs {17 * MIB}")
    fleet.plain.sidecar.ask("POST", "/v1/actions", {"kind": "Spill", "targetBytes": 16 * MIB})


def _ask_for_what_cannot_be_read(fleet: ObservedFleet, server: Prometheus) -> None:
    """The working set is a figure of a cgroup, and this pod's process has none of its own."""
    del server
    fleet.plain.write_policy("{budget: {total: 100Mi, signal: WorkingSet}, sampling: {intervalSeconds: 1}}")


def _write_a_wrong_policy(fleet: ObservedFleet, server: Prometheus) -> None:
    """A field that does not exist."""
    del server
    fleet.plain.write_policy("{budget: {totl: 100Mi}}")


def _kill_the_engine(fleet: ObservedFleet, server: Prometheus) -> None:
    """SIGKILL, and nobody starts it again."""
    del server
    fleet.plain.process.kill()


def _ask_more_than_the_cache_holds(fleet: ObservedFleet, server: Prometheus) -> None:
    """A cache of 2 MiB, and thousands of questions of which none is asked twice."""
    fleet.apply_policy("140Mi", semanticCache="2Mi")
    ceiling = 'membudget_component_budget_bytes{pod="retriever-0", component="semanticCache"} <= 2097152'
    wait_for(lambda: bool(server.query(ceiling)), PROVOKED_WITHIN_SECONDS, "the cache has its new ceiling")
    fleet.retriever.ask(0, 2000)


def _freeze_a_sidecar(fleet: ObservedFleet, server: Prometheus) -> None:
    """It takes connections and answers none, while a policy is edited."""
    del server
    fleet.freeze_sidecar()
    fleet.apply_policy("130Mi")


def _thaw(fleet: ObservedFleet, server: Prometheus) -> None:
    """What is awaited now has begun long ago: a pod grows by 1 MiB a second."""
    del server
    fleet.thaw_sidecar()


CAUSES: Final = (
    Cause(
        ("MembudgetBudgetExceeded", "MembudgetLimitNear", "MembudgetEmergency", "MembudgetPolicyAlert"),
        "crowded-0",
        _crowd_once,
    ),
    Cause(("MembudgetActionIneffective",), "crowded-0", _swing),
    Cause(("MembudgetSpillFull",), "plain-0", _fill_the_spill_folder),
    Cause(("MembudgetSidecarBlind",), "plain-0", _ask_for_what_cannot_be_read),
    Cause(("MembudgetPlanStale",), "plain-0", _write_a_wrong_policy),
    Cause(("MembudgetEngineUnreachable",), "plain-0", _kill_the_engine),
    Cause(("MembudgetCacheThrashing",), "retriever-0", _ask_more_than_the_cache_holds),
    Cause(("MembudgetPushFailing",), "membudget-controller-0", _freeze_a_sidecar),
    Cause(("MembudgetLimitReachedSoon", "MembudgetLeakSuspected"), "leaky-0", _thaw),
)


def _grow_once_settled(fleet: ObservedFleet, server: Prometheus) -> None:
    seen = f'count_over_time(membudget_signal_bytes{{pod="leaky-0"}}[2m]) >= {SETTLED_SECONDS}'
    wait_for(lambda: bool(server.query(seen)), PROVOKED_WITHIN_SECONDS, "the leaky pod has settled")
    fleet.leaky.send("grow")


def _ineffective(server: Prometheus) -> float:
    counted = server.query('sum(membudget_actions_total{pod="crowded-0", status="Ineffective"})')
    return counted[0][1] if counted else 0.0
