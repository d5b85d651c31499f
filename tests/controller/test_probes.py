"""/metrics, /healthz and /readyz over real HTTP (R-P10)."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from membudget_controller.metrics import Metrics
from membudget_controller.probes import ProbeServer


@pytest.fixture
def probes() -> Iterator[ProbeServer]:
    """Alive and not ready."""
    registry = CollectorRegistry()
    Metrics(registry).follow_watches(lambda: 12.5, lambda: 3.5)
    pages = {"/metrics": lambda: ("text/plain", generate_latest(registry))}
    made = ProbeServer("127.0.0.1", 0, pages, {"/healthz": lambda: True, "/readyz": lambda: False})
    made.start()
    yield made
    made.stop()


def get(probes: ProbeServer, path: str) -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", probes.server_port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, content


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 503), ("/v1/order", 404)])
def test_probes_answer_what_their_checks_say(probes: ProbeServer, path: str, status: int) -> None:
    """Fault 18: alive before it is ready."""
    assert status == get(probes, path)[0]


def test_metrics_are_served_with_the_age_of_the_watch(probes: ProbeServer) -> None:
    """Fault 2: read at the moment of the scrape."""
    status, text = get(probes, "/metrics")
    told = [f"membudget_controller_watch_{name}" in text for name in ("age_seconds 12.5", "behind_seconds 3.5")]
    assert (200, [True, True]) == (status, told)
