"""Requests to an ASGI application without a server: what arrives is what its server would hand it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette


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


def request(application: Starlette, method: str, path: str, *body: bytes) -> Answered:
    """One request; each further argument is a part of the body as it comes from the network."""
    return asyncio.run(_request(application, method, path, body or (b"",)))


async def _request(application: Starlette, method: str, path: str, body: Sequence[bytes]) -> Answered:
    parts = list(body)
    sent: list[Mapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    await application(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
