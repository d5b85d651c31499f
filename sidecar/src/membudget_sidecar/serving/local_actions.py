"""What the local API lets people change: actions by hand, a plan tightened for a time, enforcement stopped, reload.

Covers: checking requests, and handing them on. Does not cover carrying out (`actions`), resolving (`plan_keeper`) nor
who may write (`api`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.decoding import decode_json
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import (
    ActionKind,
    ActionList,
    ActionRecord,
    ActionRequest,
    ActionStatus,
    Configured,
    ConfigureRequest,
    Enforcement,
    PolicyReloaded,
    StopEnforcement,
)
from membudget_sidecar.acting.actions import KEPT_RECORDS
from membudget_sidecar.acting.execution import Order
from membudget_sidecar.acting.upkeep import UPKEEP
from membudget_sidecar.errors import Refused
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.operations import Operation, choice, choice_field, whole_number, whole_number_field
from membudget_sidecar.serving.routing import Request, Route

MAX_ID_DIGITS: Final = 18

LIMIT: Final = whole_number_field(
    "limit", "How many actions, the newest ones.", least=1, most=KEPT_RECORDS, default=KEPT_RECORDS
)
KIND: Final = choice_field("kind", "Only those of this kind.", ActionKind)
STATUS: Final = choice_field("status", "Only those that ended so.", ActionStatus)

_WITHOUT_TARGET: Final = frozenset({ActionKind.COLLECT, ActionKind.TRIM, *UPKEEP})


class LocalActions:
    """Hands requests to the loop's parts."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._loop = served.loop

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        return (
            Operation(
                Route("GET", "/v1/actions", self.listed),
                "The remembered actions, oldest first.",
                ActionList,
                query=(LIMIT, KIND, STATUS),
            ),
            Operation(
                Route("POST", "/v1/actions", self.submit, status=202),
                "Ask for one action; it is carried out after those that wait.",
                ActionRecord,
                takes=ActionRequest,
                refusals=(503,),
            ),
            Operation(Route("GET", "/v1/actions/{number}", self.one), "One action.", ActionRecord, refusals=(404,)),
            Operation(
                Route("POST", "/v1/configure", self.configure),
                "Tighten the plan for a time; ttlSeconds 0 ends that.",
                Configured,
                takes=ConfigureRequest,
                refusals=(422,),
            ),
            *self._enforcement_operations(),
            Operation(
                Route("POST", "/v1/reload", self.reload, status=202),
                "Read the policy again, and have the engine look again at what is on disk.",
                PolicyReloaded,
                refusals=(503,),
            ),
        )

    def _enforcement_operations(self) -> tuple[Operation, ...]:
        return (
            Operation(
                Route("GET", "/v1/enforcement", self.enforcement), "Whether decisions are carried out.", Enforcement
            ),
            Operation(
                Route("POST", "/v1/enforcement/stop", self.stop_enforcing),
                "Do as if the plan said Observe, for a time.",
                Enforcement,
                takes=StopEnforcement,
            ),
            Operation(
                Route("POST", "/v1/enforcement/start", self.start_enforcing),
                "Do what the plan says again.",
                Enforcement,
            ),
        )

    def listed(self, request: Request) -> ActionList:
        """GET /v1/actions."""
        kind, ended = choice(request, KIND, ActionKind), choice(request, STATUS, ActionStatus)
        found = [
            record
            for record in self._loop.actions.records()
            if kind in {None, record.kind} and ended in {None, record.status}
        ]
        return ActionList(actions=tuple(found[-whole_number(request, LIMIT) :]))

    def one(self, request: Request) -> ActionRecord:
        """GET /v1/actions/{number}."""
        number = request.parameter
        known = number.isascii() and number.isdecimal() and len(number) <= MAX_ID_DIGITS
        record = self._loop.actions.record(int(number)) if known else None
        if record is None:
            raise Refused(404, "NotFound", "no such action is remembered; GET /v1/actions lists them")
        return record

    def submit(self, request: Request) -> ActionRecord:
        """POST /v1/actions."""
        asked = decode_json(request.body, ActionRequest)
        if asked.kind is ActionKind.RESIZE:
            raise Refused(400, "Invalid", "budgets are moved by the policy, or by POST /v1/configure for a time")
        _check_target(asked)
        plan = self._loop.keeper.effective
        cause = f"asked by hand: {asked.description}" if asked.description else "asked by hand"
        return self._loop.actions.submit(Order(asked.kind, plan, asked.target_bytes, 0, cause))

    def configure(self, request: Request) -> Configured:
        """POST /v1/configure."""
        asked = decode_json(request.body, ConfigureRequest)
        names_something = asked.total is not None or bool(asked.components)
        if asked.ttl_seconds and not names_something:
            raise Refused(400, "Invalid", "name what to tighten: total, components, or both")
        if names_something and not asked.ttl_seconds:
            raise Refused(400, "Invalid", "ttlSeconds 0 ends what was configured, and takes nothing beside it")
        configured = self._loop.keeper.configure(asked, self._loop.watch.floor)
        self._loop.wake()
        return configured

    def enforcement(self, _request: Request) -> Enforcement:
        """GET /v1/enforcement."""
        return self._loop.keeper.enforcement

    def stop_enforcing(self, request: Request) -> Enforcement:
        """POST /v1/enforcement/stop."""
        asked = decode_json(request.body, StopEnforcement)
        enforcement = self._loop.keeper.stop_enforcing(asked.ttl_seconds, request.peer_uid)
        self._loop.wake()
        return enforcement

    def start_enforcing(self, request: Request) -> Enforcement:
        """POST /v1/enforcement/start."""
        enforcement = self._loop.keeper.start_enforcing(request.peer_uid)
        self._loop.wake()
        return enforcement

    def reload(self, _request: Request) -> PolicyReloaded:
        """POST /v1/reload."""
        from_file = self._served.settings.policy_file is not None
        self._loop.reload()
        order = Order(ActionKind.RELOAD, self._loop.keeper.effective, 0, 0, "asked by hand")
        return PolicyReloaded(policy_asked=from_file, action=self._loop.actions.submit(order))


def _check_target(asked: ActionRequest) -> None:
    kind, target = asked.kind, asked.target_bytes
    if kind in _WITHOUT_TARGET and target:
        raise Refused(400, "Invalid", f"{kind} is asked for no bytes in particular; leave targetBytes out")
    if kind not in _WITHOUT_TARGET and not target:
        raise Refused(400, "Invalid", f'say how many bytes {kind} is to free, like "targetBytes": {10 * MIB}')
