"""Agents that ask without end, and what came of it.

Covers: concurrent clients over kept connections, counts and times. Does not cover what is asked (`trace`).
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

import msgspec

from membudget_cli.demo.trace import Query
from membudget_contract.decoding import decode_json

HITS: Final = 10
REQUEST_SECONDS: Final = 10.0
RECENT: Final = 2_000
"""Times kept for the live view's quantiles."""


class _AnsweredBy(msgspec.Struct):
    answered_by: str


class Agents:
    """`count` threads; each waits `pause_seconds` between an answer and the next question, as an agent reads it."""

    def __init__(self, port: int, traces: list[Iterator[Query]], pause_seconds: float, hits: int = HITS) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.seconds: list[float] = []
        self._port = port
        self._pause = pause_seconds
        self._hits = hits
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(trace,), name=f"agent-{number}", daemon=True)
            for number, trace in enumerate(traces)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the questions in flight."""
        self._stopped.set()
        self.wait()

    def wait(self) -> None:
        """Until every trace has ended; one without end never does."""
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> int:
        """Queries answered so far."""
        return sum(self.answered.values())

    @property
    def failures(self) -> int:
        """Queries not answered as they should."""
        return sum(self.failed.values())

    def _ask_on(self, trace: Iterator[Query]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS)
        for query in trace:
            if self._stopped.is_set():
                break
            started = time.perf_counter()
            try:
                outcome = _ask(connection, query, self._hits)
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                connection.close()
                with self._lock:
                    self.failed[repr(error)] += 1
                continue
            with self._lock:
                self._count(outcome, time.perf_counter() - started)
            self._stopped.wait(self._pause)
        connection.close()

    def _count(self, outcome: str, seconds: float) -> None:
        if outcome.startswith("HTTP"):
            self.failed[outcome] += 1
            return
        self.answered[outcome] += 1
        self.recent.append(seconds)
        self.seconds.append(seconds)


def _ask(connection: http.client.HTTPConnection, query: Query, hits: int) -> str:
    body = msgspec.json.encode({"collection": query.collection, "query": query.text, "hits": hits})
    connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        return f"HTTP {response.status}"
    return decode_json(content, _AnsweredBy).answered_by
