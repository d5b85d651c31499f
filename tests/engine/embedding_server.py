"""A server of `/v1/embeddings` on a real socket, whose answers a test sets: right ones, slow ones, wrong ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

DIMENSION = 8

Answer = Callable[["EmbeddingServerFake", list[str]], tuple[int, bytes]]


def numbers(text: str) -> list[float]:
    """The vector of a text: not of length 1, as of some servers."""
    return [float(sum(text.encode()) % (place + 7)) + 0.5 for place in range(DIMENSION)]


def rows(texts: list[str]) -> list[dict[str, Any]]:
    """As the API has them, last one first: only their index says whose they are."""
    return [{"object": "embedding", "index": n, "embedding": numbers(text)} for n, text in enumerate(texts)][::-1]


def right(_server: EmbeddingServerFake, texts: list[str]) -> tuple[int, bytes]:
    """What was asked for."""
    return 200, json.dumps({"object": "list", "data": rows(texts), "model": "m"}).encode()


@dataclass
class EmbeddingServerFake:
    """Serves while the with block runs."""

    answer: Answer = right
    drip_seconds: float = 0.0
    """Between two bytes of the answer."""
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    keys: list[str | None] = field(default_factory=list[str | None])
    texts: int = 0

    def __enter__(self) -> Self:
        """On a free port of loopback."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append({"path": self.path, **content})
                fake.keys.append(self.headers["Authorization"])
                fake.texts += len(content["input"])
                status, body = fake.answer(fake, content["input"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self._send(body)
                except OSError:
                    return

            def _send(self, body: bytes) -> None:
                if not fake.drip_seconds:
                    self.wfile.write(body)
                    return
                for place in range(len(body)):
                    self.wfile.write(body[place : place + 1])
                    self.wfile.flush()
                    time.sleep(fake.drip_seconds)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  of the base class
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"
