"""One sidecar from start to end: the loop in a thread, two servers on one event loop, signals.

Covers: listening, SIGTERM and SIGINT (stop, exit code 0), SIGHUP (read the policy again). Does not cover what is
served (`api`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from membudget_sidecar.actions import ActionRunner
from membudget_sidecar.api import local_api
from membudget_sidecar.collector import SidecarCollector
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.loop import Loop
from membudget_sidecar.network_api import network_api
from membudget_sidecar.order_gate import OrderGate
from membudget_sidecar.order_keeper import OrderKeeper
from membudget_sidecar.order_keys import OrderKeys
from membudget_sidecar.plan_keeper import PlanKeeper
from membudget_sidecar.policy_file import PolicyFile
from membudget_sidecar.settings import SidecarSettings, own_pod

log = logging.getLogger(__name__)


def serve(settings: SidecarSettings) -> None:
    """Watch and serve until a signal ends it.

    Raises:
        OSError: a folder or the port cannot be used.
        ContractError: the environment cannot be read.
    """
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    loop = make_loop(settings)
    gate = make_gate(settings.keys_folder, settings.state_folder, loop) if settings.keys_folder else None
    registry = CollectorRegistry()
    registry.register(SidecarCollector(loop, gate))
    faces = local_api(loop, gate.orders if gate else None), network_api(loop, registry, gate)
    with _listening(settings) as (local, network):
        thread = threading.Thread(target=loop.run, name="loop")
        thread.start()
        try:
            asyncio.run(_serve(loop, list(zip(faces, (local, network), strict=True))))
        finally:
            loop.stop()
            thread.join()
    log.info("stopped")


def make_loop(settings: SidecarSettings) -> Loop:
    """The loop with everything it needs, not yet running."""
    link = EngineLink(settings)
    state_folder = None if settings.keys_folder else settings.state_folder
    keeper = PlanKeeper(state_folder, os.environ, monotonic=time.monotonic, wall=time.time)
    return Loop(
        link,
        keeper,
        PolicyFile(settings.policy_file) if settings.policy_file else None,
        runner=lambda ended: ActionRunner(
            settings, link, wall=time.time, ended=ended, mode=lambda: keeper.effective.mode
        ),
        clock=time.monotonic,
    )


def make_gate(keys_folder: Path, state_folder: Path, loop: Loop) -> OrderGate:
    """What lets the controller's orders in; the last one held is in force when this returns.

    Raises:
        EnvironmentInvalid: which pod this is was not told.
    """
    pod = own_pod(os.environ)
    orders = OrderKeeper(state_folder, pod, loop.keeper, wall=time.time)
    return OrderGate(loop, OrderKeys(keys_folder), pod, orders, clock=time.monotonic)


class _Server(uvicorn.Server):
    """Two servers share one process: signals are ours, not each server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield


async def _serve(loop: Loop, faces: list[tuple[Starlette, socket.socket]]) -> None:
    servers = [(_Server(_config(application)), listening) for application, listening in faces]

    def stop() -> None:
        for server, _ in servers:
            server.should_exit = True

    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop)
    running.add_signal_handler(signal.SIGHUP, loop.reload)
    await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in servers))


def _config(application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        limit_concurrency=32,
        timeout_graceful_shutdown=2,
    )


@contextlib.contextmanager
def _listening(settings: SidecarSettings) -> Generator[tuple[socket.socket, socket.socket]]:
    """The Unix socket (0660: own uid and group) and the TCP port."""
    address = f"{settings.host}:{settings.port}"
    try:
        network = socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror}; choose another with --host and --port") from None
    try:
        with _unix_socket(settings.api_socket) as local:
            log.info("metrics on %s, local API on %s", address, settings.api_socket)
            yield local, network
    finally:
        network.close()


@contextlib.contextmanager
def _unix_socket(path: Path) -> Generator[socket.socket]:
    if _is_served(path):
        raise OSError(f"another sidecar serves {path}; one for each --run folder")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o117)
    try:
        listening.bind(str(path))
    finally:
        os.umask(former)
    try:
        listening.listen(16)
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    """Whether somebody listens; a killed sidecar leaves a file on which nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
