"""`membudget act`: have a sidecar do one thing, and see what came of it.

Covers: asking, waiting for the end, showing the record. Does not cover deciding: by hand nothing is asked of the
ladder. Exit code 0 when it did what was asked; 1 when it did not, was only recorded (Observe), or nobody answers.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from rich.console import Console
from rich.table import Table

from membudget_cli.figures import document, mebibytes, milliseconds
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_contract.sidecar_api import ActionRecord, ActionRequest, ActionStatus

WAIT_SECONDS: Final = 30.0
"""Others may wait before it, and an engine has 10 s to answer each."""
LOOK_SECONDS: Final = 0.1

_UNENDED: Final = frozenset({ActionStatus.QUEUED, ActionStatus.RUNNING})
_DONE: Final = frozenset({ActionStatus.EFFECTIVE, ActionStatus.DONE, ActionStatus.UNVERIFIED})


def act(client: SidecarClient, asked: ActionRequest, output: str) -> int:
    """Ask, wait and print the record as a table or as a document; returns the exit code."""
    try:
        record = ended(client, client.submit(asked))
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(record, output))
    else:
        Console().print(_record_table(record))
    if record.status in _UNENDED:
        sys.stderr.write(f"membudget: still {record.status} after {WAIT_SECONDS:.0f} s; it goes on\n")
    return 0 if record.status in _DONE else 1


def ended(client: SidecarClient, record: ActionRecord) -> ActionRecord:
    """The record as it ended, or as it stands after WAIT_SECONDS; raises SidecarUnreachable."""
    until = time.monotonic() + WAIT_SECONDS
    while record.status in _UNENDED and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        record = client.action(record.id)
    return record


def _record_table(record: ActionRecord) -> Table:
    table = Table(f"action {record.id}", record.kind, show_header=True)
    rows = {
        "ended": record.status,
        "asked": mebibytes(record.asked_bytes or None),
        "freed, as read": mebibytes(record.freed_bytes),
        "signal": f"{mebibytes(record.signal_before_bytes)} -> {mebibytes(record.signal_after_bytes)}",
        "owned": f"{mebibytes(record.owned_before_bytes)} -> {mebibytes(record.owned_after_bytes)}",
        "entries": "-" if record.entries is None else str(record.entries),
        "took": milliseconds(record.duration_seconds),
        "read from": record.signal_source or "-",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for name, value in (("error", record.error), ("harm", record.harm)):
        if value is not None:
            table.add_row(name, value)
    return table
