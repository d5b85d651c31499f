"""One engine in a pod, asked as its clients ask it: searches, writes, uploads, seals.

Covers: single requests, and questions in number of which the caches answer a share. Neighbours: load.py (agents that
only count answers), installed.py (who has which address).
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import Any

import msgspec

from membudget_cli.demo.trace import Query
from node.installed import ENGINE_PORT, Installed, Pod, connect


class Engine:
    """By the address of its pod."""

    def __init__(self, installed: Installed, pod: Pod) -> None:
        self._node = installed.node
        self._address = pod.address

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """The status and the decoded answer of one request. Raises OSError, also for an answer that breaks off."""
        connection = connect(self._node, self._address, ENGINE_PORT)
        try:
            return sent(connection, method, path, body)
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from None
        finally:
            connection.close()

    def write(self, collection: str, identity: str, text: str) -> bool:
        """Whether this chunk was acknowledged. Raises OSError."""
        chunk: dict[str, Any] = {
            "id": identity,
            "path": f"{identity}.py",
            "name": identity,
            "kind": "function",
            "signature": f"def {identity}()",
            "docstring": text,
            "dependencies": [],
            "source": text,
            "start_line": 1,
            "end_line": 1,
        }
        status, _ = self.send("POST", f"/v1/chunks/{collection}", msgspec.json.encode({"chunks": [chunk]}))
        return status == http.client.OK

    def best(self, collection: str, text: str) -> str | None:
        """The id of the chunk nearest to this text; None where there is no such collection. Raises OSError."""
        asked = msgspec.json.encode({"collection": collection, "query": text, "hits": 1})
        status, answer = self.send("POST", "/v1/search", asked)
        return answer["hits"][0]["chunk"]["id"] if status == http.client.OK else None

    def hit_rate(self, queries: Sequence[Query]) -> float:
        """The share of these that a cache answered; every one is answered."""
        connection = connect(self._node, self._address, ENGINE_PORT)
        hits = 0
        try:
            for query in queries:
                body = msgspec.json.encode({"collection": query.collection, "query": query.text, "hits": 5})
                status, answer = sent(connection, "POST", "/v1/search", body)
                assert http.client.OK == status, answer
                hits += answer["answered_by"] != "index"
        finally:
            connection.close()
        return hits / len(queries)


def sent(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
    """The status and the decoded answer of one request over this connection."""
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    return response.status, msgspec.json.decode(response.read())
