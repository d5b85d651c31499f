"""Fake sidecars at pod addresses: one listener inside the network namespace answers at all of them (AnyIP).

Covers: which sidecar answers where, the public keys as a kubelet would have mounted them, and connections that are
held open, dropped or answered late. What a sidecar answers is `controller.fake_sidecar`. Neighbour: `fleet`.
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Final, Self, cast

import msgspec

from cluster.api_requests import ApiRefused
from cluster.control_plane import ControlPlane
from controller.fake_sidecar import FakeSidecar
from membudget_contract.orders import PodIdentity
from membudget_controller.settings import KEY_CONFIG_MAP, SIDECAR_PORT

KUBELET_SECONDS: Final = 0.3
HANG_SECONDS: Final = 3.0
"""Longer than a controller waits."""


class SidecarFarm:
    """Listens from entering to leaving."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane
        self.by_address: dict[str, FakeSidecar] = {}
        self._keys: dict[str, MountedKeys] = {}

    def __enter__(self) -> Self:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, pod: PodIdentity, address: str) -> FakeSidecar:
        """A new sidecar at that address; whoever was there before is gone."""
        keys = self._keys.setdefault(pod.namespace, MountedKeys(self.control_plane, pod.namespace))
        made = FakeSidecar(pod, keys)
        self.by_address[address] = made
        return made

    def answer(self, address: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        """None: no answer at all."""
        sidecar = self.by_address.get(address)
        if sidecar is None or sidecar.mode == "down":
            return None
        if sidecar.mode == "hang":
            time.sleep(HANG_SECONDS)
            return None
        status, message = sidecar.answer(path, body, headers)
        return None if sidecar.mode == "reply lost" else (status, msgspec.json.encode(message))


class MountedKeys:
    """The ConfigMap of one namespace, as a kubelet brings it: a moment late, and as it was while nobody answers."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self._control_plane = control_plane
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{KEY_CONFIG_MAP}"
        self._lock = threading.Lock()
        self._read_at = -float("inf")
        self._keys: Mapping[str, str] = {}

    def __call__(self) -> Mapping[str, str]:
        """Public keys by id."""
        with self._lock:
            if time.monotonic() - self._read_at > KUBELET_SECONDS:
                with contextlib.suppress(ApiRefused, OSError):
                    self._keys = self._control_plane.api.send_json("GET", self._path).get("data") or {}
                self._read_at = time.monotonic()
            return self._keys


class _Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_POST(self) -> None:
        """An order or a request for a report."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        local: str = self.connection.getsockname()[0]
        answer = cast("_Server", self.server).farm.answer(local, self.path, body, dict(self.headers))
        if answer is None:
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, farm: SidecarFarm) -> None:
        super().__init__(("0.0.0.0", SIDECAR_PORT), _Handler, bind_and_activate=False)
        self.farm = farm
        self.socket.close()
        self.socket = farm.control_plane.network.listen("0.0.0.0", SIDECAR_PORT)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A controller that is killed resets its connections."""
