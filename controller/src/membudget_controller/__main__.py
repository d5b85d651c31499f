"""`membudget-controller`: follows the policies of a cluster.

Covers: arguments, putting the parts together, start and end. Exit codes: 0 stopped by a signal, 1 ended by an error,
2 wrong arguments, 3 a newer controller has taken over.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest

from membudget_contract.recommendations_api import CONTROLLER_PORT, RECOMMENDATIONS_PATH
from membudget_controller import handlers
from membudget_controller.api_client import ApiCluster, connect
from membudget_controller.clocks import SYSTEM, utc_now
from membudget_controller.cluster import Cluster
from membudget_controller.errors import ApiFailed, KeysUnusable, SteppedDown
from membudget_controller.keys import Authority, take_authority
from membudget_controller.loop import Loop
from membudget_controller.metrics import Metrics, RecommendedBudgets
from membudget_controller.observed import Observed
from membudget_controller.probes import ProbeServer
from membudget_controller.settings import ControllerSettings
from membudget_controller.transport import post

STALLED_SECONDS: Final = 120.0
"""A loop that finished no look for so long hangs."""
JOIN_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1
DISCOVERY_SECONDS: Final = 30.0
"""A kind that is served may take so long until the API server tells of it; then pods alone are watched."""
ASK_SECONDS: Final = 0.5
"""Between two such questions: each is a request or two."""
DEFAULT_NAMESPACE: Final = "membudget-system"
USUAL: Final = ControllerSettings(namespace=DEFAULT_NAMESPACE)

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None, times: ControllerSettings = USUAL) -> int:
    """Run until a signal; what no argument says is as in `times`."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(handlers.in_one_line)
    settings = replace(
        times,
        namespace=parsed.namespace,
        watched=tuple(parsed.watch or ()),
        metrics_host=parsed.host,
        metrics_port=parsed.port,
    )
    try:
        return run(settings)
    except (KeysUnusable, OSError) as error:
        sys.stderr.write(f"membudget-controller: {error}\n")
        return 1


def run(settings: ControllerSettings) -> int:
    """Everything from the first request to the API server to the last thread; the exit code."""
    cluster = ApiCluster(connect(), settings.watched, utc_now, settings.request_seconds)
    authority = _take_authority(cluster, settings.namespace)
    log.info("orders are signed by key %s at epoch %d", authority.key.key_id, authority.epoch)
    observed = Observed(time.monotonic)
    disable_created_metrics()  # else each counter and histogram brings a gauge of its own birth along
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.follow_watches(lambda: _age(observed.event_at), lambda: observed.behind_seconds)
    loop = Loop(cluster, observed, authority, metrics, settings, SYSTEM, post)
    registry.register(RecommendedBudgets(loop.recommendations))
    probes = ProbeServer(
        settings.metrics_host,
        settings.metrics_port,
        {
            "/metrics": lambda: (CONTENT_TYPE_LATEST, generate_latest(registry)),
            RECOMMENDATIONS_PATH: lambda: ("application/json", msgspec.json.encode(loop.recommendations())),
        },
        {
            "/healthz": lambda: _is_alive(loop, observed, settings),
            "/readyz": lambda: observed.view().known,
        },
    )
    probes.start()
    worker = threading.Thread(target=loop.run, args=(observed.watch_over.set,), name="loop", daemon=True)
    worker.start()
    try:
        _watch(observed, settings, cluster, loop)
    finally:
        loop.stop()
        worker.join(JOIN_SECONDS)
        probes.stop()
    if loop.ended_by is not None:
        sys.stderr.write(f"membudget-controller: {loop.ended_by}\n")
        return SteppedDown.exit_code
    return 0


def _watch(observed: Observed, settings: ControllerSettings, cluster: Cluster, loop: Loop) -> None:
    """Until a signal or the end of the loop; meanwhile known plans are pushed, whatever becomes of the watch.

    In single namespaces kopf may not see the kind come: a watch begins when a list has shown that it is there. kopf
    looks for kinds when it begins, so one that has just come is waited for until the API server tells of it.
    """
    anew = by_lists = bool(settings.watched)
    while not loop.is_stopped:
        if by_lists:
            _await(lambda: observed.view().known or loop.is_stopped, loop)
        if anew:
            _await(lambda: loop.is_stopped or _is_discovered(cluster), loop, DISCOVERY_SECONDS, ASK_SECONDS)
        if loop.is_stopped:
            return
        try:
            handlers.watch(observed, settings)
        except Exception as error:  # noqa: BLE001  whatever kopf dies of, the next watch begins with full lists
            log.warning("the watch broke off and begins anew: %s", error)
            _await(lambda: loop.is_stopped, loop, RETRY_SECONDS)
            anew = observed.take_watch_anew() or by_lists
        else:
            if not observed.take_watch_anew():
                return
            log.info("the kind MemoryPolicy has come: the watch begins anew")
            anew = True


def _is_discovered(cluster: Cluster) -> bool:
    try:
        return cluster.is_kind_discovered()
    except ApiFailed:
        return False


def _await(condition: Callable[[], bool], loop: Loop, at_most: float = math.inf, every: float = POLL_SECONDS) -> None:
    """Here no kopf runs that would take signals."""

    def stop(_: int, __: FrameType | None) -> None:
        loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    deadline = time.monotonic() + at_most
    while not condition() and time.monotonic() < deadline:
        time.sleep(every)


def _take_authority(cluster: Cluster, namespace: str) -> Authority:
    """Nothing can be done before, so this waits for the API server."""
    while True:
        try:
            return take_authority(cluster, namespace, time.time())
        except ApiFailed as error:
            log.warning("no epoch yet: %s", error)
            time.sleep(RETRY_SECONDS)


def _is_alive(loop: Loop, observed: Observed, settings: ControllerSettings) -> bool:
    """The loop looks, and no watch is dead; a quiet cluster is no fault, nor is an API server that is away."""
    looks = time.monotonic() - loop.looked_at < STALLED_SECONDS
    return looks and observed.behind_seconds < settings.watch_behind_seconds


def _age(at: float | None) -> float:
    return float("nan") if at is None else time.monotonic() - at


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="membudget-controller", description="Follows MemoryPolicy objects and sends every pod its plan."
    )
    own = os.environ.get("POD_NAMESPACE", DEFAULT_NAMESPACE)
    parser.add_argument("--namespace", default=own, help="its own, which holds its Secret (default: $POD_NAMESPACE)")
    parser.add_argument("--watch", action="append", metavar="NAMESPACE", help="only this one; repeat for more")
    parser.add_argument("--host", default="0.0.0.0", help="where /metrics and probes listen")  # noqa: S104
    parser.add_argument("--port", type=int, default=CONTROLLER_PORT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
