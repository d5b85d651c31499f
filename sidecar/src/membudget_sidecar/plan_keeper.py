"""The plan in force: taken from a policy, kept on disk, resolved against the live limit and overrides.

Covers: adopting a plan or refusing it with the reason while the last good one holds, `configure` with its time,
following the limit. Does not cover where policies come from (`policy_file`) nor enforcing (`loop`). Thread-safe.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from membudget_contract.compile import compile_policy
from membudget_contract.errors import ContractError, LooserThanPlan, NoLimit
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_contract.plan import EffectivePlan, Plan
from membudget_contract.quantities import Amount
from membudget_contract.resolve import NO_OVERRIDE, Override, check_floor, resolve
from membudget_contract.sidecar_api import Configured, ConfigureRequest, Limits

KEPT_PLAN: Final = "plan.kept"
MAX_TTL_SECONDS: Final = 86_400

log = logging.getLogger(__name__)


class PlanKeeper:
    """Always has a plan: the last good one, else the built-in Production profile."""

    def __init__(
        self,
        state_folder: Path,
        environment: Mapping[str, str],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._file = state_folder / KEPT_PLAN
        self._environment = environment
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._override = NO_OVERRIDE
        self._override_until = 0.0
        self._waiting: Plan | None = None
        self.problem: str | None = None
        """Why the newest policy or limit was not taken; None when it was."""
        state_folder.mkdir(parents=True, exist_ok=True)
        self._plan, self._effective = self._first()

    @property
    def effective(self) -> EffectivePlan:
        """The plan in bytes."""
        return self._effective

    def adopt(self, plan: Plan, floor_bytes: int | None) -> None:
        """Take a new plan, if it can hold here, and keep it for the next life.

        Raises:
            ContractError: why it cannot; the last good plan stays.
        """
        with self._lock:
            try:
                effective = resolve(plan, environment=self._environment, limit=self._limit)
            except NoLimit:
                self._waiting = plan  # the engine may not be up yet: its limit will be known then
                raise
            if floor_bytes is not None:
                check_floor(effective, floor_bytes)
            # What was tightened under the old plan may be looser than the new one.
            self._override = NO_OVERRIDE
            self._plan, self._effective, self._waiting = plan, effective, None
            self.problem = None
            self._keep(plan)

    def refuse(self, problem: str) -> None:
        """Remember why a policy was not taken."""
        self.problem = problem

    def follow(self, limit: int | None) -> EffectivePlan:
        """Resolve again if the container's limit moved or an override ended; the plan now in force.

        An unknown limit changes nothing: the last one known stands.
        """
        with self._lock:
            ended = self._override is not NO_OVERRIDE and self._monotonic() >= self._override_until
            moved = limit is not None and limit != self._limit
            if ended:
                self._override = NO_OVERRIDE
            if moved:
                self._limit = limit
            if moved or ended:
                self._resolve_again()
            return self._effective

    def configure(self, request: ConfigureRequest) -> Configured:
        """Tighten for a time, or end it with ttlSeconds 0.

        Raises:
            ContractError: the request is looser than the plan, or names no component.
        """
        if not 0 <= request.ttl_seconds <= MAX_TTL_SECONDS:
            raise LooserThanPlan(f"ttlSeconds is {request.ttl_seconds}; give 1 to {MAX_TTL_SECONDS}, or 0 to end")
        with self._lock:
            previous = _limits(self._effective)
            plain = resolve(self._plan, environment=self._environment, limit=self._limit)
            override = _override(request, plain) if request.ttl_seconds else NO_OVERRIDE
            self._effective = resolve(self._plan, environment=self._environment, limit=self._limit, override=override)
            self._override = override
            self._override_until = self._monotonic() + request.ttl_seconds
            return Configured(previous=previous, current=_limits(self._effective), expires_at=self._expires_at())

    @property
    def overridden_until(self) -> float | None:
        """Unix seconds until which a `configure` call holds; None without one."""
        with self._lock:
            return self._expires_at()

    def _expires_at(self) -> float | None:
        if self._override is NO_OVERRIDE:
            return None
        return self._wall() + self._override_until - self._monotonic()

    def _keep(self, plan: Plan) -> None:
        try:
            write_kept(self._file, plan)
        except OSError as error:
            log.warning("the plan holds but was not kept in %s: %s", self._file, error.strerror)

    def _resolve_again(self) -> None:
        plan = self._waiting or self._plan
        try:
            self._effective = resolve(plan, environment=self._environment, limit=self._limit, override=self._override)
            if self._waiting is not None:
                self._plan, self._waiting = self._waiting, None
                self._keep(self._plan)
            self.problem = None
        except ContractError as error:
            self.problem = str(error)

    def _first(self) -> tuple[Plan, EffectivePlan]:
        built_in = compile_policy(None)
        bytes_of_built_in = resolve(built_in, environment=self._environment, limit=None)
        try:
            plan = read_kept(self._file, Plan) or built_in
        except KeptFileInvalid as error:
            self.problem = str(error)
            log.warning("starting with the built-in plan: %s", error)
            return built_in, bytes_of_built_in
        try:
            return plan, resolve(plan, environment=self._environment, limit=None)
        except NoLimit as error:
            self.problem = f"{error}; waiting for the engine, the built-in plan holds meanwhile"
            return plan, bytes_of_built_in


def _override(request: ConfigureRequest, plan: EffectivePlan) -> Override:
    total = None if request.total is None else Amount(request.total).of(plan.total_bytes)
    components = {name: Amount(text).of(total or plan.total_bytes) for name, text in request.components.items()}
    return Override(total_bytes=total, components=components)


def _limits(plan: EffectivePlan) -> Limits:
    return Limits(total_bytes=plan.total_bytes, components=plan.components)
