"""What the local API says of the engine: status, history, thresholds, plan, explanation, alerts, leaks, breakdown.

Covers: operations that read. Does not cover those that change something (`local_actions`, `local_allocations`) nor
the figures themselves (`status`, `figures`, `breakdown`, `outlook`, `explain`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from membudget_contract.alerts_api import AlertList, LeakList
from membudget_contract.breakdown_api import Breakdown
from membudget_contract.explanation import Explanation
from membudget_contract.figures_api import HistoryList
from membudget_contract.plan import plan_hash
from membudget_contract.recommend import Recommendation
from membudget_contract.sidecar_api import PlanView, Status, ThresholdsView
from membudget_sidecar.deciding.breakdown import by_owner, by_region, collection_uses, component_uses
from membudget_sidecar.deciding.explain import explain
from membudget_sidecar.errors import Refused
from membudget_sidecar.history import DEFAULT_CAPACITY
from membudget_sidecar.kernel.mappings import read_regions
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.signal_kinds import resident_kinds, signal_kinds
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_keeper import OrderKeeper
from membudget_sidecar.serving.figures import figure, history_list
from membudget_sidecar.serving.operations import Operation, whole_number, whole_number_field
from membudget_sidecar.serving.outlook import alert_list, leak_list
from membudget_sidecar.serving.pod_report import recommendation
from membudget_sidecar.serving.routing import Request, Route
from membudget_sidecar.serving.status import status, thresholds
from membudget_sidecar.settings import SidecarSettings

LAST: Final = whole_number_field("last", "How many samples, newest last.", least=1, most=DEFAULT_CAPACITY, default=100)
BREAKDOWN_SECONDS: Final = 1.0
"""Each face reads a breakdown once a second at most: the walk holds a lock that the engine's mmap and munmap want."""
_NO_ENGINE: Final = Absent("no engine was seen yet")


@dataclass(frozen=True, slots=True)
class Served:
    """What the operations are about; `orders` are those held in controller mode."""

    loop: Loop
    orders: OrderKeeper | None
    settings: SidecarSettings
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    @property
    def wall_ahead(self) -> float:
        """Seconds by which the wall clock is ahead of the loop's: it may be set at any time."""
        return self.wall() - self.clock()


class LocalStatus:
    """Reads snapshots of the loop; only the breakdown reads the kernel."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._loop = served.loop
        self._broken_down: tuple[float, Breakdown] | None = None

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        return (
            Operation(Route("GET", "/v1/status", self.status), "How the engine and its sidecar are.", Status),
            Operation(
                Route("GET", "/v1/history", self.history), "The last samples of the signal.", HistoryList, query=(LAST,)
            ),
            Operation(
                Route("GET", "/v1/thresholds", self.thresholds),
                "The ladder in bytes, and how far each entry is.",
                ThresholdsView,
            ),
            Operation(Route("GET", "/v1/plan", self.plan), "The effective plan, each value with its layer.", PlanView),
            Operation(
                Route("GET", "/v1/explain", self.explain),
                "Why the ladder acts or does not, rung by rung.",
                Explanation,
                refusals=(503,),
            ),
            Operation(Route("GET", "/v1/alerts", self.alerts), "What is raised now, and what was.", AlertList),
            Operation(Route("GET", "/v1/leaks", self.leaks), "Who seems to leak.", LeakList),
            Operation(
                Route("GET", "/v1/breakdown", self.breakdown, waits=True),
                "Whose the bytes are; walks the engine's mappings.",
                Breakdown,
            ),
            Operation(
                Route("GET", "/v1/recommendations", self.recommendations),
                "Which budget this engine needs, from what it was seen to use.",
                Recommendation,
            ),
        )

    def status(self, _request: Request) -> Status:
        """GET /v1/status."""
        return status(self._loop, self._served.orders)

    def history(self, request: Request) -> HistoryList:
        """GET /v1/history."""
        return history_list(self._loop.watch.history, whole_number(request, LAST), self._served.wall_ahead)

    def thresholds(self, _request: Request) -> ThresholdsView:
        """GET /v1/thresholds."""
        return thresholds(self._loop)

    def plan(self, _request: Request) -> PlanView:
        """GET /v1/plan."""
        plan = self._loop.keeper.effective
        return PlanView(plan_hash=plan_hash(plan), plan=plan)

    def explain(self, _request: Request) -> Explanation:
        """GET /v1/explain."""
        seen = self._loop.watch.seen
        if seen is None:
            raise Refused(503, "NoLookYet", "the loop has not looked yet; ask again in a second")
        return explain(self._loop.watch.ladder, seen, self._loop.keeper.effective)

    def alerts(self, _request: Request) -> AlertList:
        """GET /v1/alerts."""
        return alert_list(self._loop.alerts)

    def leaks(self, _request: Request) -> LeakList:
        """GET /v1/leaks."""
        return leak_list(self._loop.watch.leaks, self._served.wall_ahead)

    def breakdown(self, _request: Request) -> Breakdown:
        """GET /v1/breakdown; runs in the one thread for handlers that wait."""
        now, last = self._served.clock(), self._broken_down
        if last is None or now - last[0] >= BREAKDOWN_SECONDS:
            last = self._broken_down = (now, self._breakdown())
        return last[1]

    def recommendations(self, _request: Request) -> Recommendation:
        """GET /v1/recommendations."""
        return recommendation(self._loop)

    def _breakdown(self) -> Breakdown:
        plan, link = self._loop.keeper.effective, self._loop.link
        process, report = link.process, link.report
        components = report.components if report else None
        if process is None:
            sample = regions = kinds = resident = proportional = _NO_ENGINE
        else:
            sample = process.sample(plan.signal, self._served.clock())
            regions = read_regions(process.process)
            kinds, resident = signal_kinds(sample), resident_kinds(sample.process)
            proportional = process.process.proportional_bytes()
        signal = by_owner(kinds, components, regions, plan.signal.value)
        return Breakdown(
            at=self._served.wall(),
            signal=signal,
            resident=by_owner(resident, components, regions, "resident"),
            regions=by_region(regions),
            proportional=figure(proportional, "smaps_rollup Pss"),
            components=component_uses(plan, components or (), signal),
            collections=collection_uses(report.collections if report else ()),
        )
