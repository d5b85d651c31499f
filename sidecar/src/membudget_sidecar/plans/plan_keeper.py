"""The plan in force: taken from a policy, kept on disk, resolved against the live limit and overrides.

Covers: adopting a plan or refusing it with the reason while the last good one holds, `configure` and a stop of
enforcement with their times, following the limit. Does not cover where plans come from (`policy_file`, `order_keeper`)
nor enforcing (`loop`).
Thread-safe.

Invariants: there is always a plan in force; a total in bytes is cut to the container's limit once that is known. A
plan that cannot hold yet, for want of a limit or of room over its floor, waits and is tried at every `follow`. One
that came before its floor could be known is held against it once it is, and gives way to the last good plan.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from membudget_contract.compile import compile_policy
from membudget_contract.errors import BudgetBelowFloor, ContractError, NoLimit
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_contract.plan import EffectivePlan, Layer, Plan
from membudget_contract.policy import Mode, Signal
from membudget_contract.quantities import Amount
from membudget_contract.resolve import NO_OVERRIDE, Override, check_floor, resolve
from membudget_contract.sidecar_api import Configured, ConfigureRequest, Enforcement, EnforcementChange, Limits
from membudget_sidecar.plans.live_limit import over_limit, resolve_within_limit, without_total

KEPT_PLAN: Final = "plan.kept"
KEPT_CHANGES: Final = 20
"""Stops and starts of enforcement that are remembered, for the life of this process."""

log = logging.getLogger(__name__)


class Floor(NamedTuple):
    """What no action frees, in bytes as one signal counts them; it says nothing about a plan under another signal."""

    signal: Signal
    amount: int


class _Waiting(NamedTuple):
    """A plan that cannot hold yet, and why. One that is `held` was good once, or acknowledged: no edit ends it."""

    plan: Plan
    error: ContractError
    held: bool


class PlanKeeper:
    """Always has a plan: the last good one, else the built-in Production profile.

    Without a state folder nothing is kept and nothing resumed here: orders are kept whole, by `order_keeper`.
    """

    def __init__(
        self,
        state_folder: Path | None,
        environment: Mapping[str, str],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._file = state_folder / KEPT_PLAN if state_folder else None
        self.environment = environment
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._override = NO_OVERRIDE
        self._override_until = 0.0
        self._stopped_until: float | None = None
        """Monotonic seconds until which enforcement is stopped by hand; None while it is not."""
        self._observing: tuple[EffectivePlan, EffectivePlan] | None = None
        """The plan in force, and the same one observing."""
        self._changes: deque[EnforcementChange] = deque(maxlen=KEPT_CHANGES)
        self._refused: str | None = None
        self._waiting: _Waiting | None = None
        self._cannot: str | None = None
        """What is wrong with the plan in force: cut to the limit, or below its floor since the limit fell."""
        self._plan: Plan = compile_policy(None)
        self._good: Plan = self._plan
        self._ordered = False
        self._floor_unknown = self._limit_fell = False
        self._effective = self._built_in()
        self._total_bytes = self._effective.total_bytes
        """Of the plan in force, before a `configure` call tightens it."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._resume(self._file)

    @property
    def effective(self) -> EffectivePlan:
        """The plan in bytes; while enforcement is stopped, one that observes."""
        plan = self._effective
        if self._stopped_until is None:
            return plan
        if self._observing is None or self._observing[0] is not plan:
            self._observing = (plan, _observing(plan))
        return self._observing[1]

    @property
    def problem(self) -> str | None:
        """Why the newest policy is not in force as it was written; None when it is."""
        waiting = self._waiting
        if self._refused is not None or waiting is None:
            return self._refused or self._cannot
        return f"{waiting.error}; the last good plan holds meanwhile: {self._plan.policy or 'the built-in profile'}"

    def adopt(self, plan: Plan, floor: Floor | None) -> None:
        """Take a new plan, if it can hold here, and keep it for the next life.

        Args:
            plan: what a policy was compiled to.
            floor: what no action frees, None while it is not known.

        Raises:
            ContractError: why it cannot; the last good plan stays. Without a limit, or below the floor, it waits.
        """
        with self._lock:
            self._drop_edit()
            self._refused = None
            self._take(plan, floor, ordered=False)
        self._keep(plan)

    def check(self, plan: Plan, floor: Floor | None) -> None:
        """Whether the plan of an order can hold here; changes nothing.

        Raises:
            ContractError: why it cannot.
        """
        with self._lock:
            over = over_limit(plan, self.environment, self._limit)
            if over is not None:
                raise over
            _check_total(self._resolved(plan, NO_OVERRIDE), floor)

    def hold(self, plan: Plan, floor: Floor | None) -> None:
        """Put the plan of an order in force, which is held whatever comes: one that cannot hold now waits."""
        with self._lock:
            self._refused = None
            try:
                self._take(plan, floor, ordered=True)
            except ContractError as error:
                self._waiting = _Waiting(plan, error, held=True)

    def refuse(self, error: ContractError) -> None:
        """Remember why the newest policy was not taken; an older one that waited is not applied after that.

        What waits itself already says so.
        """
        with self._lock:
            if self._waiting is not None and self._waiting.error is error:
                return
            self._drop_edit()
            self._refused = str(error)

    def follow(self, limit: int | None, floor: Floor | None) -> EffectivePlan:
        """Resolve again if the container's limit moved, an override ended, or a plan waits; the plan now in force.

        An unknown floor changes nothing. An unknown limit changes nothing: the last one known stands.
        """
        with self._lock:
            ended = self._end_what_is_over()
            moved = limit is not None and limit != self._limit
            if moved:
                self._limit = limit
            if moved or ended:
                self._resolve_again()
            self._check_again(floor)
            taken = self._try_waiting(floor)
        if taken is not None:
            self._keep(taken)
        return self.effective

    def configure(self, request: ConfigureRequest, floor: Floor | None) -> Configured:
        """Tighten for a time, or end it with ttlSeconds 0.

        Raises:
            ContractError: the request is looser than the plan, names no component, or asks for too little to live.
        """
        with self._lock:
            previous = _limits(self._effective)
            override = NO_OVERRIDE
            if request.ttl_seconds:
                override = _override(request, self._resolved(self._plan, NO_OVERRIDE))
            effective = self._resolved(self._plan, override)
            if override.total_bytes is not None:
                _check_total(effective, floor)
            self._effective, self._override = effective, override
            self._override_until = self._monotonic() + request.ttl_seconds
            return Configured(previous=previous, current=_limits(effective), expires_at=self._expires_at())

    @property
    def overridden_until(self) -> float | None:
        """Unix seconds until which a `configure` call holds; None without one."""
        with self._lock:
            return self._expires_at()

    def stop_enforcing(self, seconds: int, uid: int | None) -> Enforcement:
        """Do as if the plan said Observe for so long, from now on; asked again the new time holds."""
        with self._lock:
            self._stopped_until = self._monotonic() + seconds
            return self._enforcement_changed(EnforcementChange(at=self._wall(), stopped_until=self._until(), uid=uid))

    def start_enforcing(self, uid: int | None) -> Enforcement:
        """Do what the plan says again, now; changes nothing when that was not stopped."""
        with self._lock:
            if self._stopped_until is None:
                return self._enforcement()
            self._stopped_until = None
            return self._enforcement_changed(EnforcementChange(at=self._wall(), stopped_until=None, uid=uid))

    @property
    def enforcement(self) -> Enforcement:
        """Whether decisions are carried out, and what was changed by hand."""
        with self._lock:
            return self._enforcement()

    def _enforcement_changed(self, change: EnforcementChange) -> Enforcement:
        self._changes.append(change)
        what = "started" if change.stopped_until is None else f"stopped until {change.stopped_until:.0f}"
        log.warning("enforcement was %s by hand, by uid %s", what, change.uid)
        return self._enforcement()

    def _enforcement(self) -> Enforcement:
        return Enforcement(
            active=self.effective.mode is Mode.ENFORCE,
            mode=self._effective.mode,
            stopped_until=self._until(),
            changes=tuple(self._changes),
        )

    def _until(self) -> float | None:
        if self._stopped_until is None:
            return None
        return self._wall() + self._stopped_until - self._monotonic()

    def _end_what_is_over(self) -> bool:
        """True when what a `configure` call tightened has ended, so that the plan is to be resolved again."""
        now = self._monotonic()
        if self._stopped_until is not None and now >= self._stopped_until:
            self._stopped_until = None
            log.info("enforcement goes on: the time for which it was stopped is over")
        tightened = self._override != NO_OVERRIDE and now >= self._override_until
        if tightened:
            self._override = NO_OVERRIDE
        return tightened

    def _expires_at(self) -> float | None:
        if self._override == NO_OVERRIDE:
            return None
        return self._wall() + self._override_until - self._monotonic()

    def _resolved(self, plan: Plan, override: Override) -> EffectivePlan:
        return resolve_within_limit(plan, self.environment, self._limit, override)

    def _drop_edit(self) -> None:
        if self._waiting is not None and not self._waiting.held:
            self._waiting = None

    def _take(self, plan: Plan, floor: Floor | None, *, ordered: bool) -> None:
        try:
            effective = self._resolved(plan, NO_OVERRIDE)
            _check_total(effective, floor)
        except (NoLimit, BudgetBelowFloor) as error:
            self._waiting = _Waiting(plan, error, held=ordered)
            raise
        self._floor_unknown = _known(floor, effective) is None and plan != self._good
        if not self._floor_unknown:
            self._good = plan
        self._plan, self._effective, self._ordered = plan, effective, ordered
        self._total_bytes = effective.total_bytes
        self._waiting, self._cannot, self._limit_fell = None, self._cut(), False
        self._override_if_tighter()

    def _check_again(self, floor: Floor | None) -> None:
        """Hold the plan in force against its floor, if it could not be until now, or its total fell with the limit."""
        if not (self._floor_unknown or self._limit_fell) or _known(floor, self._effective) is None:
            return
        try:
            _check_total(self._resolved(self._plan, NO_OVERRIDE), floor)
        except BudgetBelowFloor as error:
            if self._floor_unknown and self._effective.mode is Mode.ENFORCE:
                self._give_way(error)
            else:
                # A limit that fell did so for every plan; and Observe must not end because its figure is too low.
                self._cannot = str(error)
            return
        except ContractError:
            return  # the last figures stay, and `_resolve_again` has said why
        if self._floor_unknown:
            self._good = self._plan
        self._floor_unknown = self._limit_fell = False
        self._cannot = self._cut()

    def _give_way(self, error: BudgetBelowFloor) -> None:
        """To the last good plan; the plan in force waits, unless a newer one does."""
        log.warning("the plan in force gives way to the last good one: %s", error)
        self._waiting = self._waiting or _Waiting(self._plan, error, held=self._ordered)
        self._plan, self._floor_unknown = self._good, False
        self._resolve_again()
        self._limit_fell = False

    def _cut(self) -> str | None:
        """What to say of a plan that was cut to the limit."""
        over = over_limit(self._plan, self.environment, self._limit)
        return None if over is None else str(over)

    def _try_waiting(self, floor: Floor | None) -> Plan | None:
        """The plan that waited, once it can hold."""
        waiting = self._waiting
        if waiting is None:
            return None
        try:
            effective = self._resolved(waiting.plan, NO_OVERRIDE)
            if isinstance(waiting.error, BudgetBelowFloor) and _known(floor, effective) is None:
                return None  # what was found below its floor is not taken because nobody can look
            self._take(waiting.plan, floor, ordered=waiting.held)
        except ContractError as error:
            self._waiting = waiting._replace(error=error)  # another limit may still do
            return None
        log.info("the plan that waited holds now")
        return waiting.plan

    def _resolve_again(self) -> None:
        try:
            self._effective = self._resolved(self._plan, NO_OVERRIDE)
            self._limit_fell = self._limit_fell or self._effective.total_bytes < self._total_bytes
            self._total_bytes = self._effective.total_bytes
            self._override_if_tighter()
            self._cannot = self._cut()
        except ContractError as error:
            self._cannot = str(error)  # components in bytes that a lower limit cannot hold: the last figures stay

    def _override_if_tighter(self) -> None:
        """What was tightened stays so under another plan or limit, unless that is tighter itself."""
        try:
            self._effective = self._resolved(self._plan, self._override)
        except ContractError as error:
            log.info("the configure call no longer holds: %s", error)
            self._override = NO_OVERRIDE

    def _keep(self, plan: Plan) -> None:
        if self._file is None:
            return
        try:
            if read_kept(self._file, Plan) == plan:
                return
        except KeptFileInvalid:
            pass  # replaced by a good one
        try:
            write_kept(self._file, plan)
        except OSError as error:
            log.warning("the plan holds but was not kept in %s: %s", self._file, error.strerror)

    def _built_in(self) -> EffectivePlan:
        try:
            return self._resolved(self._plan, NO_OVERRIDE)
        except NoLimit as error:
            # The environment asks for a percent of a limit that only a running engine shows.
            self._waiting = _Waiting(self._plan, error, held=True)
            return resolve(self._plan, environment=without_total(self.environment), limit=None)

    def _resume(self, file: Path) -> None:
        """Go on with the plan of the former life; what is wrong with it is said, and the built-in plan holds."""
        try:
            plan = read_kept(file, Plan)
            if plan is not None:
                self._take(plan, None, ordered=False)
        except ContractError as error:
            self.refuse(error)
            if self._waiting is not None:
                self._waiting = self._waiting._replace(held=True)
            log.warning("starting with the built-in plan: %s", error)


def _known(floor: Floor | None, plan: EffectivePlan) -> int | None:
    """The floor in bytes, if it was measured under the signal of that plan."""
    return floor.amount if floor is not None and floor.signal is plan.signal else None


def _check_total(plan: EffectivePlan, floor: Floor | None) -> None:
    """Of a floor that is not known, this much is: a total of 0 is under it, and would evict everything at once."""
    check_floor(plan, max(1, _known(floor, plan) or 0))


def _override(request: ConfigureRequest, plan: EffectivePlan) -> Override:
    total = None if request.total is None else Amount(request.total).of(plan.total_bytes)
    whole = plan.total_bytes if total is None else total
    components = {name: Amount(text).of(whole) for name, text in request.components.items()}
    return Override(total_bytes=total, components=components)


def _observing(plan: EffectivePlan) -> EffectivePlan:
    layers = {**plan.layers, "mode": Layer.CONFIGURE}
    return msgspec.structs.replace(plan, mode=Mode.OBSERVE, layers=layers)


def _limits(plan: EffectivePlan) -> Limits:
    return Limits(total_bytes=plan.total_bytes, components=plan.components)
