"""Bodies in and out of the sidecar's HTTP faces.

Covers: reading a body with a bound on its bytes and its time, JSON and problem+json answers. Does not cover routes
(`api`, `network_api`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from membudget_contract.control_api import Problem
from membudget_contract.plan import Message
from membudget_sidecar.errors import Refused

BODY_SECONDS: Final = 5.0
"""For the whole body: one that drips in would hold one of the few connections that probes need too."""


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body; of one with more than `most_bytes`, its beginning, which is longer than that.

    Raises:
        Refused: it came too slowly, or its sender went away.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most_bytes:
                    break
    except TimeoutError:
        raise Refused(408, "TooSlow", f"a body arrives within {BODY_SECONDS:.0f} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "Invalid", "the body ended early") from None
    return bytes(body)


def json_answer(status: int, message: Message) -> Response:
    """A message of the contract."""
    return Response(msgspec.json.encode(message), status, media_type="application/json")


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is no success (RFC 9457)."""
    message = Problem(title="Request refused", status=status, reason=reason, detail=detail)
    return Response(msgspec.json.encode(message), status, headers, media_type="application/problem+json")
