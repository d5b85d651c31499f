"""The one document that a bug report needs: what runs, what holds, what was read, what went wrong.

Covers: the message. No secrets are in it: of the environment only names, of keys nothing. Does not make it (the
sidecar's `local_diagnostics`).
"""

from __future__ import annotations

from membudget_contract import CONTRACT_VERSION
from membudget_contract.alerts_api import AlertList, LeakList
from membudget_contract.breakdown_api import Breakdown
from membudget_contract.plan import Message
from membudget_contract.sidecar_api import ActionRecord, PlanView, Status, ThresholdsView


class Versions(Message, frozen=True, kw_only=True):
    """What runs."""

    sidecar: str
    python: str
    kernel: str
    machine: str


class LoopFigures(Message, frozen=True, kw_only=True):
    """How the sidecar itself does."""

    looked_ago_seconds: float
    """Since the last look ended; much more than the interval: the loop is stuck."""
    samples: int
    absent_readings: dict[str, int]
    sample_cpu_seconds: float
    resident_bytes: int | None
    """Of the sidecar."""
    threads: int


class Diagnostics(Message, frozen=True, kw_only=True):
    """Everything at one moment."""

    contract: str = CONTRACT_VERSION
    at: float
    versions: Versions
    run_folder: str
    policy_source: str
    """The policy file, or `orders`, or `kept plan`."""
    environment: tuple[str, ...]
    """Names of the `MEMBUDGET_` variables that are set."""
    loop: LoopFigures
    problems: tuple[str, ...]
    """What is not as it should be, in sentences; empty when nothing is known."""
    plan: PlanView
    status: Status
    thresholds: ThresholdsView
    breakdown: Breakdown
    alerts: AlertList
    leaks: LeakList
    failed_actions: tuple[ActionRecord, ...]
    """The last ones that failed, were ineffective or harmful."""
