"""`membudget top`: one engine's memory, live.

Covers: asking again and again, a panel on a terminal and one line a look elsewhere. Does not cover what the figures
mean: docs/metrics.md. Exit code 0, or 1 when nobody answers at the first look; later it waits for the sidecar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from membudget_cli.figures import mebibytes, percent
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_cli.status import components_table, outlook
from membudget_contract.figures_api import HistorySample
from membudget_contract.sidecar_api import ActionRecord, Level, Status, ThresholdsView

SHOWN_ACTIONS: Final = 6
SHOWN_SAMPLES: Final = 60
BAR_CELLS: Final = 60
_STEPS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = {Level.NORMAL: "green", Level.SOFT: "yellow", Level.HARD: "dark_orange", Level.EMERGENCY: "red"}
_MARKS: Final = {"Soft": "s", "Hard": "h", "Emergency": "e"}


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown at once."""

    status: Status
    thresholds: ThresholdsView
    samples: Sequence[HistorySample]
    actions: Sequence[ActionRecord]


def show_top(client: SidecarClient, every_seconds: float, *, once: bool) -> int:
    """Show looks until interrupted, or one; returns the exit code."""
    console = Console()
    try:
        look = _look(client)
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if once:
        console.print(panel(look))
    elif console.is_terminal:
        _show_live(console, client, look, every_seconds)
    else:
        _show_lines(console, client, look, every_seconds)
    return 0


def _show_live(console: Console, client: SidecarClient, look: Look, every_seconds: float) -> None:
    with Live(panel(look), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_seconds)
            try:
                look = _look(client)
                live.update(panel(look), refresh=True)
            except SidecarUnreachable as error:
                live.update(Group(panel(look), Text(f"no answer, as of before: {error}", style="red")), refresh=True)


def _show_lines(console: Console, client: SidecarClient, look: Look, every_seconds: float) -> None:
    console.print(_line(look), soft_wrap=True, highlight=False)
    while True:
        time.sleep(every_seconds)
        try:
            text = _line(_look(client))
        except SidecarUnreachable as error:
            text = f"no answer: {error}"
        console.print(text, soft_wrap=True, highlight=False)


def _look(client: SidecarClient) -> Look:
    return Look(client.status(), client.thresholds(), client.history(SHOWN_SAMPLES).samples, client.actions())


def _line(look: Look) -> str:
    status = look.status
    usage, last = status.usage.value, look.actions[-1] if look.actions else None
    parts = ", ".join(
        f"{part.name} {mebibytes(part.owned_bytes + (part.mapped_bytes or 0))}" for part in status.components
    )
    done = f"  last {last.kind} {last.status}, freed {mebibytes(last.freed_bytes)}" if last else ""
    share = percent(usage, status.budget_bytes)
    return f"{mebibytes(usage)} of {mebibytes(status.budget_bytes)} ({share})  {status.level}  {parts}{done}"


def panel(look: Look) -> Panel:
    """One look, drawn."""
    status = look.status
    alerts = [Text(f"ALERT {alert.name}: {alert.detail}", style="red") for alert in status.alerts]
    body = Group(
        _bar(look),
        Text(f"last {len(look.samples)} samples  {sparkline(look.samples, status.budget_bytes)}"),
        Text(f"level {status.level}", style=_COLOURS[status.level]).append(f"   outlook: {outlook(status)}", "default"),
        *alerts,
        components_table(status),
        _actions_table(look.actions),
    )
    title = f"{status.policy or 'built-in profile'}  {status.mode}  {status.signal}  engine {status.engine}"
    return Panel(body, title=title, title_align="left")


def _bar(look: Look) -> Text:
    """The budget as a row of cells; letters mark where the rungs begin."""
    status, usage = look.status, look.status.usage.value
    filled = 0 if usage is None else min(BAR_CELLS, BAR_CELLS * usage // status.budget_bytes)
    cells = ["#" if cell < filled else "." for cell in range(BAR_CELLS)]
    for rung in look.thresholds.rungs:
        if rung.name in _MARKS:
            cells[max(0, min(BAR_CELLS - 1, BAR_CELLS * rung.entry_bytes // status.budget_bytes))] = _MARKS[rung.name]
    told = f"  {mebibytes(usage)} of {mebibytes(status.budget_bytes)} ({percent(usage, status.budget_bytes)})"
    return Text("".join(cells), style=_COLOURS[status.level]).append(told, style="bold")


def sparkline(samples: Sequence[HistorySample], budget_bytes: int) -> str:
    """Each sample as a step of eight, the budget being the highest; a blank where nothing was read."""
    steps = len(_STEPS)
    return "".join(
        " " if sample.used_bytes is None else _STEPS[min(steps - 1, sample.used_bytes * steps // budget_bytes)]
        for sample in samples
    )


def _actions_table(actions: Sequence[ActionRecord]) -> Table:
    table = Table("action", "result", "asked", "freed, as read", "why", title="last actions", title_justify="left")
    for record in actions[-SHOWN_ACTIONS:]:
        freed, asked = mebibytes(record.freed_bytes), mebibytes(record.asked_bytes or None)
        table.add_row(record.kind, record.status, asked, freed, record.cause)
    return table
