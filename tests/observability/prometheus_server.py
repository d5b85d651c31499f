"""A real Prometheus that scrapes real processes every second, with the rules that the chart ships.

Covers: configuration, start, questions over its HTTP API, end. It and all it scrapes run in one network namespace.
What differs from an installation: how often it scrapes and evaluates, and one short `for` for every alert.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.network_namespace import NetworkNamespace
from membudget_observability.rule_file import rendered
from observability.requirement import find_program

INTERVAL = "1s"
LASTING = "1s"
"""In place of minutes."""
_HOST, _PORT = "127.0.0.1", 9090
_READY_SECONDS = 30.0


@dataclass(frozen=True)
class Target:
    """One `/metrics`; namespace and pod are what discovery through a PodMonitor adds."""

    job: str
    address: str
    labels: dict[str, str]


class Firing(NamedTuple):
    """One alert that fires."""

    alert: str
    pod: str
    severity: str


Sample = tuple[dict[str, str], float]


class Prometheus:
    """The running server."""

    def __init__(self, network: NetworkNamespace) -> None:
        self._network = network

    def query(self, expression: str) -> list[Sample]:
        """Labels and value of every series, now."""
        return [(one["metric"], float(one["value"][1])) for one in self._get("query", query=expression)["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Every series with its values in that time."""
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._get("query_range", **asked)["result"]

    def firing(self) -> set[Firing]:
        """Alerts that fire now."""
        labels = (alert["labels"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing")
        return {Firing(one["alertname"], one.get("pod", ""), one["severity"]) for one in labels}

    def unhealthy_rules(self) -> list[str]:
        """Those that could not be evaluated, with the error."""
        groups = self._get("rules")["groups"]
        return [f"{r['name']}: {r.get('lastError')}" for g in groups for r in g["rules"] if r["health"] == "err"]

    def targets_down(self) -> list[str]:
        """Addresses that are not scraped, with the error."""
        active = self._get("targets")["activeTargets"]
        return [f"{one['scrapeUrl']}: {one['lastError']}" for one in active if one["health"] != "up"]

    def is_ready(self) -> bool:
        """It takes questions."""
        try:
            return self._ask("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _get(self, what: str, **parameters: str) -> Any:
        status, body = self._ask(f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        assert (status, answer["status"]) == (http.client.OK, "success"), (parameters, answer)
        return answer["data"]

    def _ask(self, path: str) -> tuple[int, bytes]:
        return http_get(self._network, _HOST, _PORT, path)


def http_get(network: NetworkNamespace, host: str, port: int, path: str) -> tuple[int, bytes]:
    """One request inside the namespace; OSError where nobody answers."""
    connection = http.client.HTTPConnection(host, port)
    connection.sock = network.connect(host, port, 10.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextlib.contextmanager
def prometheus(
    network: NetworkNamespace,
    folder: Path,
    targets: list[Target],
    *,
    interval: str = INTERVAL,
    lasting: str | None = LASTING,
) -> Generator[Prometheus]:
    """One that scrapes these, ready; everything it writes is in `folder`. `lasting` None: each `for` as shipped."""
    folder.mkdir()
    (folder / "rules.yaml").write_text(rendered(lasting=lasting, interval=interval))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(targets, interval)))
    command = [
        find_program("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={_HOST}:{_PORT}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(network.inside(command), stdout=output, stderr=subprocess.STDOUT)
    try:
        server = Prometheus(network)
        wait_for(lambda: process.poll() is not None or server.is_ready(), _READY_SECONDS, "Prometheus is ready")
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Until it holds; fails with `what` after so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def _configuration(targets: list[Target], interval: str) -> dict[str, Any]:
    jobs = sorted({target.job for target in targets})
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [target.address], "labels": target.labels} for target in targets if target.job == job
                ],
            }
            for job in jobs
        ],
    }
