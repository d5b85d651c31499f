# ruff: noqa: INP001  a program beside the packages, as a service of your own would be
"""A small search service on FAISS that was not written for membudget, and the few lines by which it joins.

It answers `GET /search?q=words` over text files with the standard library's HTTP server. Its vectors lie in an index of
its own, its two caches are dicts under locks of its own. Everything that membudget needs is in `join`: what the service
holds, how it gives bytes back, and a socket over which the sidecar speaks. Delete that function and its call, and it is
the service that it was.

    python examples/faiss_service.py --texts FOLDER --port 8080 --run /run/membudget --state /var/lib/service
    python -m membudget_sidecar --run /run/membudget --state /var/lib/membudget --policy examples/policy.yaml
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import faiss
import numpy as np
import numpy.typing as npt

from membudget_runtime import MemoryRuntime, Track

DIMENSION = 256
PARAGRAPHS_IN_AN_ANSWER = 10
LARGEST_CACHE_BYTES = 512 * 1024 * 1024

Vector = npt.NDArray[np.float32]
Value = TypeVar("Value", bytes, Vector)


def embedded(text: str) -> Vector:
    """Words hashed to dimensions: enough to find what has words in common."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    for word in text.lower().split():
        vector[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) % DIMENSION] += 1.0
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


class SizedCache(Generic[Value]):
    """The last used values by text, as far as they fit."""

    def __init__(self) -> None:
        self.byte_count = 0
        self.largest = LARGEST_CACHE_BYTES
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Value | None:
        """A value that is used now."""
        with self._lock:
            value = self._values.get(text)
            if value is not None:
                self._values.move_to_end(text)
            return value

    def put(self, text: str, value: Value) -> None:
        """Keep a value, and let older ones go for it."""
        with self._lock:
            self._drop(text)
            self._values[text] = value
            self.byte_count += self._cost(text, value)
            self._shrink_to(self.largest)

    def limit(self, byte_count: int) -> None:
        """Hold no more than this from now on."""
        with self._lock:
            self.largest = byte_count
            self._shrink_to(byte_count)

    def evict(self, byte_count: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self._shrink_to(self.byte_count - byte_count)

    def _shrink_to(self, byte_count: int) -> None:
        while self._values and self.byte_count > byte_count:
            self._drop(next(iter(self._values)))

    def _drop(self, text: str) -> None:
        value = self._values.pop(text, None)
        if value is not None:
            self.byte_count -= self._cost(text, value)

    def _cost(self, text: str, value: Value) -> int:
        data = value.nbytes if isinstance(value, np.ndarray) else 0
        return sys.getsizeof(text) + sys.getsizeof(value) + data


class Library:
    """Paragraphs of text files, found by words."""

    def __init__(self, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        self.paragraphs = [part for path in files for part in path.read_text(errors="replace").split("\n\n") if part]
        self.index = faiss.IndexFlatIP(DIMENSION)
        self.index.add(np.stack([embedded(paragraph) for paragraph in self.paragraphs]))
        self.vectors: SizedCache[Vector] = SizedCache()
        self.answers: SizedCache[bytes] = SizedCache()

    def index_bytes(self) -> int:
        """Of the vectors that FAISS holds."""
        return self.index.ntotal * DIMENSION * np.dtype(np.float32).itemsize

    def answer(self, query: str) -> bytes:
        """The paragraphs that fit best, as JSON."""
        answer = self.answers.get(query)
        if answer is None:
            vector = self.vectors.get(query)
            if vector is None:
                vector = embedded(query)
                self.vectors.put(query, vector)
            scores, rows = self.index.search(vector[np.newaxis], PARAGRAPHS_IN_AN_ANSWER)
            found: list[dict[str, object]] = [
                {"score": float(score), "text": self.paragraphs[row]}
                for score, row in zip(scores[0], rows[0], strict=True)
                if row >= 0
            ]
            answer = json.dumps({"query": query, "found": found}).encode()
            self.answers.put(query, answer)
        return answer


def join(library: Library, state: Path, run: Path) -> MemoryRuntime:
    """Let membudget manage this service: all that it takes."""
    runtime = MemoryRuntime(state, os.environ)
    runtime.track(Track(id="faiss", component="index", tracked_bytes=library.index_bytes(), type="IndexFlatIP"))
    for name, cache in (("answers", library.answers), ("vectors", library.vectors)):
        runtime.adopt(name, lambda cache=cache: cache.byte_count, evict=cache.evict, limit=cache.limit)
    runtime.serve(run / "engine.sock")
    return runtime


def server(library: Library, port: int) -> ThreadingHTTPServer:
    """Listening on the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits 40 ms for the ACK of the head

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query).get("q", [""])[0]
            found = address.path == "/search"
            body = library.answer(query) if found else b"{}"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name that http.server gives it
            """Say nothing of single requests."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--texts", type=Path, required=True, help="folder of text files")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the control socket")
    parser.add_argument("--state", type=Path, required=True, help="folder that outlives the process")
    asked = parser.parse_args()
    asked.run.mkdir(parents=True, exist_ok=True)
    library = Library(asked.texts)
    runtime = join(library, asked.state, asked.run)
    try:
        server(library, asked.port).serve_forever()
    except KeyboardInterrupt:
        runtime.close()


if __name__ == "__main__":
    main()
