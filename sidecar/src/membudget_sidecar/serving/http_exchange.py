"""One HTTP request and its answer on one connection: bytes in, bytes out.

Covers: parsing by h11, and every bound on what a peer may send. Does not cover sockets and time (`http_server`) nor
what a request means (`routing`). A connection carries one request: what is pipelined behind it is not served.

Invariant: what an exchange holds is bounded by the head, the body its route admits, and one piece as it came.
"""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import h11

from membudget_sidecar.errors import Refused
from membudget_sidecar.serving.answers import Answer, problem
from membudget_sidecar.serving.routing import Request, Route, Routes

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 64
MAX_PIECES: Final = 1024
"""Of a body: 256 kB in packets of a pod network are 180; a million chunks of one byte are an attack."""
MAX_QUERY_FIELDS: Final = 16
MAX_DETAIL: Final = 200
"""Characters of h11's reason, which quotes what was sent."""

_VERSIONS: Final = frozenset({b"1.0", b"1.1"})
_FOLDED: Final = re.compile(rb"\n[ \t]")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_REASONS: Final = {413: "TooLarge", 431: "TooLarge", 501: "NotSupported"}


class Asked(NamedTuple):
    """A request that is there as a whole."""

    route: Route
    request: Request


class HttpExchange:
    """What comes in goes to `receive` until that returns something; its answer goes out through `bytes_of`."""

    def __init__(self, routes: Routes, peer_uid: int | None) -> None:
        self.interim = b""
        """To be sent now: `100 Continue`, for a peer that waits for it."""
        self._routes = routes
        self._peer_uid = peer_uid
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head = bytearray()
        self._is_head = False
        self._admitted: Asked | None = None
        self._body = bytearray()
        self._pieces = 0

    @property
    def in_body(self) -> bool:
        """Whether the head came and was admitted."""
        return self._admitted is not None

    @property
    def held_bytes(self) -> int:
        """What this request holds; its head stands here and in h11's buffer."""
        return 2 * len(self._head) + len(self._body)

    def receive(self, data: bytes) -> Asked | Answer | None:
        """The request, or why it is refused, or None while more must come; no data is the end of what comes.

        Raises:
            EOFError: the peer left before it asked anything.
        """
        if not self.in_body:
            self._head += data
        try:
            self._connection.receive_data(data)
            return self._next()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            return problem(status, _REASONS.get(status, "Invalid"), str(error)[:MAX_DETAIL])
        except Refused as refused:
            return problem(refused.status, refused.reason, refused.detail)

    def bytes_of(self, answer: Answer, date: str) -> bytes:
        """The answer as it is sent, the last on this connection; `date` is the header's value."""
        headers = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Connection": "close",
            "Date": date,
            **answer.headers,
        }
        phrase = HTTPStatus(answer.status).phrase
        response = h11.Response(status_code=answer.status, headers=list(headers.items()), reason=phrase)
        head = self._connection.send(response)
        return head if self._is_head else head + answer.body

    def _next(self) -> Asked | Answer | None:
        while True:
            event = self._connection.next_event()
            match event:
                case h11.Request():
                    refusal = self._begin(event)
                    if refusal is not None:
                        return refusal
                case h11.Data():
                    self._add(event.data)
                case h11.EndOfMessage():
                    return self._whole()
                case h11.ConnectionClosed():
                    raise EOFError
                case _:
                    self._invite()
                    return None

    def _begin(self, event: h11.Request) -> Answer | None:
        self._is_head = event.method == b"HEAD"
        head = _request(event, bytes(self._head), self._peer_uid)
        self._head.clear()
        admitted = self._routes.admit(head)
        if isinstance(admitted, Answer):
            return admitted
        self._admitted = Asked(*admitted)
        return None

    def _add(self, data: bytes) -> None:
        assert self._admitted is not None
        route, most = self._admitted.route, self._admitted.route.most_body_bytes
        self._pieces += 1
        self._body += data
        if len(self._body) > most:
            raise route.refusal(413, "TooLarge", f"a body here has at most {most} bytes")
        if self._pieces > MAX_PIECES:
            raise route.refusal(413, "TooManyPieces", f"a body comes in at most {MAX_PIECES} pieces")

    def _whole(self) -> Asked:
        assert self._admitted is not None
        route, head = self._admitted
        return Asked(route, replace(head, body=bytes(self._body)))

    def _invite(self) -> None:
        if self._admitted is not None and self._connection.they_are_waiting_for_100_continue:
            self.interim += self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))


def _request(event: h11.Request, head: bytes, peer_uid: int | None) -> Request:
    """The head, strictly read.

    Raises:
        Refused: h11 lets through what servers and proxies understand differently, and what only costs.
    """
    end = _HEAD_END.search(head)
    head = head[: end.end()] if end else head
    if len(head) > MAX_HEAD_BYTES or len(event.headers) > MAX_HEADERS:
        raise Refused(431, "TooLarge", f"a head has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers")
    if event.http_version not in _VERSIONS:
        raise Refused(505, "NotSupported", "HTTP/1.1 is spoken here")
    if _FOLDED.search(head):
        raise Refused(400, "Invalid", "a header goes over two lines")
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Refused(400, "Invalid", "Content-Length and Transfer-Encoding contradict each other")
    path, _, query = event.target.decode("ascii").partition("?")
    return Request(event.method.decode("ascii"), path, _query(query), headers, peer_uid=peer_uid)


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Refused(400, "Invalid", f"the query cannot be read: {error}") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refused(400, "Invalid", "a field of the query stands twice")
    return fields
