"""One agent that asks without a pause and keeps when each answer was asked for and how long it took."""

from __future__ import annotations

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from membudget_cli.demo.agents import HITS
from membudget_cli.demo.trace import Query

_REQUEST_SECONDS = 10.0
_CENTILES = 100


@dataclass(frozen=True, slots=True)
class Timed:
    """One query: when it was asked in unix seconds, and the seconds to its answer."""

    asked_at: float
    seconds: float


class TimedAsker:
    """Asks the queries in turn, over and over, in a thread of its own; the first failure ends it and is kept."""

    def __init__(self, port: int, queries: Sequence[Query], pause_seconds: float = 0.0) -> None:
        self.asked: list[Timed] = []
        self.failure: str | None = None
        self._queries = itertools.cycle(queries)
        self._pause = pause_seconds
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timed-asker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._connection.close()

    def p99_seconds(self, since: float, until: float) -> float:
        """Of the queries asked between two moments in unix seconds; NaN with fewer than two."""
        seconds = [timed.seconds for timed in list(self.asked) if since <= timed.asked_at < until]
        return statistics.quantiles(seconds, n=_CENTILES)[-1] if len(seconds) > 1 else float("nan")

    def _run(self) -> None:
        for query in self._queries:
            if self._stopped.wait(self._pause):
                return
            asked_at, started = time.time(), time.perf_counter()
            try:
                ask_once(self._connection, query)
            except (OSError, http.client.HTTPException) as error:
                self.failure = repr(error)
                return
            self.asked.append(Timed(asked_at, time.perf_counter() - started))


def ask_once(connection: http.client.HTTPConnection, query: Query) -> None:
    """One query over an open connection. Raises OSError or HTTPException, also for anything but 200."""
    body = msgspec.json.encode({"collection": query.collection, "query": query.text, "hits": HITS})
    connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"HTTP {response.status}: {content[:200]!r}")
