"""`membudget diagnose`: the document that a bug report needs, and its problems at a glance.

Covers: one sidecar, here or in a pod. Exit code 0 without problems, 1 with some or when nobody answers.
"""

from __future__ import annotations

import sys

from rich.console import Console

from membudget_cli.figures import document, mebibytes, whole_seconds
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_contract.diagnostics_api import Diagnostics


def show_diagnostics(client: SidecarClient, output: str) -> int:
    """Print the problems, or the whole document; returns the exit code."""
    try:
        found = client.diagnostics()
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(found, output))
    else:
        Console().print(_summary(found), highlight=False, markup=False, soft_wrap=True)
    return 1 if found.problems else 0


def _summary(found: Diagnostics) -> str:
    versions, loop, status = found.versions, found.loop, found.status
    lines = [
        f"sidecar  {versions.sidecar}, Python {versions.python}, {versions.machine}, kernel {versions.kernel}",
        f"looked   {whole_seconds(loop.looked_ago_seconds)} ago, {loop.samples} samples",
        f"itself   {mebibytes(loop.resident_bytes)} resident, {loop.threads} threads",
        f"plan     {status.policy or 'built-in profile'}, from {found.policy_source}, {found.plan.plan_hash[:12]}",
        f"usage    {mebibytes(status.usage.value)} of {mebibytes(status.budget_bytes)}, {status.level}",
        f"engine   {status.engine}" + (f", pid {status.engine_pid}" if status.engine_pid else ""),
        *(f"set      {name}" for name in found.environment),
        *(f"failed   {record.kind} {record.status}: {record.error or record.cause}" for record in found.failed_actions),
        *(f"PROBLEM  {problem}" for problem in found.problems),
    ]
    return "\n".join(lines if found.problems else [*lines, "no problems"])
