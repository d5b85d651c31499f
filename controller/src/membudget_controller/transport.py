"""One bounded HTTP exchange with whoever listens at a pod's address.

Covers: the connection and its bounds. Whoever listens is not trusted: at most 2 s in all however slowly it drips, at
most 64 kB read, no redirect followed, no name resolved. Does not cover what an answer means (`pushes`).
"""

from __future__ import annotations

import enum
import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from membudget_contract.orders import MAX_ANSWER_BYTES
from membudget_controller.orders import SignedRequest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

EXCHANGE_SECONDS: Final = 2.0


class Unreached(enum.StrEnum):
    """Why there was no answer that counts."""

    NO_CONNECTION = "refuses the connection, or is not routed to"
    TIMED_OUT = "did not answer within 2 seconds"
    NOT_A_SIDECAR = "gives an answer that no sidecar gives"
    TOO_LARGE = "gives an answer of more than 64 kB"
    OTHER_ORDER = "acknowledges another pod, number or plan"
    BUSY = "has no time for orders just now"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Whole, and small enough."""

    status: int
    body: bytes


Transport = Callable[[str, int, SignedRequest], HttpAnswer | Unreached]
"""Address, port, request; never raises for what the other side does."""


def post(address: str, port: int, request: SignedRequest) -> HttpAnswer | Unreached:
    """The `Transport` over the pod network."""
    connection = _BoundedConnection(address, port, time.monotonic)
    try:
        connection.request("POST", request.path, body=request.body, headers=request.headers)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except TimeoutError:
        return Unreached.TIMED_OUT
    except OSError:
        return Unreached.NO_CONNECTION
    except (http.client.HTTPException, ValueError):
        return Unreached.NOT_A_SIDECAR
    finally:
        connection.close()
    return Unreached.TOO_LARGE if len(body) > MAX_ANSWER_BYTES else HttpAnswer(response.status, body)


class _BoundedSocket(socket.socket):
    """Ends at a deadline, where a time-out of its own would begin anew with every byte that drips in."""

    remaining: Callable[[], float]

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        left = self.remaining()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


class _BoundedConnection(http.client.HTTPConnection):
    """One connection for one exchange."""

    def __init__(self, address: str, port: int, clock: Callable[[], float]) -> None:
        super().__init__(address, port)
        deadline = clock() + EXCHANGE_SECONDS
        self._remaining = lambda: deadline - clock()

    def connect(self) -> None:
        """To the address as it stands."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = _BoundedSocket(family, socket.SOCK_STREAM)
        self.sock: Any = made
        made.remaining = self._remaining
        made.settimeout(EXCHANGE_SECONDS)
        made.connect((self.host, self.port))
