"""Asks a sidecar over its Unix socket.

Covers: status, explanation, plan and actions, typed. Does not cover showing them (`status`, `explain`, `act`,
`demo.view`).
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from membudget_contract.control_api import Problem
from membudget_contract.explanation import Explanation
from membudget_contract.plan import Message
from membudget_contract.sidecar_api import ActionList, ActionRecord, ActionRequest, PlanView, Status
from membudget_contract.unix_http import UnixConnection

SECONDS: Final = 3.0

Answer = TypeVar("Answer", bound=Message)


class SidecarUnreachable(Exception):
    """Nobody answers on the sidecar's socket, or the answer was a problem."""


class SidecarClient:
    """One connection per question: a person's pace."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def status(self) -> Status:
        """How things are; raises SidecarUnreachable."""
        return self._get("/v1/status", Status)

    def actions(self) -> tuple[ActionRecord, ...]:
        """The remembered actions, oldest first; raises SidecarUnreachable."""
        return self._get("/v1/actions", ActionList).actions

    def explanation(self) -> Explanation:
        """Why it acts or does not; raises SidecarUnreachable."""
        return self._get("/v1/explain", Explanation)

    def plan(self) -> PlanView:
        """The plan with the layer of each value; raises SidecarUnreachable."""
        return self._get("/v1/plan", PlanView)

    def submit(self, request: ActionRequest) -> ActionRecord:
        """Ask for one action; raises SidecarUnreachable."""
        return self._ask("POST", "/v1/actions", msgspec.json.encode(request), ActionRecord)

    def action(self, number: int) -> ActionRecord:
        """One action; raises SidecarUnreachable."""
        return self._get(f"/v1/actions/{number}", ActionRecord)

    def _get(self, path: str, expected: type[Answer]) -> Answer:
        return self._ask("GET", path, None, expected)

    def _ask(self, method: str, path: str, body: bytes | None, expected: type[Answer]) -> Answer:
        connection = UnixConnection(self._path, SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            content = response.read()
            if response.status in {http.client.OK, http.client.ACCEPTED}:
                return msgspec.json.decode(content, type=expected)
            problem = msgspec.json.decode(content, type=Problem)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise SidecarUnreachable(f"no sidecar answers on {self._path}: {error}") from None
        finally:
            connection.close()
        raise SidecarUnreachable(f"{problem.reason}: {problem.detail}")
