"""Requests of people that the engine answers: handed on, and what it refuses said in its own words.

Covers: one connection per request, errors as problems. Does not cover which requests (`local_actions`,
`local_allocations`) nor the messages (`control_client`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from membudget_contract.plan import Message
from membudget_sidecar.acting.control_client import ControlClient
from membudget_sidecar.errors import EngineRefused, EngineUnreachable, Refused

Answer = TypeVar("Answer", bound=Message)

_PASSED_ON: Final = frozenset({400, 404, 409, 503, 507})
"""What the control socket may say (`control_api`); anything else is a defect of the engine, and said as 503."""


class EngineAsked:
    """Asks one engine, with so many seconds for the whole answer."""

    def __init__(self, control_socket: Path, seconds: float) -> None:
        self._path = control_socket
        self._seconds = seconds

    def ask(self, question: Callable[[ControlClient], Answer]) -> Answer:
        """What it answers.

        Raises:
            Refused: as the engine refused, or 503 when it did not answer.
        """
        client = ControlClient(self._path, self._seconds)
        try:
            return question(client)
        except EngineUnreachable as error:
            raise Refused(503, "EngineUnreachable", str(error)) from None
        except EngineRefused as error:
            status = error.status if error.status in _PASSED_ON else 503
            raise Refused(status, error.reason, error.detail) from None
        finally:
            client.close()
