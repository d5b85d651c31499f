"""Messages on the sidecar's local API: status, plan, actions, configure.

Covers: what `membudget status`, a person with curl and an agent ask one sidecar. Writes go through the Unix
socket only. Does not cover the control socket (`control_api`), single readings (`figures_api`), whose the bytes are
(`breakdown_api`), alerts (`alerts_api`) nor the document of a bug report (`diagnostics_api`).
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final

from msgspec import Meta

from membudget_contract import CONTRACT_VERSION
from membudget_contract.alerts_api import Alert, Forecast
from membudget_contract.control_api import CollectionReport, ComponentReport, GcReport, Means
from membudget_contract.figures_api import CgroupFigures, Figure, ProcessFigures, Share
from membudget_contract.orders import OrderNumber
from membudget_contract.plan import EffectivePlan, Message
from membudget_contract.policy import Mode, Signal
from membudget_contract.quantities import QUANTITY_PATTERN

MAX_TTL_SECONDS: Final = 86_400
"""What is asked for by hand ends within a day."""

_UNNAMED_GROUPS: Final = re.sub(r"\?P<[a-z]+>", "", QUANTITY_PATTERN)
"""Names of groups are Python's own."""

WrittenAmount = Annotated[
    str,
    Meta(
        description="A quantity like `120Mi`, or a percent of the plan's total.",
        # In the document only: the refusal of a quantity says more than that of a pattern.
        extra_json_schema={"pattern": f"^({_UNNAMED_GROUPS}|[0-9]{{1,3}}%)$"},
    ),
]

Description = Annotated[str, Meta(max_length=200)]
"""A thousand records keep theirs."""


class Level(enum.StrEnum):
    """The ladder's levels, lowest first."""

    NORMAL = "Normal"
    SOFT = "Soft"
    HARD = "Hard"
    EMERGENCY = "Emergency"

    @property
    def rank(self) -> int:
        """0 for Normal to 3 for Emergency."""
        return _LEVEL_RANKS[self]


_LEVEL_RANKS = {level: rank for rank, level in enumerate(Level)}


class ActionKind(enum.StrEnum):
    """What the sidecar can have done: Resize moves budgets, Reload and Persist free nothing, the others do."""

    RESIZE = "Resize"
    CLEANUP = Means.CLEANUP.value
    SPILL = Means.SPILL.value
    EVICT = Means.EVICT.value
    COLLECT = Means.COLLECT.value
    TRIM = Means.TRIM.value
    RELOAD = "Reload"
    PERSIST = "Persist"


class ActionStatus(enum.StrEnum):
    """How an action ended."""

    QUEUED = "Queued"
    RUNNING = "Running"
    EFFECTIVE = "Effective"
    DONE = "Done"
    """Asked for no bytes in particular; what was read before and after stands beside it."""
    INEFFECTIVE = "Ineffective"
    """Freed less than half of what was asked, by the figure that `verified_by` names."""
    HARMFUL = "Harmful"
    """Freed what was asked, and pages or requests suffered for it in the seconds after: `harm` has the figures."""
    UNVERIFIED = "Unverified"
    """Done, but what it freed could not be read before or after."""
    FAILED = "Failed"
    OBSERVED = "Observed"
    """Decided in Observe mode; nothing was done."""


class Witness(enum.StrEnum):
    """Who says what an action freed."""

    KERNEL = "Kernel"
    ENGINE_REPORT = "EngineReport"
    """The engine's own figures, where the kernel's could not be read: its word, and no more than that."""


class ActionRecord(Message, frozen=True, kw_only=True):
    """One action from the look that caused it to its verified effect. Bytes are the signal's; times are unix seconds.

    The fields `seen_...` are that look's, and None for a Resize and for an action by hand: nothing was seen for them.
    """

    id: int
    kind: ActionKind
    cause: str
    status: ActionStatus
    level: Level | None = None
    """The rung that acts."""
    plan_hash: str
    asked_bytes: int
    seen_at: float | None = None
    seen_signal_bytes: int | None = None
    seen_signal_source: str | None = None
    seen_limit_bytes: int | None = None
    seen_unmanaged_bytes: int | None = None
    seen_seconds_to_limit: float | None = None
    signal_before_bytes: int | None = None
    signal_after_bytes: int | None = None
    """Of a Cleanup that looked effective, as read again a second later."""
    signal_source: str | None = None
    """The files and names that both figures were read from; where no file could be read, whose word they are."""
    verified_by: Witness | None = None
    """None while nothing was read."""
    owned_before_bytes: int | None = None
    owned_after_bytes: int | None = None
    entries: int | None = None
    candidates: int | None = None
    """Entries that might have been taken; `entries` of them were."""
    exhausted: bool | None = None
    collections: dict[str, int] = {}
    queued_at: float
    started_at: float | None = None
    finished_at: float | None = None
    duration_seconds: float | None = None
    """From start to end by a clock that nobody sets, so it may differ from `finished_at - started_at`."""
    harm: str | None = None
    error: str | None = None

    @property
    def freed_bytes(self) -> int | None:
        """The fall as read before and after; negative when it grew meanwhile, None when one of them is unread."""
        if self.signal_before_bytes is None or self.signal_after_bytes is None:
            return None
        return self.signal_before_bytes - self.signal_after_bytes


class EnforcementChange(Message, frozen=True, kw_only=True):
    """Somebody stopped or started enforcement by hand."""

    at: float
    stopped_until: float | None
    """None: it was started again."""
    uid: int | None
    """Who asked, as the kernel knows it."""


class Enforcement(Message, frozen=True, kw_only=True):
    """Whether decisions are carried out, and who changed that by hand, oldest first."""

    contract: str = CONTRACT_VERSION
    active: bool
    mode: Mode
    """Of the plan, whatever was stopped by hand."""
    stopped_until: float | None
    """Unix seconds until which everything is as if the plan said Observe."""
    changes: tuple[EnforcementChange, ...] = ()


class StopEnforcement(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Do as if the plan said Observe, for a time."""

    ttl_seconds: Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS)]


class Status(Message, frozen=True, kw_only=True):
    """One sidecar at one moment."""

    contract: str = CONTRACT_VERSION
    mode: Mode
    level: Level
    signal: Signal
    usage: Figure
    limit: Figure
    resident: Figure
    pressure: Share
    """Usage over the budget, 0 to 1."""
    limit_percent: Share
    """Usage in percent of the container's limit."""
    available: Figure
    """Bytes between usage and the container's limit."""
    process: ProcessFigures
    cgroup: CgroupFigures
    gc: GcReport | None
    """Of the engine; None while it has not reported."""
    budget_bytes: int
    room_bytes: int | None
    engine: str
    """`Connected`, `WaitingForEngine` (never seen), `Unreachable` (seen before), or `Observed`: a process that knows
    nothing of membudget."""
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
    enforcement: Enforcement
    forecast: Forecast
    alerts: tuple[Alert, ...]
    """Those that hold now."""
    alert_count: int
    monitoring_since: float
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


class RungView(Message, frozen=True, kw_only=True):
    """One entry of the ladder in bytes, and how far the signal is from it."""

    name: str
    """`Collect`, `Soft`, `Hard` or `Emergency`."""
    action: str
    percent: int
    entry_bytes: int
    release_bytes: int
    free_bytes: int
    """What its action asks for at least; 0 for Collect, which frees what it finds."""
    cooldown_seconds: int
    distance_bytes: int | None
    """From the signal up to the entry, negative above it; None while the signal is not known."""
    headroom_bytes: int | None
    """Entered as well when the container's limit is as near as this; None: not asked for."""
    headroom_distance_bytes: int | None
    """From the signal up to that point; None without such an entry, limit or signal."""
    seconds_to_limit: int | None
    """Entered as well when the limit is foretold within so many seconds; None: not asked for."""


class ThresholdsView(Message, frozen=True, kw_only=True):
    """The ladder of the plan in force, lowest entry first."""

    contract: str = CONTRACT_VERSION
    level: Level
    signal: Signal
    usage: Figure
    budget_bytes: int
    forecast: Forecast
    rungs: tuple[RungView, ...]


class ActionRequest(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for one action by hand. `target_bytes` is how many bytes to free; Collect and Trim take none."""

    kind: ActionKind
    target_bytes: Annotated[int, Meta(ge=0, le=1 << 60)] = 0
    description: Description = ""


class ActionList(Message, frozen=True, kw_only=True):
    """Newest last."""

    contract: str = CONTRACT_VERSION
    actions: tuple[ActionRecord, ...]


class PolicyReloaded(Message, frozen=True, kw_only=True):
    """A reload was asked for: the policy is read again at the next look, the application by an action."""

    contract: str = CONTRACT_VERSION
    policy_asked: bool
    """False without a policy file: orders come by themselves."""
    action: ActionRecord
    """As it was queued; its number is for GET /v1/actions/{number}."""


class ConfigureRequest(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tighten the plan for a time; an empty request with ttlSeconds 0 ends it."""

    total: WrittenAmount | None = None
    components: dict[str, WrittenAmount] = {}
    ttl_seconds: Annotated[int, Meta(ge=0, le=MAX_TTL_SECONDS)]


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
