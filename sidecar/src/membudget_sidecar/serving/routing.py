"""Which handler answers a request, and what it raises turned into problem+json.

Covers: requests as values, the table of routes, what is refused on the head alone, errors as answers. Does not cover
bytes and sockets (`http_exchange`, `http_server`) nor any route of its own (`api`, `network_api`).

A handler is a plain function or method. It returns a message of the contract, or an `Answer` where that is not JSON,
and raises `Refused` or a `ContractError`. What it raises while decoding a body is answered with 400.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from membudget_contract.errors import ContractError, QuantityInvalid
from membudget_contract.plan import Message
from membudget_sidecar.errors import QueueFull, Refused
from membudget_sidecar.serving.answers import Answer, json_answer, problem

MAX_BODY_BYTES: Final = 64 * 1024
"""Of a request that may carry a body, unless its route says otherwise."""

_AGAIN: Final = frozenset({429, 503})
_JSON_TYPES: Final = frozenset({"", "application/json"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; while only its head has come, `body` is empty."""

    method: str
    path: str
    """As it was sent, without the query: escapes are not resolved."""
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names in lower case; the values of one that came twice are joined by a comma."""
    body: bytes = b""
    peer_uid: int | None = None
    """Who asks, as the kernel knows it; None over TCP."""
    parameter: str = ""
    """What stands in the place of `{...}` in the route's pattern: letters, digits and `._~-`."""


Handler = Callable[[Request], Message | Answer]
Guard = Callable[[Request], None]
"""Raises `Refused` for a request that this face does not take, whatever its route."""


@dataclass(frozen=True, slots=True)
class Route:
    """`GET` answers `HEAD` too, without the body."""

    method: str
    pattern: str
    """A path; one segment may be a parameter, like `/v1/actions/{number}`."""
    handler: Handler
    status: int = 200
    """Of a message that the handler returns."""
    most_bytes: int = MAX_BODY_BYTES
    """Of the body; a GET takes none."""
    waits: bool = False
    """The handler may wait, as for the disk: it runs beside the serving thread, so that a scrape need not wait too."""
    count: Callable[[str], None] | None = None
    """Told the reason when a body is refused before the handler sees it."""

    def check_body(self, head: Request) -> None:
        """Length and kind of the body, as far as the head tells; raises Refused."""
        length, most = head.headers.get("content-length", "0"), self.most_body_bytes
        # Its digits are counted first: to read a number of thousands of them takes a while.
        if len(length) > len(str(most)) or int(length) > most:
            raise self.refusal(413, "TooLarge", f"a body here has at most {most} bytes")
        if head.headers.get("content-encoding", "identity").lower() != "identity":
            raise self.refusal(415, "UnsupportedMedia", "a body is sent as it is, without a Content-Encoding")
        if most and head.headers.get("content-type", "").partition(";")[0].strip().lower() not in _JSON_TYPES:
            raise self.refusal(415, "UnsupportedMedia", "a body is JSON: send Content-Type: application/json")

    @property
    def most_body_bytes(self) -> int:
        """How long a body this route reads."""
        return 0 if self.method == "GET" else self.most_bytes

    def refusal(self, status: int, reason: str, detail: str) -> Refused:
        """Of its body; counted."""
        if self.count is not None:
            self.count(reason)
        return Refused(status, reason, detail)


class _MethodNotAllowed(Refused):
    def __init__(self, allowed: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(405, "MethodNotAllowed", f"this path serves {self.allow}")


class Routes:
    """One face: what it serves, and whom."""

    def __init__(self, routes: Iterable[Route], guard: Guard | None = None) -> None:
        self._routes = [(_compiled(route.pattern), route) for route in routes]
        self._guard = guard

    def admit(self, head: Request) -> tuple[Route, Request] | Answer:
        """The route, and the request with its parameter; or the refusal that needs no body to be said."""
        try:
            if self._guard is not None:
                self._guard(head)
            found = self._find(head)
            found[0].check_body(head)
        except Refused as refused:
            return _refusal(refused)
        return found

    def _find(self, head: Request) -> tuple[Route, Request]:
        method = "GET" if head.method == "HEAD" else head.method
        allowed: set[str] = set()
        for pattern, route in self._routes:
            matched = pattern.fullmatch(head.path)
            if matched and route.method == method:
                return route, replace(head, parameter="".join(matched.groups()))
            if matched:
                allowed.add(route.method)
        if allowed:
            raise _MethodNotAllowed(allowed)
        served = ", ".join(f"{route.method} {route.pattern}" for _, route in self._routes)
        raise Refused(404, "NotFound", f"nothing is here; served are {served}")


def answer(route: Route, request: Request) -> Answer:
    """What the handler says; a defect in it is logged and answered with 500."""
    try:
        said = route.handler(request)
    except Exception as error:  # noqa: BLE001  a defect in one handler must not end the server
        return _failure(error)
    return said if isinstance(said, Answer) else json_answer(route.status, said)


def _failure(error: Exception) -> Answer:
    match error:
        case Refused():
            return _refusal(error)
        case QueueFull():
            return _refusal(Refused(503, "QueueFull", str(error)))
        case QuantityInvalid():
            return problem(400, "Invalid", str(error))
        case ContractError():
            return problem(422, error.reason, str(error))
        case msgspec.DecodeError() | RecursionError() | UnicodeError():
            return problem(400, "Invalid", str(error))
        case _:
            log.error("a handler failed", exc_info=error)
            return problem(500, "Defect", "a defect of the sidecar; its log has the reason")


def _refusal(refused: Refused) -> Answer:
    headers = {"Retry-After": "1"} if refused.status in _AGAIN else {}
    if isinstance(refused, _MethodNotAllowed):
        headers["Allow"] = refused.allow
    return problem(refused.status, refused.reason, refused.detail, headers)


def _compiled(pattern: str) -> re.Pattern[str]:
    before, parameter, rest = pattern.partition("{")
    if not parameter:
        return re.compile(re.escape(pattern))
    return re.compile(f"{re.escape(before)}([A-Za-z0-9._~-]+){re.escape(rest.partition('}')[2])}")
