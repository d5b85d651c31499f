"""An embedder behind HTTP: any server of OpenAI's `/v1/embeddings`.

Covers: asking in batches, a time-out over all of it, a cap on the answer's bytes, trying again what may pass, and
refusing an answer that is not what was asked for. Does not cover the built-in embedder (`embedder`) nor keeping vectors
(`caches.cached_embedder`).

Nothing is asked at start: an engine whose embedding server is away serves everything but new texts.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec
import numpy as np

from membudget_contract.decoding import decode_json
from membudget_engine.embedder import QUERY_TOKENS, HashingEmbedder, QueryEmbedder, Vectors, normalised
from membudget_engine.errors import EmbedderUnavailable, EmbeddingInvalid
from membudget_engine.settings import EmbeddingServer

BATCH_TEXTS: Final = 100
TIMEOUT_SECONDS: Final = 10.0
"""Of one batch, with everything that is tried again in it."""
PAUSES_SECONDS: Final = (0.1, 0.4)
"""Before it is tried a second and a third time."""
PLACE_BYTES: Final = 32
"""Of one number in JSON: 17 digits, sign, exponent, comma, and room for spaces."""
BESIDE_BYTES: Final = 64 * 1024
"""Of an answer beside its numbers."""

_OK: Final = 200
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST: Final = float(np.finfo(np.float32).max)


class _Ask(msgspec.Struct, frozen=True):
    model: str
    input: Sequence[str]
    encoding_format: str = "float"


class _Row(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Told(msgspec.Struct, frozen=True):
    data: list[_Row]


class HttpEmbedder:
    """Vectors of one model. Every method may be called from any thread; each call has a connection of its own."""

    def __init__(
        self,
        server: EmbeddingServer,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        parts = urlsplit(server.url)
        self._server = server
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = f"{parts.path.rstrip('/')}/embeddings"
        self._timeout = timeout_seconds
        self._pause = pause

    @property
    def name(self) -> str:
        """For instance `http-minilm-384`. Of the model, wherever it is served."""
        return f"http-{self._server.model}-{self._server.dimension}"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._server.dimension

    @property
    def worth_keeping(self) -> bool:
        """Each is a request."""
        return True

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimension), float32, each row of length 1; a text of spaces gives a row of zeros.

        Raises:
            EmbedderUnavailable: no answer in time, or the server cannot now.
            EmbeddingInvalid: it refused, or answered something else.
        """
        rows = np.zeros((len(texts), self.dimension))
        said = [number for number, text in enumerate(texts) if text.strip()]
        for first in range(0, len(said), BATCH_TEXTS):
            batch = said[first : first + BATCH_TEXTS]
            rows[batch] = self._batch([texts[number] for number in batch])
        return normalised(rows)

    def embed_query(self, text: str, collection: str) -> Vectors:
        """As any text. Raises as `embed`."""
        del collection
        return self.embed([text])

    def _batch(self, texts: Sequence[str]) -> list[list[float]]:
        body = msgspec.json.encode(_Ask(self._server.model, texts))
        most_bytes = BESIDE_BYTES + len(texts) * self.dimension * PLACE_BYTES
        latest = time.monotonic() + self._timeout
        for pause in (*PAUSES_SECONDS, None):
            try:
                return self._checked(self._answer(body, most_bytes, latest), len(texts))
            except EmbedderUnavailable:
                if pause is None or time.monotonic() + pause >= latest:
                    raise
            self._pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, body: bytes, most_bytes: int, latest: float) -> bytes:
        """The body of one answer that says OK."""
        left = latest - time.monotonic()
        if left <= 0:
            raise self._late()
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=left)
        try:
            connection.connect()
            # A socket's own time-out begins anew with every byte that comes.
            with _Cut(connection.sock, latest - time.monotonic()) as cut:
                try:
                    connection.request("POST", self._path, body, self._headers())
                    response = connection.getresponse()
                    content = response.read(most_bytes + 1)
                except (OSError, http.client.HTTPException):
                    if cut.done:
                        raise self._late() from None
                    raise
            if cut.done:
                raise self._late()
        except TimeoutError:
            raise self._late() from None
        except (OSError, http.client.HTTPException) as error:
            raise EmbedderUnavailable(f"{self._server.url}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()
        return self._of_status(response.status, content, most_bytes)

    def _of_status(self, status: int, content: bytes, most_bytes: int) -> bytes:
        if status in _PASSING:
            raise EmbedderUnavailable(f"{self._server.url} answered {status}: {_beginning(content)}")
        if status != _OK:
            raise EmbeddingInvalid(f"{self._server.url} answered {status}: {_beginning(content)}")
        if len(content) > most_bytes:
            raise EmbeddingInvalid(f"{self._server.url}: the answer has more than {most_bytes} bytes")
        return content

    def _checked(self, content: bytes, count: int) -> list[list[float]]:
        try:
            told = decode_json(content, _Told).data
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise EmbeddingInvalid(f"{self._server.url}: the answer is no list of embeddings: {error}") from None
        by_index = {row.index: row.embedding for row in told}
        if len(told) != count or by_index.keys() != set(range(count)):
            raise EmbeddingInvalid(
                f"{self._server.url} answered {len(told)} embeddings for {count} texts, not one for each"
            )
        lengths = {len(row) for row in by_index.values()} - {self.dimension}
        if lengths:
            raise EmbeddingInvalid(f"{self._server.url} answered {lengths.pop()} dimensions, not {self.dimension}")
        rows = [by_index[number] for number in range(count)]
        if not (np.abs(np.asarray(rows)) <= _LARGEST).all():
            raise EmbeddingInvalid(f"{self._server.url} answered a number that no float32 can hold")
        return rows

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self._server.key is not None:
            headers["Authorization"] = f"Bearer {self._server.key}"
        return headers

    def _late(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(f"{self._server.url} did not answer within {self._timeout:g} s")


def chosen_embedder(server: EmbeddingServer | None, *, cached_tokens: int = QUERY_TOKENS) -> QueryEmbedder:
    """The server's, or the built-in one with so many tokens kept ready."""
    return HashingEmbedder(cached_tokens=cached_tokens) if server is None else HttpEmbedder(server)


class _Cut:
    """Ends a connection when its time is over, whatever it is doing."""

    def __init__(self, sock: socket.socket | ssl.SSLSocket, seconds: float) -> None:
        self.done = False
        self._sock = sock
        self._timer = threading.Timer(max(0.0, seconds), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def _cut(self) -> None:
        self.done = True
        try:
            # Of the socket below TLS too: a reader wakes up with the end of the stream.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            return


def _beginning(content: bytes) -> str:
    return content[:200].decode(errors="replace")
