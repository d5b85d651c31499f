"""Asks a sidecar over its Unix socket.

Covers: status and actions, typed. Does not cover showing them (`status`, `demo.view`).
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from membudget_contract.control_api import Problem
from membudget_contract.plan import Message
from membudget_contract.sidecar_api import ActionList, ActionRecord, Status
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

    def _get(self, path: str, expected: type[Answer]) -> Answer:
        connection = UnixConnection(self._path, SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read()
            if response.status == http.client.OK:
                return msgspec.json.decode(content, type=expected)
            problem = msgspec.json.decode(content, type=Problem)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise SidecarUnreachable(f"no sidecar answers on {self._path}: {error}") from None
        finally:
            connection.close()
        raise SidecarUnreachable(f"{problem.reason}: {problem.detail}")
