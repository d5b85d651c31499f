"""The store behind the API server: started, killed, frozen, put back to an earlier day, written past the API server.

Covers: one etcd process and its HTTP gateway. Does not know what is stored. Neighbour: `control_plane` owns it.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.network_namespace import NetworkNamespace

_HOST = "127.0.0.1"
_PORT = 2379
ETCD_URL = f"http://{_HOST}:{_PORT}"
LAGGING_PORT = 2479
"""For an API server that is to see the store late: packets from there may be dropped."""
_PEERS_URL = "http://127.0.0.1:2380"
_SECONDS = 10.0


class EtcdProcess:
    """Runs from the start; its data are in `folder`/etcd."""

    def __init__(self, network: NetworkNamespace, binary: Path, *, folder: Path) -> None:
        self._network = network
        self._data = folder / "etcd"
        self._kept = folder / "etcd-kept"
        self._log = folder / "etcd.log"
        self._command = [
            str(binary),
            f"--data-dir={self._data}",
            f"--listen-client-urls={ETCD_URL},http://{_HOST}:{LAGGING_PORT}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={_PEERS_URL}",
        ]
        self.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """It has not ended; it may be frozen."""
        return self._process.poll() is None

    def start(self, *, durable: bool = False) -> None:
        """With the data that are there; without fsync it outlives kill -9, never a crash of the machine."""
        command = self._command if durable else [*self._command, "--unsafe-no-fsync"]
        self._process = start_logged(self._network.inside(command), self._log)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It stays there and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._process.send_signal(signal.SIGCONT)

    def back_up(self) -> None:
        """Copy the data while nothing runs."""
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self._data, self._kept)

    def roll_back(self) -> None:
        """Put the copy back while nothing runs."""
        shutil.rmtree(self._data)
        shutil.copytree(self._kept, self._data)

    def read(self, key: str) -> bytes:
        """The value of a key that is there."""
        found = self._ask("kv/range", {"key": _base64(key.encode())})
        return base64.b64decode(found["kvs"][0]["value"])

    def write(self, key: str, value: bytes) -> None:
        """Past the API server and all that it would refuse; its watches see it."""
        self._ask("kv/put", {"key": _base64(key.encode()), "value": _base64(value)})

    def compact(self) -> None:
        """Forget all history: a watch that was away and asks to go on gets 410 Gone."""
        revision = self._ask("kv/range", {"key": _base64(b"/")})["header"]["revision"]
        self._ask("kv/compaction", {"revision": revision, "physical": True})

    def say_no_space(self, *, full: bool) -> None:
        """The alarm that etcd raises over its quota: it takes no more writes until the alarm is taken back."""
        member = self._ask("cluster/member/list", {})["members"][0]["ID"]
        action = "ACTIVATE" if full else "DEACTIVATE"
        self._ask("maintenance/alarm", {"action": action, "memberID": member, "alarm": "NOSPACE"})

    def _ask(self, method: str, message: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection(_HOST, _PORT)
        connection.sock = self._network.connect(_HOST, _PORT, _SECONDS)
        try:
            connection.request("POST", f"/v3/{method}", json.dumps(message))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status == http.client.OK, content
        return json.loads(content)


def start_logged(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A program whose output is appended to a file."""
    with log.open("ab") as written:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=written)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
