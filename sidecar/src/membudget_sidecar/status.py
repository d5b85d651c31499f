"""What the sidecar answers when asked how things are.

Covers: building the `Status` message from the loop's snapshots. Does not cover serving it (`api`). Runs in the
servers' thread: the loop may record one more sample between two statistics.
"""

from __future__ import annotations

from membudget_contract.plan import plan_hash
from membudget_contract.sidecar_api import Figure, Status
from membudget_sidecar.engine_link import CONNECTED
from membudget_sidecar.loop import Loop
from membudget_sidecar.order_keeper import OrderKeeper
from membudget_sidecar.reading import Absent, Fraction, Reading
from membudget_sidecar.sample import Sample


def status(loop: Loop, orders: OrderKeeper | None = None) -> Status:
    """One sidecar at this moment; `orders` are those held in controller mode."""
    held = orders.held if orders else None
    plan, keeper, watch = loop.keeper.effective, loop.keeper, loop.watch
    link, report, sample = loop.link, loop.link.report, watch.sample
    return Status(
        mode=plan.mode,
        level=watch.ladder.level,
        signal=plan.signal,
        usage=figure(watch.used.bytes, watch.used.source),
        limit=figure(sample.limit if isinstance(sample, Sample) else sample, "cgroup"),
        resident=figure(sample.process.resident if isinstance(sample, Sample) else sample, "VmRSS"),
        budget_bytes=plan.total_bytes,
        room_bytes=report.room_bytes if report else None,
        engine=link.state,
        engine_pid=link.process.pid if link.process and link.state == CONNECTED else None,
        plan_hash=plan_hash(plan),
        policy=plan.policy,
        order=held.number if held else None,
        policy_generation=held.policy.generation if held and held.policy else None,
        policy_problem=keeper.problem,
        overridden_until=keeper.overridden_until,
        transitions=watch.ladder.transitions,
        samples=loop.tally.samples,
        history_peak_bytes=_known(watch.history.peak()),
        history_mean_bytes=_known_fraction(watch.history.average()),
        history_deviation_bytes=_known_fraction(watch.history.deviation()),
        components=report.components if report else (),
        collections=report.collections if report else (),
        warnings=loop.oversights.warnings,
    )


def figure(reading: Reading, source: str) -> Figure:
    """A reading as a message: the value with its source, or the reason why there is none."""
    if isinstance(reading, Absent):
        return Figure(value=None, absent=reading.reason)
    return Figure(value=reading, source=source)


def _known(reading: Reading) -> int | None:
    return None if isinstance(reading, Absent) else reading


def _known_fraction(fraction: Fraction) -> float | None:
    return None if isinstance(fraction, Absent) else fraction
