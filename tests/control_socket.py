"""Asks a runtime over its control socket, as any peer of the same user may."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import msgspec

from membudget_contract.control_api import Problem
from membudget_contract.plan import Message
from membudget_contract.unix_http import UnixConnection

ASK_SECONDS = 30.0

Answer = TypeVar("Answer", bound=Message)


class Refused(Exception):
    """The answer was a problem."""

    def __init__(self, status: int, problem: Problem, retry_after: str | None) -> None:
        super().__init__(f"{status} {problem.reason}: {problem.detail}")
        self.status = status
        self.reason = problem.reason
        self.retry_after = retry_after


def ask(socket: Path, method: str, path: str, kind: type[Answer], message: Message | None = None) -> Answer:
    """One request on a connection of its own; raises Refused, OSError."""
    with contextlib.closing(UnixConnection(socket, ASK_SECONDS)) as connection:
        connection.request(method, path, msgspec.json.encode(message) if message is not None else None)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            problem = msgspec.json.decode(content, type=Problem)
            raise Refused(answer.status, problem, answer.headers.get("Retry-After"))
        return msgspec.json.decode(content, type=kind)
