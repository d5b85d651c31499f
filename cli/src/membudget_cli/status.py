"""`membudget status`: one sidecar at a glance.

Covers: one sidecar, here or in a pod. Does not cover policies of a cluster (`cluster_status`).
Exit code 0, or 1 when nobody answers.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from membudget_cli.figures import document, mebibytes, percent, whole_seconds
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_contract.profiles import WORKING
from membudget_contract.sidecar_api import Status


def show_status(client: SidecarClient, output: str) -> int:
    """Print the status as a table or as a document; returns the exit code."""
    try:
        status = client.status()
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(status, output))
        return 0
    console = Console()
    console.print(_summary(status), highlight=False)
    console.print(components_table(status))
    if status.collections:
        console.print(_collections_table(status))
    return 0


def _summary(status: Status) -> str:
    usage = status.usage.value
    share = percent(usage, status.budget_bytes)
    lines = [
        f"policy   {status.policy or 'none, built-in profile'}  ({status.mode})",
        f"usage    {mebibytes(usage)} of {mebibytes(status.budget_bytes)} ({share}), {status.signal}",
        f"room     {mebibytes(status.room_bytes)} of managed bytes",
        f"limit    {mebibytes(status.limit.value)}" + (f" ({status.limit.absent})" if status.limit.absent else ""),
        f"level    {status.level}, {status.transitions} transitions, {_enforcement(status)}",
        f"outlook  {outlook(status)}",
        f"engine   {status.engine}" + (f", pid {status.engine_pid}" if status.engine_pid else ""),
    ]
    if status.usage.absent:
        lines.append(f"no usage: {status.usage.absent}")
    if status.policy_problem:
        lines.append(f"problem  {status.policy_problem}\n         the last good plan holds")
    lines += [f"ALERT    {alert.name}: {alert.detail}" for alert in status.alerts]
    return "\n".join(lines)


def _enforcement(status: Status) -> str:
    enforcement = status.enforcement
    if enforcement.active:
        return "enforcing"
    if enforcement.stopped_until is None:
        return "observing"
    return f"enforcement stopped by hand until {datetime.fromtimestamp(enforcement.stopped_until, UTC):%H:%M:%S} UTC"


def outlook(status: Status) -> str:
    """When the limit is met, or why nothing can be said."""
    forecast = status.forecast
    if forecast.seconds is None:
        return f"no time to the limit: {forecast.absent}"
    trust = f"{100 * (forecast.confidence or 0):.0f} % confidence"
    return f"{mebibytes(forecast.limit_bytes)} are met in {whole_seconds(forecast.seconds)}, {trust}"


def components_table(status: Status) -> Table:
    """Bytes by component, and all the rest of the resident set: interpreter, libraries, requests."""
    table = Table("component", "owned", "mapped", "ceiling", "entries", "on disk")
    for part in status.components:
        table.add_row(
            part.name,
            mebibytes(part.owned_bytes),
            mebibytes(part.mapped_bytes),
            mebibytes(part.budget_bytes),
            str(part.entries) if part.entries else "-",
            mebibytes(part.spilled_bytes) if part.spilled_bytes else "-",
        )
    if status.resident.value is not None:
        managed = sum(part.owned_bytes + (part.mapped_bytes or 0) for part in status.components)
        table.add_row(WORKING, mebibytes(max(0, status.resident.value - managed)), "-", "not enforced", "-", "-")
    return table


def _collections_table(status: Status) -> Table:
    table = Table("collection", "in", "class", "owned", "entries")
    for use in status.collections:
        table.add_row(use.name, use.component, use.priority, mebibytes(use.owned_bytes), str(use.entries))
    return table
