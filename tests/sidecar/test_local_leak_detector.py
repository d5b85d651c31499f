"""The engine's own leak detector, switched and asked through a real sidecar beside a real runtime."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from sidecar.hand_driven import policy_text
from sidecar.runtime_process import RuntimeProcess
from sidecar.sidecar_process import Started

DETECTOR = "/v1/leak-detector"


@pytest.fixture
def sidecar(tmp_path: Path) -> Generator[Started]:
    """Connected to a service that embeds the runtime."""
    (tmp_path / "policy.yaml").write_text(policy_text())
    with RuntimeProcess(tmp_path):
        started = Started(tmp_path, "--policy", str(tmp_path / "policy.yaml"))
        started.until(engine="Connected")
        yield started
        started.end()


def test_the_detector_is_off_until_somebody_asks_and_its_snapshots_have_labels(sidecar: Started) -> None:
    """R-E12: off, a snapshot is refused; on, it tells what there is; off again, all of it is forgotten."""
    off, refused = sidecar.ask("GET", DETECTOR), sidecar.ask("POST", f"{DETECTOR}/snapshots", {"label": "early"})
    assert ((200, False), (409, "DetectorOff")) == ((off[0], off[1]["on"]), (refused[0], refused[1]["reason"]))
    assert (200, True) == (sidecar.ask("PUT", DETECTOR, {"on": True})[0], sidecar.ask("GET", DETECTOR)[1]["on"])
    code, snapshot = sidecar.ask("POST", f"{DETECTOR}/snapshots", {"label": "before the import"})
    assert (200, "before the import", True) == (code, snapshot["label"], snapshot["objects"] > 1000)
    findings = sidecar.ask("GET", DETECTOR)[1]
    assert "before the import" in [each["label"] for each in findings["snapshots"]]
    assert findings["costBytes"] > 0
    assert [] == sidecar.ask("PUT", DETECTOR, {"on": False})[1]["snapshots"]


def test_cycles_are_searched_on_request(sidecar: Started) -> None:
    """R-E12: whether it is on or off; the answer says what was found."""
    code, found = sidecar.ask("POST", f"{DETECTOR}/cycles")
    assert (200, list) == (code, type(found["cycles"]))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", DETECTOR, {}), ("PUT", DETECTOR, {"on": "yes"}), ("POST", f"{DETECTOR}/snapshots", {"label": ""})],
)
def test_what_cannot_be_read_is_refused_with_a_reason(sidecar: Started, method: str, path: str, body: object) -> None:
    """R-E12, R-S09: before the engine hears of it."""
    code, problem = sidecar.ask(method, path, body)
    assert (400, "Invalid") == (code, problem["reason"])
