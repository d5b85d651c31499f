"""Messages on the sidecar's local API: status, plan, actions, configure.

Covers: what `membudget status`, a person with curl and an agent ask one sidecar. Writes go through the Unix
socket only. Does not cover the control socket (`control_api`).
"""

from __future__ import annotations

import enum

from membudget_contract import CONTRACT_VERSION
from membudget_contract.control_api import CollectionReport, ComponentReport, Means
from membudget_contract.orders import OrderNumber
from membudget_contract.plan import EffectivePlan, Message
from membudget_contract.policy import Mode, Signal


class Level(enum.StrEnum):
    """The ladder's levels, lowest first."""

    NORMAL = "Normal"
    SOFT = "Soft"
    HARD = "Hard"
    EMERGENCY = "Emergency"

    @property
    def rank(self) -> int:
        """0 for Normal to 3 for Emergency."""
        return list(Level).index(self)


class ActionKind(enum.StrEnum):
    """What the sidecar can have done; Resize moves budgets, the others give bytes back."""

    RESIZE = "Resize"
    CLEANUP = Means.CLEANUP.value
    SPILL = Means.SPILL.value
    EVICT = Means.EVICT.value
    COLLECT = Means.COLLECT.value
    TRIM = Means.TRIM.value


class ActionStatus(enum.StrEnum):
    """How an action ended."""

    QUEUED = "Queued"
    RUNNING = "Running"
    EFFECTIVE = "Effective"
    DONE = "Done"
    """Asked for no bytes in particular; what was read before and after stands beside it."""
    INEFFECTIVE = "Ineffective"
    UNVERIFIED = "Unverified"
    """Done, but the kernel's figure could not be read before or after."""
    FAILED = "Failed"
    OBSERVED = "Observed"
    """Decided in Observe mode; nothing was done."""


class ActionRecord(Message, frozen=True, kw_only=True):
    """One action from its cause to its verified effect. Bytes are the signal's; times are unix seconds."""

    id: int
    kind: ActionKind
    cause: str
    status: ActionStatus
    plan_hash: str
    asked_bytes: int
    signal_before_bytes: int | None = None
    signal_after_bytes: int | None = None
    """Of a Cleanup that looked effective, as read again a second later."""
    signal_source: str | None = None
    owned_before_bytes: int | None = None
    owned_after_bytes: int | None = None
    entries: int | None = None
    exhausted: bool | None = None
    collections: dict[str, int] = {}
    queued_at: float
    started_at: float | None = None
    finished_at: float | None = None
    error: str | None = None

    @property
    def freed_bytes(self) -> int | None:
        """The signal's fall as read before and after; negative when it grew meanwhile, None when unread."""
        if self.signal_before_bytes is None or self.signal_after_bytes is None:
            return None
        return self.signal_before_bytes - self.signal_after_bytes


class Figure(Message, frozen=True, kw_only=True):
    """A reading, or why there is none."""

    value: int | None
    source: str | None = None
    absent: str | None = None


class Status(Message, frozen=True, kw_only=True):
    """One sidecar at one moment."""

    contract: str = CONTRACT_VERSION
    mode: Mode
    level: Level
    signal: Signal
    usage: Figure
    limit: Figure
    resident: Figure
    budget_bytes: int
    room_bytes: int | None
    engine: str
    """`Connected`, `WaitingForEngine` (never seen) or `Unreachable` (seen before)."""
    engine_pid: int | None
    plan_hash: str
    policy: str | None
    order: OrderNumber | None = None
    """Of the controller's order that is held; None without a controller, or before its first."""
    policy_generation: int | None = None
    """Of the policy that order came from; None where the pod has its built-in profile."""
    policy_problem: str | None
    """Why the newest policy was not taken; the last good plan holds meanwhile."""
    overridden_until: float | None
    """Unix seconds until which a `configure` call holds."""
    transitions: int
    samples: int
    history_peak_bytes: int | None
    history_mean_bytes: float | None
    history_deviation_bytes: float | None
    components: tuple[ComponentReport, ...] = ()
    collections: tuple[CollectionReport, ...] = ()
    warnings: tuple[str, ...] = ()
    """Names in the policy or the environment that nothing here answers to; the plan holds all the same."""


class PlanView(Message, frozen=True, kw_only=True):
    """The effective plan, each value with its layer: the answer to `explain`."""

    contract: str = CONTRACT_VERSION
    plan_hash: str
    plan: EffectivePlan


class ActionRequest(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for one action by hand."""

    kind: ActionKind
    target_bytes: int = 0
    description: str = ""


class ActionList(Message, frozen=True, kw_only=True):
    """Newest last."""

    contract: str = CONTRACT_VERSION
    actions: tuple[ActionRecord, ...]


class ConfigureRequest(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tighten the plan for a time; an empty request with ttlSeconds 0 ends it."""

    total: str | None = None
    components: dict[str, str] = {}
    ttl_seconds: int


class Limits(Message, frozen=True, kw_only=True):
    """What holds, in bytes."""

    total_bytes: int
    components: dict[str, int]


class Configured(Message, frozen=True, kw_only=True):
    """What held before a `configure` call and what holds now."""

    contract: str = CONTRACT_VERSION
    previous: Limits
    current: Limits
    expires_at: float | None
