"""Queries in number, at pods' addresses inside the pod network: how many were answered, and what failed.

The questions come from the standard library's names and docstrings. `distinct` never asks the same twice: the number of
hits asked for is part of a question, so one text makes fifty.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import msgspec

from membudget_cli.demo.trace import Query, distinct_queries
from membudget_engine.ingest.python_source import standard_library_root
from membudget_engine.settings import MAX_HITS
from node.installed import ENGINE_PORT, connect
from node.node import Node

Question = tuple[Query, int]
"""What, and how many hits."""


def distinct(texts: int, collection: str = "stdlib") -> list[Question]:
    """Fifty questions for each text, those with the fewest hits first."""
    queries = distinct_queries(collection, standard_library_root(), texts)
    return [(query, hits) for hits in range(1, MAX_HITS + 1) for query in queries]


class Load:
    """Agents that share one list of questions, in threads of their own, until it ends or somebody stops them.

    `addresses` says whom to ask now; an agent connects anew when its pod is no longer among them.
    """

    def __init__(
        self, node: Node, addresses: Callable[[], Sequence[str]], questions: Iterator[Question], agents: int
    ) -> None:
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self._node = node
        self._addresses = addresses
        self._questions = questions
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(agents)]

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

    def _ask_on(self) -> None:
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
                connection = self._asked(connection or self._connected(turn), question, turn)
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
        self, connection: http.client.HTTPConnection, question: Question, turn: int
    ) -> http.client.HTTPConnection:
        """The connection that the answer came over."""
        try:
            _ask(connection, *question)
        except BrokenPipeError:
            # It was closed before it took anything of the request: clients send it anew (RFC 9112, 9.3.1).
            connection.close()
            connection = self._connected(turn)
            _ask(connection, *question)
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


def _ask(connection: http.client.HTTPConnection, query: Query, hits: int) -> None:
    body = msgspec.json.encode({"collection": query.collection, "query": query.text, "hits": hits})
    connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"HTTP {response.status}: {content[:200]!r}")
