"""Requests of the test itself to the API server, in milliseconds where kubectl takes a tenth of a second.

Sent as the administrator over a connection from inside the network namespace, one for each request. What a person or
the controller would do goes through kubectl or their own client, never through here.
"""

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from cluster.credentials import ADMIN, Credentials
from cluster.network_namespace import NetworkNamespace

USER_AGENT = "membudget-tests"
_SECONDS = 30.0


class ApiRefused(Exception):
    """The API server answered with an error: its status code and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ApiRequests:
    """The API server at `host` and `port` inside the namespace."""

    def __init__(self, namespace: NetworkNamespace, credentials: Credentials, host: str, port: int) -> None:
        self._namespace = namespace
        self._credentials = credentials
        self._address = (host, port)

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The answer's body; raises ApiRefused, and OSError when nobody answers."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {"Authorization": f"Bearer {ADMIN.token}", "User-Agent": USER_AGENT, "Content-Type": kind}
        connection = self._connection()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {**sent, **(headers or {})})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise ApiRefused(response.status, answer.decode(errors="replace"))
        return answer

    def send_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The same, decoded."""
        return json.loads(self.send(method, path, body, headers=headers))

    @contextlib.contextmanager
    def watch(self, path: str) -> Generator[Iterator[Any]]:
        """The events of a watch as they come; it has begun when this is entered."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {ADMIN.token}"})
            response = connection.getresponse()
            yield (json.loads(line) for line in response)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        host, port = self._address
        context = ssl.create_default_context(cafile=self._credentials.authority)
        return _ConnectionInside(self._namespace, host, port, context)


class _ConnectionInside(http.client.HTTPSConnection):
    """HTTPS over a socket made inside the namespace."""

    def __init__(self, namespace: NetworkNamespace, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SECONDS, context=context)
        self._namespace = namespace
        self._tls = context

    def connect(self) -> None:
        """What HTTPSConnection does, from inside."""
        plain = self._namespace.connect(self.host, self.port, _SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each body waits 40 ms for an ACK
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
