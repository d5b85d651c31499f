"""What every route of the engine's HTTP side shares: bounded bodies, JSON, typed errors as problem+json.

Covers: reading and decoding a body, and the status of each error. Does not cover routes (`search_api`, `rooms_api`,
`monitoring_api`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from membudget_contract.control_api import Problem
from membudget_contract.decoding import decode_json
from membudget_engine.errors import (
    BodyLate,
    BodyTooLarge,
    CollectionMissing,
    EmbeddingInvalid,
    EngineError,
    FileMissing,
    MeasurementRunning,
    QueryInvalid,
    ReadOnly,
    SealPending,
    SessionMissing,
    SourceInvalid,
    UploadDiffers,
    UploadMissing,
    UploadRunning,
    WriteInvalid,
)
from membudget_engine.settings import MAX_BODY_BYTES
from membudget_runtime.errors import NoRoom, RuntimeMemoryError, ValueTooLarge

Endpoint = Callable[[Request], Awaitable[Response]]

_Message = TypeVar("_Message")

_STATUS: Final[Mapping[type[Exception], int]] = {
    QueryInvalid: 400,
    WriteInvalid: 400,
    SourceInvalid: 400,
    CollectionMissing: 404,
    SessionMissing: 404,
    FileMissing: 404,
    UploadMissing: 404,
    BodyLate: 408,
    MeasurementRunning: 409,
    ReadOnly: 409,
    UploadDiffers: 409,
    UploadRunning: 409,
    BodyTooLarge: 413,
    ValueTooLarge: 413,
    EmbeddingInvalid: 502,
    SealPending: 429,
    NoRoom: 429,
}
"""Every other error of engine and runtime is a 503: this engine cannot now."""

RETRIABLE: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""These carry Retry-After."""


class Refused(Exception):
    """A request that is refused before any work was done."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail


def typed(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its typed errors as problem+json."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            return problem(refused.status, refused.reason, refused.detail)
        except (EngineError, RuntimeMemoryError) as error:
            return problem(_STATUS.get(type(error), HTTPStatus.SERVICE_UNAVAILABLE), type(error).__name__, str(error))
        except MemoryError:
            return problem(503, "OutOfMemory", "the process got no memory for this request; try again")
        except OSError as error:
            return problem(503, "VolumeFailed", f"{error}; is the volume full, read-only or failing?")
        except ClientDisconnect:
            # Nobody reads this; raised further it would be logged as an error of ours.
            return problem(400, "Disconnected", "the body ended early")

    return answered


async def unrouted(_request: Request, error: Exception) -> Response:
    """No such path or method."""
    assert isinstance(error, HTTPException)
    reason = HTTPStatus(error.status_code).phrase.title().replace(" ", "")
    return problem(error.status_code, reason, error.detail, error.headers)


async def failed(_request: Request, _error: Exception) -> Response:
    """A defect of ours: its traceback is in the log."""
    return problem(500, "Internal", "a defect of this engine, told in its log")


async def message(request: Request, kind: type[_Message], what: str, most_bytes: int = MAX_BODY_BYTES) -> _Message:
    """The body as a message of this kind, told as `what`. Raises Refused: it is too large, or none."""
    body = await _body(request, most_bytes)
    try:
        return decode_json(body, kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refused(400, "Invalid", f"the body is no {what}: {error}") from None


def json(body: bytes, status: int = HTTPStatus.OK) -> Response:
    """An answer that is encoded already."""
    return Response(body, status, media_type="application/json")


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal (RFC 9457)."""
    told = Problem(title="Request refused", status=status, reason=reason, detail=detail)
    retriable = {"Retry-After": "1"} if status in RETRIABLE else {}
    return Response(
        msgspec.json.encode(told), status, {**retriable, **(headers or {})}, media_type="application/problem+json"
    )


async def _body(request: Request, most_bytes: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise Refused(413, "TooLarge", f"a body has at most {most_bytes} bytes")
    return bytes(body)
