"""Requests to one face without a socket: the bytes that a client would send, and the answer read from those it gets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import h11

from membudget_sidecar.serving.answers import Answer
from membudget_sidecar.serving.http_exchange import Asked, HttpExchange
from membudget_sidecar.serving.routing import Routes, answer

DATE = "Sat, 21 Nov 2026 03:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)


def request(routes: Routes, method: str, path: str, *body: bytes) -> Answered:
    """One request of our own user; with several parts of a body, they come in chunks."""
    chunked = len(body) > 1
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(b''.join(body))}"
    sent = [f"{method} {quote(path, safe='/%?=&')} HTTP/1.1\r\nHost: sidecar\r\n{length}\r\n\r\n".encode()]
    sent += [b"%x\r\n%b\r\n" % (len(part), part) for part in body] if chunked else body
    sent += [b"0\r\n\r\n"] if chunked else []
    return exchanged(routes, *sent, method=method)


def exchanged(routes: Routes, *sent: bytes, method: str = "GET", peer_uid: int | None = os.getuid()) -> Answered:
    """What these bytes are answered with; those after the answer are not read."""
    exchange = HttpExchange(routes, peer_uid)
    said: Asked | Answer | None = None
    for data in sent:
        said = exchange.receive(data)
        if said is not None:
            break
    assert said is not None, "the request is not whole"
    return parsed(exchange.bytes_of(said if isinstance(said, Answer) else answer(*said), DATE), method)


def parsed(content: bytes, method: str = "GET") -> Answered:
    """One answer as a client understands it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "sidecar")]))
    client.send(h11.EndOfMessage())
    client.receive_data(content)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return Answered(head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body)
