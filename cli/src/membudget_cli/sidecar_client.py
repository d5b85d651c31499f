"""Asks one sidecar, here or in a pod.

Covers: status, explanation, plan, actions and the document of a bug report, typed; the transport to a sidecar here.
Does not cover showing them (`status`, `top`, `explain`, `act`, `diagnose`) nor the way into a pod (`pod_exec`).
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from membudget_contract.control_api import Problem
from membudget_contract.decoding import decode_json
from membudget_contract.diagnostics_api import Diagnostics
from membudget_contract.explanation import Explanation
from membudget_contract.figures_api import HistoryList
from membudget_contract.plan import Message
from membudget_contract.recommend import Recommendation
from membudget_contract.sidecar_api import (
    ActionList,
    ActionRecord,
    ActionRequest,
    Configured,
    ConfigureRequest,
    PlanView,
    Status,
    ThresholdsView,
)
from membudget_contract.unix_http import UnixConnection

SECONDS: Final = 3.0
SOCKET: Final = "sidecar.sock"

Answer = TypeVar("Answer", bound=Message)


class SidecarUnreachable(Exception):
    """Nobody answers for the sidecar, or the answer was a problem; the message says where was asked."""


class Transport(Protocol):
    """A way to one sidecar."""

    def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and content of the answer; raises SidecarUnreachable."""
        ...


class UnixSocket:
    """The sidecar's socket on this machine; one connection per question, at a person's pace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """See `Transport`."""
        connection = UnixConnection(self._path, SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SidecarUnreachable(
                f"no sidecar answers on {self._path}: {error}; is one running with --run {self._path.parent}?"
            ) from None
        finally:
            connection.close()


class SidecarClient:
    """Typed questions; each raises SidecarUnreachable."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self) -> Status:
        """How things are."""
        return self._get("/v1/status", Status)

    def actions(self) -> tuple[ActionRecord, ...]:
        """The remembered actions, oldest first."""
        return self._get("/v1/actions", ActionList).actions

    def history(self, last: int) -> HistoryList:
        """The last samples of the signal."""
        return self._get(f"/v1/history?last={last}", HistoryList)

    def thresholds(self) -> ThresholdsView:
        """The ladder in bytes."""
        return self._get("/v1/thresholds", ThresholdsView)

    def explanation(self) -> Explanation:
        """Why it acts or does not."""
        return self._get("/v1/explain", Explanation)

    def plan(self) -> PlanView:
        """The plan with the layer of each value."""
        return self._get("/v1/plan", PlanView)

    def diagnostics(self) -> Diagnostics:
        """Everything a bug report needs."""
        return self._get("/v1/diagnostics", Diagnostics)

    def configure(self, request: ConfigureRequest) -> Configured:
        """Tighten the plan for a time."""
        return self._ask("POST", "/v1/configure", msgspec.json.encode(request), Configured)

    def recommendation(self) -> Recommendation:
        """The budget that the engine would need; raises SidecarUnreachable."""
        return self._get("/v1/recommendations", Recommendation)

    def submit(self, request: ActionRequest) -> ActionRecord:
        """Ask for one action."""
        return self._ask("POST", "/v1/actions", msgspec.json.encode(request), ActionRecord)

    def action(self, number: int) -> ActionRecord:
        """One action."""
        return self._get(f"/v1/actions/{number}", ActionRecord)

    def _get(self, path: str, expected: type[Answer]) -> Answer:
        return self._ask("GET", path, None, expected)

    def _ask(self, method: str, path: str, body: bytes | None, expected: type[Answer]) -> Answer:
        status, content = self._transport.ask(method, path, body)
        try:
            if status in {http.client.OK, http.client.ACCEPTED}:
                return decode_json(content, expected)
            problem = decode_json(content, Problem)
        except msgspec.DecodeError as error:
            raise SidecarUnreachable(f"what answers {path} is no sidecar of this version: {error}") from None
        raise SidecarUnreachable(f"{problem.reason}: {problem.detail}")


def client_of(run_folder: Path, pod: str | None) -> SidecarClient:
    """Of the sidecar in a pod, as NAMESPACE/NAME, or of the one here."""
    if pod is None:
        return SidecarClient(UnixSocket(run_folder / SOCKET))
    from membudget_cli.pod_exec import PodExec

    return SidecarClient(PodExec(pod))
