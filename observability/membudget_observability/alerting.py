"""Alerts: what a person should hear of, when, how urgent, and where it says what to do.

Covers: conditions over metrics and recording rules. Does not cover the sidecar's own alerts, which follow the figures
of a policy (`membudget_sidecar.alerts`): MembudgetPolicyAlert hands those on. Each alert has a page in docs/runbooks.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from membudget_runtime.spill import BATCH_BYTES

RUNBOOK_BASE: Final = "https://membudget.dev/runbooks"
"""The chart puts `observability.rules.runbookBaseUrl` in its place."""
WHO: Final = "{{ with $labels.pod }}Pod {{ $labels.namespace }}/{{ . }}{{ else }}{{ $labels.instance }}{{ end }}"

_STARTING: Final = (
    "(membudget_budget_bytes unless on (job, instance) membudget_signal_peak_bytes offset 5m"
    " or resets(membudget_signal_peak_bytes[5m]) > 0)"
)
"""Engines that began within the last 5 minutes: there was no highest use then, or it has fallen since, which it does
with another process only. They grow until they hold what they hold: for 2 minutes at most
(`membudget_sidecar.deciding.growth.START_UP_SECONDS`), and what that raised stays for a window and a minute."""


class Severity(enum.StrEnum):
    """Critical: somebody should look now. Warning: today. Info: when looking anyway."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class AlertRule(NamedTuple):
    """`lasting` is how long the condition must hold; `description` follows the name of the pod."""

    name: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    description: str

    @property
    def runbook_url(self) -> str:
        """Its page."""
        return f"{RUNBOOK_BASE}/{self.name}"


ALERTS: Final = (
    AlertRule(
        "MembudgetBudgetExceeded",
        "instance:membudget_signal_budget:ratio > 1",
        "5m",
        Severity.WARNING,
        "An engine uses more memory than its budget.",
        "uses {{ $value | humanizePercentage }} of its budget, and the ladder does not bring it down.",
    ),
    AlertRule(
        "MembudgetLimitNear",
        "membudget_limit_usage_ratio > 0.9",
        "2m",
        Severity.CRITICAL,
        "An engine is close to its container's memory limit.",
        "uses {{ $value | humanizePercentage }} of its container's limit; at the limit the kernel kills it.",
    ),
    AlertRule(
        "MembudgetEmergency",
        "membudget_ladder_level == 3",
        "1m",
        Severity.CRITICAL,
        "The ladder stays at its last rung.",
        "is on the emergency rung: cleanup, spill and eviction do not bring it below.",
    ),
    AlertRule(
        "MembudgetActionIneffective",
        "instance:membudget_actions_ineffective:increase15m >= 3",
        "1m",
        Severity.WARNING,
        "Actions free less than half of what they were asked for.",
        'had {{ $value | printf "%.0f" }} actions within 15 minutes that freed less than half of what was asked.',
    ),
    AlertRule(
        "MembudgetLeakSuspected",
        "membudget_leak_suspected_bytes > 0",
        "5m",
        Severity.WARNING,
        "Memory grows steadily and is not given back.",
        "may leak: {{ $labels.component }} grew steadily by {{ $value | humanize1024 }}B and gave none of it back.",
    ),
    AlertRule(
        "MembudgetLimitReachedSoon",
        "membudget_limit_forecast_seconds < 1800 and membudget_limit_forecast_confidence_ratio >= 0.5",
        "1m",
        Severity.WARNING,
        "Growing as it does, an engine meets its container's limit within half an hour.",
        "meets its container's limit in {{ $value | humanizeDuration }} if it grows on as it did.",
    ),
    AlertRule(
        "MembudgetPlanStale",
        "membudget_policy_problem == 1 or membudget_plan_held == 0",
        "10m",
        Severity.WARNING,
        "An engine does not hold the newest plan.",
        "holds an older plan: the newest policy was not taken as written, or the engine has not taken over the plan.",
    ),
    AlertRule(
        "MembudgetPushFailing",
        "(membudget_controller_pods - membudget_controller_pods_programmed > 0"
        " and instance:membudget_controller_pushes_failed:increase15m > 0)"
        " or membudget_controller_policies_known == 0",
        "10m",
        Severity.WARNING,
        "The controller's orders do not arrive.",
        "sends orders that are not acknowledged, or cannot list the policies; pods keep their last plan.",
    ),
    AlertRule(
        "MembudgetSidecarBlind",
        "membudget_budget_bytes unless ignoring (signal) membudget_signal_bytes unless membudget_engine_up == 0",
        "2m",
        Severity.CRITICAL,
        "A sidecar cannot read how much memory its engine uses.",
        "has no reading of its signal, so nothing is decided; the engine's own bounds hold meanwhile.",
    ),
    AlertRule(
        "MembudgetEngineUnreachable",
        "membudget_engine_up == 0",
        "2m",
        Severity.WARNING,
        "An engine does not answer its sidecar.",
        "has an engine that does not answer on its control socket: budgets cannot be moved, nothing can be freed.",
    ),
    AlertRule(
        "MembudgetSpillFull",
        "(membudget_spill_bytes / membudget_spill_limit_bytes > 0.95"
        f" or membudget_spill_limit_bytes - membudget_spill_bytes <= {BATCH_BYTES}) and membudget_spill_bytes > 0",
        "5m",
        Severity.WARNING,
        "The spill folder is full.",
        "has no room left in its spill folder; the next rung evicts what would have been kept on disk.",
    ),
    AlertRule(
        "MembudgetCacheThrashing",
        "rate(membudget_engine_cache_evictions_total[5m]) > rate(membudget_engine_cache_hits_total[5m])"
        " and rate(membudget_engine_cache_evictions_total[5m]) > 0.1",
        "15m",
        Severity.WARNING,
        "A cache evicts more entries than it answers from.",
        "evicts {{ $value | humanize }} entries a second from {{ $labels.cache }}, more than it has hits.",
    ),
    AlertRule(
        "MembudgetPolicyAlert",
        'membudget_alert_active{alert!="Growth"} == 1 or (membudget_alert_active{alert="Growth"} == 1'
        f" unless on (job, instance) {_STARTING})",
        "1m",
        Severity.INFO,
        "A figure of a policy's alerts was passed.",
        "raised {{ $labels.alert }} by the figures of its policy; the sidecar's log has the detail.",
    ),
)
