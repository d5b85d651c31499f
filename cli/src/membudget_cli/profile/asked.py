"""Agents that ask two engines the same, of both in turn, and what came of it.

Covers: a turn of an agent (a search, now and then a file and the conversation), times of searches by engine. Does not
cover the questions (`membudget_cli.demo.trace`) nor memory (`workload`). Each question goes to one engine and, when it
is answered, to the other; which comes first alternates. So both times are of the same moment of the same machine.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from membudget_cli.demo.trace import Query
from membudget_contract.decoding import decode_json

HITS: Final = 10
REQUEST_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.03
"""Between an answer and the next question, as in the demo: 20 agents with such pauses fill two processors."""
READS_EVERY: Final = 4
"""In one of so many turns the agent opens the best hit's file and adds to its conversation."""
TURN_CHARACTERS: Final = 4_000


class Asked:
    """Agents, each with its questions, and the ports of the engines by name."""

    def __init__(
        self, ports: Mapping[str, int], questions: Sequence[Sequence[Query]], pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in ports}
        self.answered_by: dict[str, Counter[str]] = {name: Counter() for name in ports}
        self.failures: Counter[str] = Counter()
        self.conversations_lost: Counter[str] = Counter()
        """Counted when their agents have ended."""
        self.turns = 0
        self._ports = ports
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number, share), name=f"agent-{number}", daemon=True)
            for number, share in enumerate(questions)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def running(self) -> bool:
        """Whether an agent has questions left."""
        return any(thread.is_alive() for thread in self._threads)

    def _ask(self, number: int, questions: Sequence[Query]) -> None:
        clients = [_Client(name, port) for name, port in self._ports.items()]
        for turn, query in enumerate(questions, number):
            if self._stopped.is_set():
                break
            for client in clients if turn % 2 else reversed(clients):
                try:
                    seconds, answered_by = client.turn(query, reads=turn % READS_EVERY == 0)
                except (OSError, http.client.HTTPException, msgspec.MsgspecError, _Refused) as error:
                    client.close()
                    with self._lock:
                        self.failures[f"{client.name}: {error!r}"] += 1
                    continue
                with self._lock:
                    self.seconds[client.name].append(seconds)
                    self.answered_by[client.name][answered_by] += 1
            with self._lock:
                self.turns += 1
            self._stopped.wait(self._pause_seconds)
        for client in clients:
            client.close()
            with self._lock:
                self.conversations_lost[client.name] += client.conversations_lost


class _Refused(Exception):
    """Another answer than 200 or 201."""


class _Missing(_Refused):
    """A conversation gave way to others; its agent begins another, as the engine's documents say."""


class _Found(msgspec.Struct):
    path: str
    source: str


class _Hit(msgspec.Struct):
    chunk: _Found


class _Answer(msgspec.Struct):
    answered_by: str
    hits: list[_Hit]


class _Session(msgspec.Struct):
    id: str


class _Client:
    """One agent's connection to one engine, and its conversation there."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
        self._session: str | None = None
        self.conversations_lost = 0

    def close(self) -> None:
        """It is opened again when it is needed."""
        self._connection.close()

    def turn(self, query: Query, *, reads: bool) -> tuple[float, str]:
        """How long the search took, and what answered it."""
        asked = {"collection": query.collection, "query": query.text, "hits": HITS}
        started = time.perf_counter()
        body = self._request("POST", "/v1/search", asked)
        seconds = time.perf_counter() - started
        answer = decode_json(body, _Answer)
        if reads and answer.hits:
            best = answer.hits[0].chunk
            self._request("GET", f"/v1/files/{query.collection}/{quote(best.path)}")
            self._say("user", query.text)
            self._say("assistant", best.source[:TURN_CHARACTERS])
        return seconds, answer.answered_by

    def _say(self, role: str, text: str) -> None:
        turn = {"role": role, "text": text}
        if self._session is not None:
            try:
                self._request("POST", f"/v1/sessions/{self._session}/turns", turn)
            except _Missing:
                self.conversations_lost += 1
            else:
                return
        self._session = decode_json(self._request("POST", "/v1/sessions", {}), _Session).id
        self._request("POST", f"/v1/sessions/{self._session}/turns", turn)

    def _request(self, method: str, path: str, message: Mapping[str, Any] | None = None) -> bytes:
        body = None if message is None else msgspec.json.encode(message)
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status == http.client.NOT_FOUND and "sessions" in path:
            raise _Missing(path)
        if response.status not in {http.client.OK, http.client.CREATED}:
            raise _Refused(f"{method} {path.split('/')[2]} was answered with {response.status}: {content[:200]!r}")
        return content
