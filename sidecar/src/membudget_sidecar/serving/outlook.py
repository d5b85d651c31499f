"""Alerts, leak suspects and the forecast as messages.

Covers: from the loop's snapshots to what people are told. Pure. Does not raise (`alerts`), suspect (`leaks`) nor
foretell (`trend`).
"""

from __future__ import annotations

from membudget_contract.alerts_api import Alert, AlertList, Forecast, LeakList, LeakSuspect
from membudget_sidecar.deciding import trend
from membudget_sidecar.deciding.alerts import Alerts, RaisedAlert
from membudget_sidecar.deciding.leaks import Leaks
from membudget_sidecar.kernel.reading import Absent


def alert_list(alerts: Alerts) -> AlertList:
    """What is raised now, and what was."""
    return AlertList(
        active=tuple(map(_alert, alerts.active)),
        recent=tuple(map(_alert, alerts.recent)),
        count=alerts.count,
        monitoring_since=alerts.watching_since,
    )


def leak_list(leaks: Leaks, wall_ahead: float) -> LeakList:
    """The suspects; `wall_ahead` is by how much the wall clock is ahead of the monotonic one."""
    return LeakList(
        suspects=tuple(
            LeakSuspect(
                subject=each.subject,
                grown_bytes=each.grown_bytes,
                since=each.since + wall_ahead,
                bytes_per_hour=each.bytes_per_hour,
                likely=each.likely,
                confidence=each.confidence,
                reason=each.reason,
            )
            for each in leaks.suspects
        )
    )


def forecast(foretold: trend.Forecast | Absent, limit: int | None) -> Forecast:
    """When the limit is met, or why nothing can be said."""
    if isinstance(foretold, Absent):
        return Forecast(limit_bytes=limit, absent=foretold.reason)
    return Forecast(
        seconds=foretold.seconds,
        bytes_per_second=foretold.bytes_per_second,
        confidence=foretold.confidence,
        limit_bytes=limit,
    )


def _alert(raised: RaisedAlert) -> Alert:
    return Alert(name=raised.name, since=raised.since, detail=raised.detail, ended=raised.ended)
