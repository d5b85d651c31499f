"""What is shown while the demo runs: a live panel on a terminal, plain lines elsewhere.

Covers: showing one `Moment`. Does not collect it (`run`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from membudget_cli.figures import mebibytes, milliseconds, percent
from membudget_cli.status import components_table
from membudget_contract.sidecar_api import ActionRecord, Level, Status

BAR_CELLS: Final = 60
PLAIN_EVERY_SECONDS: Final = 5
SHOWN_ACTIONS: Final = 5
_COLOURS: Final = {Level.NORMAL: "green", Level.SOFT: "yellow", Level.HARD: "dark_orange", Level.EMERGENCY: "red"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything shown at once."""

    phase: str
    second: int
    seconds: int
    status: Status
    resident_bytes: int | None
    actions: tuple[ActionRecord, ...]
    answered: int
    failed: int
    per_second: float
    cached_share: float | None
    p50: float | None
    p99: float | None


Show = Callable[[Moment], None]


@contextlib.contextmanager
def shown(console: Console) -> Generator[Show]:
    """A function that shows a moment, the right way for this console."""
    if not console.is_terminal:
        yield lambda moment: _plain(console, moment)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda moment: live.update(_panel(moment))


def _plain(console: Console, moment: Moment) -> None:
    if moment.second % PLAIN_EVERY_SECONDS:
        return
    status = moment.status
    parts = ", ".join(
        f"{part.name} {mebibytes(part.owned_bytes + (part.mapped_bytes or 0))}" for part in status.components
    )
    console.print(
        f"{moment.second:4d} s  {mebibytes(moment.resident_bytes)} of {mebibytes(status.budget_bytes)} "
        f"({percent(moment.resident_bytes, status.budget_bytes)})  {status.level}  {parts}  "
        f"{moment.per_second:.0f} queries/s, p50 {milliseconds(moment.p50)}, p99 {milliseconds(moment.p99)}, "
        f"failed {moment.failed}",
        soft_wrap=True,
        highlight=False,
    )


def _panel(moment: Moment) -> Panel:
    status = moment.status
    queries = (
        f"queries {moment.answered}, failed {moment.failed}, {moment.per_second:.0f}/s, "
        f"p50 {milliseconds(moment.p50)}, p99 {milliseconds(moment.p99)}, "
        f"from the cache {'-' if moment.cached_share is None else f'{100 * moment.cached_share:.0f} %'}"
    )
    body = Group(
        Text(moment.phase, style="bold"),
        _bar(moment),
        Text(f"level {status.level}", style=_COLOURS[status.level]),
        components_table(status),
        _actions_table(moment.actions),
        Text(queries),
    )
    return Panel(body, title=f"membudget demo  {moment.second} of {moment.seconds} s", title_align="left")


def _bar(moment: Moment) -> Text:
    """The budget as a row of cells, with a mark where the soft rung begins (80 %)."""
    budget, resident = moment.status.budget_bytes, moment.resident_bytes or 0
    filled = min(BAR_CELLS, BAR_CELLS * resident // budget)
    soft = BAR_CELLS * 80 // 100
    cells = "".join("|" if cell == soft else "#" if cell < filled else "." for cell in range(BAR_CELLS))
    label = f"  resident {mebibytes(moment.resident_bytes)} of {mebibytes(budget)} ({percent(resident, budget)})"
    return Text(cells, style=_COLOURS[moment.status.level]).append(label, style="bold")


def _actions_table(actions: tuple[ActionRecord, ...]) -> Table:
    table = Table("action", "result", "asked", "freed", "why", title="last actions", title_justify="left")
    for record in actions[-SHOWN_ACTIONS:]:
        table.add_row(
            record.kind, record.status, mebibytes(record.asked_bytes), mebibytes(record.freed_bytes), record.cause
        )
    return table
