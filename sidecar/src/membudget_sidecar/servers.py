"""One sidecar from start to end: the loop in a thread, its HTTP faces in the main one, signals.

Covers: putting the parts together, SIGTERM and SIGINT (stop, exit code 0), SIGHUP (read the policy again). Does not
cover listening (`listeners`), serving (`http_server`) nor what is served (`api`, `network_api`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType

from membudget_contract.policy import Mode
from membudget_sidecar.acting.actions import ActionRunner
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.observed_link import ObservedLink
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_gate import OrderGate
from membudget_sidecar.plans.order_keeper import OrderKeeper
from membudget_sidecar.plans.order_keys import OrderKeys
from membudget_sidecar.plans.plan_keeper import PlanKeeper
from membudget_sidecar.plans.policy_file import PolicyFile
from membudget_sidecar.recorder import Recorder
from membudget_sidecar.serving.api import local_api, loopback_api
from membudget_sidecar.serving.collector import SidecarCollector
from membudget_sidecar.serving.http_server import HttpServer
from membudget_sidecar.serving.listeners import tcp_port, unix_socket
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.network_api import network_api
from membudget_sidecar.serving.routing import Routes
from membudget_sidecar.settings import LOOPBACK, SidecarSettings, own_pod

log = logging.getLogger(__name__)


def serve(settings: SidecarSettings) -> None:
    """Watch and serve until a signal ends it.

    Raises:
        OSError: a folder or the port cannot be used.
        ContractError: the environment cannot be read.
    """
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    serve_loop(settings, make_loop(settings))


def serve_loop(settings: SidecarSettings, loop: Loop) -> None:
    """The same with a loop that was made before; raises as `serve` does."""
    gate = make_gate(settings.keys_folder, settings.state_folder, loop) if settings.keys_folder else None
    with _faces(settings, loop, gate) as faces:
        server = HttpServer(faces)
        _heed_signals(server, loop)
        thread = threading.Thread(target=loop.run, name="loop")
        thread.start()
        try:
            server.serve()
        finally:
            loop.stop()
            thread.join()
    log.info("stopped")


def make_loop(settings: SidecarSettings) -> Loop:
    """The loop with everything it needs, not yet running."""
    environment = dict(os.environ)
    link = EngineLink(settings)
    if settings.observe is not None:
        link = ObservedLink(settings, settings.observe)
        environment["MEMBUDGET_MODE"] = Mode.OBSERVE.value
    state_folder = None if settings.keys_folder else settings.state_folder
    keeper = PlanKeeper(state_folder, environment, monotonic=time.monotonic, wall=time.time)
    return Loop(
        link,
        keeper,
        PolicyFile(settings.policy_file) if settings.policy_file else None,
        runner=lambda ended: ActionRunner(
            settings, link, wall=time.time, ended=ended, mode=lambda: keeper.effective.mode
        ),
        clock=time.monotonic,
        recorder=Recorder(settings.recording, wall=time.time) if settings.recording else None,
        state_folder=settings.state_folder,
    )


def make_gate(keys_folder: Path, state_folder: Path, loop: Loop) -> OrderGate:
    """What lets the controller's orders in; the last one held is in force when this returns.

    Raises:
        EnvironmentInvalid: which pod this is was not told.
    """
    pod = own_pod(os.environ)
    orders = OrderKeeper(state_folder, pod, loop.keeper, wall=time.time)
    return OrderGate(loop, OrderKeys(keys_folder), pod, orders, clock=time.monotonic)


@contextlib.contextmanager
def _faces(
    settings: SidecarSettings, loop: Loop, gate: OrderGate | None
) -> Generator[list[tuple[socket.socket, Routes]]]:
    served = Served(loop, gate.orders if gate else None, settings)
    with contextlib.ExitStack() as listening:
        network = listening.enter_context(tcp_port(settings.host, settings.port, "--host and --port"))
        local = listening.enter_context(unix_socket(settings.api_socket))
        faces = [
            (local, local_api(served, own_uid=os.getuid())),
            (network, network_api(loop, SidecarCollector(loop, gate), gate)),
        ]
        log.info("metrics on %s:%d, local API on %s", settings.host, settings.port, settings.api_socket)
        if settings.api_port is not None:
            loopback = listening.enter_context(tcp_port(LOOPBACK, settings.api_port, "--api-port"))
            faces.append((loopback, loopback_api(served, port=settings.api_port)))
            log.info("local API for reading on %s:%d", LOOPBACK, settings.api_port)
        yield faces


def _heed_signals(server: HttpServer, loop: Loop) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    def reload(_number: int, _frame: FrameType | None) -> None:
        # Not here itself: the handler may interrupt a request that is just waking the loop, and both want its lock.
        server.run_soon(loop.reload)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, reload)
