"""Covers the body of a request as a file that a worker thread reads: a piece at a time, within bounds of size and time.

It does not cover what is in it (document_source, vector_source) nor the request (ingest_api). Nothing is read ahead:
while nobody reads, the connection's own buffers fill, and the peer waits.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from membudget_engine.errors import BodyEnded, BodyLate, BodyTooLarge

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOOK_SECONDS: Final = 0.1
"""Between two looks whether to give up while a piece is awaited."""


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """Of one request."""

    most_bytes: int
    idle_seconds: float
    """Without a byte when one is awaited; time in which nobody reads does not count."""
    seconds: float
    """From the first byte to the last, in all."""


class BodyStream(io.RawIOBase):
    """Read by one thread, fed by the loop of another."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        loop: asyncio.AbstractEventLoop,
        bounds: BodyBounds,
        ended: Callable[[], bool],
    ) -> None:
        """`ended` says whether whoever answers the request is gone."""
        super().__init__()
        self._pieces = pieces
        self._loop = loop
        self._bounds = bounds
        self._ended = ended
        self._piece: bytes | None = b""
        self._came = 0
        self._latest = time.monotonic() + bounds.seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Some bytes; 0 behind the last. Raises BodyLate, BodyTooLarge, BodyEnded, and what the request raises."""
        while self._piece == b"":
            self._piece = self._next()
        if self._piece is None:
            return 0
        view = memoryview(buffer).cast("B")
        taken = self._piece[: len(view)]
        view[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)

    def _next(self) -> bytes | None:
        if self._ended():
            raise BodyEnded("this engine is stopping; send the same again, to go on")
        waited = asyncio.run_coroutine_threadsafe(self._awaited(), self._loop)
        idle_at = time.monotonic() + self._bounds.idle_seconds
        while True:
            try:
                piece = waited.result(LOOK_SECONDS)
                break
            except TimeoutError:
                self._look(idle_at, waited.cancel)
        self._came += len(piece or b"")
        if self._came > self._bounds.most_bytes:
            raise BodyTooLarge(f"one request has at most {self._bounds.most_bytes} bytes")
        if time.monotonic() > self._latest:
            self._late()
        return piece

    def _look(self, idle_at: float, cancel: Callable[[], object]) -> None:
        now = time.monotonic()
        if self._ended():
            cancel()
            raise BodyEnded("this engine is stopping; send the same again, to go on")
        if now > min(idle_at, self._latest):
            cancel()
            self._late()

    def _late(self) -> NoReturn:
        bounds = self._bounds
        raise BodyLate(f"a body comes within {bounds.seconds:g} s, with no pause of {bounds.idle_seconds:g} s")

    async def _awaited(self) -> bytes | None:
        return await anext(self._pieces, None)
