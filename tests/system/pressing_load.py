"""Everybody who uses a writing engine at once, from a process of their own: what each was answered, and when.

Usage: pressing_load.py PORT QUERIES, the latter a file with a question a line. Twenty agents search, each question
twice in a row: an answer at full effort is kept, so the second time it comes from a cache. One thread ingests notes in
batches and waits as long as a refusal asks it to, one deletes half of what was acknowledged, one reads notes by id, one
asks for health. All of them end when the standard input does; then each answer is one line of JSON on the standard
output.
"""

from __future__ import annotations

import http.client
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.written import notes
from membudget_cli.demo.agents import HITS

AGENTS = 20
BATCH = 20
LONGEST_SECONDS = 20.0
"""For one answer; more is a hang."""
PAUSE_SECONDS = 0.02
"""Between two requests of whoever does not search: they are to be answered, not to be the load."""


class Answered(msgspec.Struct, frozen=True):
    """One request. Moments in seconds of the machine's monotonic clock."""

    asked_at: float
    seconds: float
    kind: str
    status: int
    """0: no answer came."""
    content_type: str
    retry_after: str | None
    answered_by: str | None
    """Of a search."""
    again: bool
    """The second time that a question was asked."""
    detail: str
    """What a refusal said, or why no answer came."""


class _Reply(msgspec.Struct):
    answered_by: str | None = None
    detail: str = ""


class Load:
    """The threads and what they saw."""

    def __init__(self, port: int, queries: list[str]) -> None:
        self.answered: list[Answered] = []
        self._port = port
        self._queries = queries
        self._stopped = threading.Event()
        self._acknowledged = 0
        """Notes with a number below this are there, unless they were deleted since: every even one may be."""

    def run(self) -> None:
        """Until the standard input ends."""
        searching = [self._searching(number) for number in range(AGENTS)]
        work = [self._ingest, self._delete, self._get, self._health, *searching]
        threads = [threading.Thread(target=self._repeat, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._stopped.set()
        for thread in threads:
            thread.join()

    def _repeat(self, work: Callable[[http.client.HTTPConnection], object]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_SECONDS)
        while not self._stopped.is_set():
            work(connection)

    def _searching(self, agent: int) -> Callable[[http.client.HTTPConnection], object]:
        own = itertools.cycle(self._queries[agent::AGENTS])

        def search_twice(connection: http.client.HTTPConnection) -> None:
            body = msgspec.json.encode({"collection": "stdlib", "query": next(own), "hits": HITS})
            for again in (False, True):
                self._ask(connection, "search", "POST", "/v1/search", body, again=again)

        return search_twice

    def _ingest(self, connection: http.client.HTTPConnection) -> None:
        first = self._acknowledged
        body = msgspec.json.encode({"chunks": notes(range(first, first + BATCH), "pressed " * 20)})
        answer = self._ask(connection, "upsert", "POST", "/v1/chunks/notes", body)
        if answer.status == http.client.OK:
            self._acknowledged = first + BATCH
        self._stopped.wait(float(answer.retry_after or PAUSE_SECONDS))

    def _delete(self, connection: http.client.HTTPConnection) -> None:
        if self._acknowledged:
            number = (len(self.answered) * 2) % self._acknowledged
            self._ask(connection, "delete", "DELETE", f"/v1/chunks/notes/note-{number}")
        self._stopped.wait(PAUSE_SECONDS)

    def _get(self, connection: http.client.HTTPConnection) -> None:
        if self._acknowledged:
            number = (len(self.answered) * 2 + 1) % self._acknowledged
            self._ask(connection, "get", "GET", f"/v1/chunks/notes/note-{number}")
        self._stopped.wait(PAUSE_SECONDS)

    def _health(self, connection: http.client.HTTPConnection) -> None:
        self._ask(connection, "health", "GET", "/healthz")
        self._stopped.wait(PAUSE_SECONDS)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        kind: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        again: bool = False,
    ) -> Answered:
        asked_at = time.monotonic()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            answer = Answered(asked_at, time.monotonic() - asked_at, kind, 0, "", None, None, again, repr(error))
        else:
            content_type = response.headers.get("content-type", "")
            reply = msgspec.json.decode(content, type=_Reply) if content.startswith(b"{") else _Reply()
            answer = Answered(
                asked_at, time.monotonic() - asked_at, kind, response.status, content_type,
                response.headers.get("retry-after"), reply.answered_by, again, reply.detail,
            )  # fmt: skip
        self.answered.append(answer)
        return answer


def main() -> None:
    """Press until told to end, then tell."""
    load = Load(int(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8").splitlines())
    load.run()
    for answer in load.answered:
        os.write(1, msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
