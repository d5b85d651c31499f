"""Asks a control socket what a sidecar asks, fifty times a second, from a process of its own, and times each answer.

Usage: control_prober.py SOCKET. It ends when the standard input does; then each call is one line of JSON on the
standard output. How late its own sleeps end is told beside it: on a busy machine that much of every time is the
machine's and not the engine's.
"""

from __future__ import annotations

import http.client
import itertools
import os
import select
import sys
import time
from pathlib import Path

import msgspec

from membudget_contract.control_api import ALLOCATIONS_PATH, REPORT_PATH, TRACKED_PATH
from membudget_contract.unix_http import UnixConnection

PERIOD_SECONDS = 0.02
LONGEST_SECONDS = 20.0


class Called(msgspec.Struct, frozen=True):
    """One call. Moments in seconds of the machine's monotonic clock."""

    asked_at: float
    seconds: float
    path: str
    status: int
    """0: no answer came."""
    late_seconds: float
    """How much later than asked for the sleep before it ended."""


def main() -> None:
    """Ask until told to end, then tell."""
    connection = UnixConnection(Path(sys.argv[1]), LONGEST_SECONDS)
    called = list[Called]()
    for path in itertools.cycle((REPORT_PATH, ALLOCATIONS_PATH, REPORT_PATH, TRACKED_PATH)):
        slept_at = time.monotonic()
        if select.select([sys.stdin], [], [], PERIOD_SECONDS)[0]:
            break
        asked_at = time.monotonic()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        called.append(Called(asked_at, time.monotonic() - asked_at, path, status, asked_at - slept_at - PERIOD_SECONDS))
    for call in called:
        os.write(1, msgspec.json.encode(call) + b"\n")


if __name__ == "__main__":
    main()
