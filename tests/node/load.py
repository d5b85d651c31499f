"""Queries in number, at pods' addresses inside the pod network: how many were answered, and what failed.

The questions come from the standard library's names and docstrings. `distinct` never asks the same twice: the number of
hits asked for is part of a question, so one text makes fifty. An agent only searches, or keeps its conversation in the
engine as well.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Self

import msgspec

from membudget_cli.demo.trace import Query, distinct_queries
from membudget_engine.caches.conversation import SESSION_BYTES, TURN_CHARACTERS
from membudget_engine.ingest.python_source import standard_library_root
from membudget_engine.settings import MAX_HITS
from node.engine_client import sent
from node.installed import ENGINE_PORT, connect
from node.node import Node

Question = tuple[Query, int]
"""What, and how many hits."""
Asks = Callable[[http.client.HTTPConnection, Query, int], object]
"""What one agent does with a question."""
QUESTIONS_EACH = SESSION_BYTES // TURN_CHARACTERS
"""After so many a conversation is about as large as the engine keeps one."""


def distinct(texts: int, collection: str = "stdlib") -> list[Question]:
    """Fifty questions for each text, those with the fewest hits first."""
    queries = distinct_queries(collection, standard_library_root(), texts)
    return [(query, hits) for hits in range(1, MAX_HITS + 1) for query in queries]


class Load:
    """Agents that share one list of questions, in threads of their own, until it ends or somebody stops them.

    `addresses` says whom to ask now; an agent connects anew when its pod is no longer among them. `asks` makes what an
    agent does with a question, for each of them one.
    """

    def __init__(
        self,
        node: Node,
        addresses: Callable[[], Sequence[str]],
        questions: Iterator[Question],
        agents: int,
        asks: Callable[[], Asks] = lambda: search,
    ) -> None:
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self._node = node
        self._addresses = addresses
        self._questions = questions
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(asks(),), daemon=True) for _ in range(agents)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Finish the questions in flight."""
        self._stopped.set()
        self.wait()

    def wait(self) -> None:
        """Until every question was asked."""
        for thread in self._threads:
            thread.join()

    def _ask_on(self, asks: Asks) -> None:
        connection: http.client.HTTPConnection | None = None
        for turn in itertools.count():
            with self._lock:
                question = next(self._questions, None)
            if question is None or self._stopped.is_set():
                break
            try:
                if connection is not None and connection.host not in self._addresses():
                    connection.close()
                    connection = None
                connection = self._asked(connection or self._connected(turn), asks, question, turn)
            except (OSError, http.client.HTTPException, IndexError) as error:
                if connection is not None:
                    connection.close()
                connection = None
                self._count(repr(error))
            else:
                self._count(None)
        if connection is not None:
            connection.close()

    def _connected(self, turn: int) -> http.client.HTTPConnection:
        addresses = self._addresses()
        return connect(self._node, addresses[turn % len(addresses)], ENGINE_PORT)

    def _asked(
        self, connection: http.client.HTTPConnection, asks: Asks, question: Question, turn: int
    ) -> http.client.HTTPConnection:
        """The connection that the answer came over."""
        try:
            asks(connection, *question)
        except BrokenPipeError:
            # It was closed before it took anything of the request: clients send it anew (RFC 9112, 9.3.1).
            connection.close()
            connection = self._connected(turn)
            asks(connection, *question)
        return connection

    def _count(self, failure: str | None) -> None:
        with self._lock:
            if failure is None:
                self.answered += 1
            else:
                self.failed[failure] += 1
        if failure is not None:
            self._stopped.wait(0.1)  # a pod that is gone refuses a thousand connections a second


def ask(node: Node, address: str, questions: Sequence[Question], agents: int = 4) -> Load:
    """Ask one pod all of these, each once."""
    with Load(node, lambda: [address], iter(questions), agents) as load:
        load.wait()
    return load


def search(connection: http.client.HTTPConnection, query: Query, hits: int) -> Any:
    """The decoded answer.

    Raises:
        http.client.HTTPException: the engine refused.
    """
    asked = {"collection": query.collection, "query": query.text, "hits": hits}
    return _taken(HTTPStatus.OK, *sent(connection, "POST", "/v1/search", msgspec.json.encode(asked)))


class Conversation:
    """An agent that keeps what it asked and what it was told in sessions of the engine, one after the other.

    Where its session gave way to others it starts one anew; where there is no room for one, it goes on without.
    """

    def __init__(self) -> None:
        self._session: str | None = None
        self._questions = 0

    def __call__(self, connection: http.client.HTTPConnection, query: Query, hits: int) -> None:
        """Search, and go on with the conversation."""
        answer = msgspec.json.encode(search(connection, query, hits)).decode()
        if self._session is None or self._questions == QUESTIONS_EACH:
            self._session, self._questions = self._started(connection), 0
        self._questions += 1
        for role, text in (("user", query.text), ("assistant", answer)):
            if self._session is not None:
                self._session = self._said(connection, self._session, role, text[:TURN_CHARACTERS])

    def _started(self, connection: http.client.HTTPConnection) -> str | None:
        status, started = sent(connection, "POST", "/v1/sessions", None)
        return None if status in _NO_ROOM else _taken(HTTPStatus.CREATED, status, started)["id"]

    def _said(self, connection: http.client.HTTPConnection, session: str, role: str, text: str) -> str | None:
        turn = msgspec.json.encode({"role": role, "text": text})
        status, said = sent(connection, "POST", f"/v1/sessions/{session}/turns", turn)
        return None if status in {HTTPStatus.NOT_FOUND, *_NO_ROOM} else _taken(HTTPStatus.OK, status, said)["id"]


_NO_ROOM = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
"""What an engine answers that has none for what it is to keep."""


def _taken(expected: HTTPStatus, status: int, answer: Any) -> Any:
    if status != expected:
        raise http.client.HTTPException(f"HTTP {status}: {answer}")
    return answer
