"""The sidecar as a process of its own, as a person or a pod starts it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.fake_engine import eventually


class Started:
    """One sidecar process in a folder, with its output; `launch` is called as Popen is."""

    def __init__(
        self, folder: Path, *arguments: str, launch: Callable[..., subprocess.Popen[Any]] = subprocess.Popen
    ) -> None:
        self.folder = folder
        self.policy = folder / "policy.yaml"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        argv = ["--run", str(folder), "--state", str(folder / "state"), "--port", str(self.port), *arguments]
        self._log = folder / f"sidecar-{self.port}.log"
        with self._log.open("w") as log:
            self.process = launch([sys.executable, "-m", "membudget_sidecar", *argv], stderr=log)

    def log(self) -> str:
        """All it wrote so far."""
        return self._log.read_text()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request on the Unix socket."""
        connection = http.client.HTTPConnection("sidecar", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.connect(str(self.folder / "sidecar.sock"))
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Its status; empty while it does not answer yet."""
        try:
            return self.ask("GET", "/v1/status")[1]
        except OSError:
            return {}

    def until(self, **expected: object) -> None:
        """Poll the status until it says so."""
        eventually(lambda: expected.items() <= self.status().items(), f"the status says {expected}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and all it wrote, after that signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout=10), self.log()
