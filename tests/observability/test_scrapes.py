"""What sidecar, engine and controller really export is in the one table, bounded, and clean by promtool's lint."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.engine_process import EngineProcess
from membudget_engine import metrics as engine_metrics
from membudget_engine.build_command import build_sources
from membudget_observability.metrics_page import metrics_of
from observability.prometheus_server import http_get
from observability.requirement import find_program

if TYPE_CHECKING:
    from observability.conftest import Observed

COLLECTIONS = 300
MOST_SERIES = 500
EXPORTERS = {"Sidecar": "sidecar", "Engine": "engine", "Controller": "controller"}


def series(text: str) -> list[str]:
    """Lines with a figure."""
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture(scope="session")
def scrapes(observed: Observed) -> dict[str, list[str]]:
    """The text of every `/metrics`, by exporter."""
    found: dict[str, list[str]] = {exporter: [] for exporter in EXPORTERS}
    for exporter, job in EXPORTERS.items():
        for target in observed.fleet.targets():
            if target.job == job:
                host, port = target.address.split(":")
                status, text = http_get(observed.fleet.control_plane.network, host, int(port), "/metrics")
                assert status == 200
                found[exporter].append(text.decode())
    return found


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_promtool_finds_a_scrape_clean(exporter: str, scrapes: dict[str, list[str]]) -> None:
    """R-S10, R-T04: `promtool check metrics` on what real processes export."""
    for text in scrapes[exporter]:
        command = [find_program("promtool"), "check", "metrics"]
        checked = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (0, "") == (checked.returncode, checked.stdout + checked.stderr)


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_all_that_is_exported_is_in_the_one_table_and_all_of_the_table_is_exported(
    exporter: str, scrapes: dict[str, list[str]], publish: Callable[[str], None]
) -> None:
    """R-S10, R-T04: names, help and labels; some process of the fleet has each."""
    table = {metric.name.removesuffix("_total"): metric for metric in metrics_of(exporter)}
    families = [family for text in scrapes[exporter] for family in text_string_to_metric_families(text)]
    for family in families:
        metric = table[family.name]
        assert metric.help == family.documentation
        assert all(set(metric.labels) == set(sample.labels) - {"le"} for sample in family.samples)
    exported = {family.name for family in families}
    assert set(table) == exported
    most = max(len(series(text)) for text in scrapes[exporter])
    publish(f"{exporter}: {len(exported)} metrics, at most {most} series")
    assert most <= MOST_SERIES


def test_an_engine_with_hundreds_of_collections_exports_at_most_500_series(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-S10: those with the most chunks are named; a sidecar's bound is held in tests/sidecar/test_collector.py."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.py").write_text("def one() -> int:\n    return 1\n")
    build_sources(tmp_path / "data", [f"c0={source}"])
    for number in range(1, COLLECTIONS):
        shutil.copytree(tmp_path / "data" / "c0", tmp_path / "data" / f"c{number}")
        _rename(tmp_path / "data" / f"c{number}", f"c{number}")
    with EngineProcess(tmp_path / "data", tmp_path / "engine") as engine:
        text = engine.wait_until_serving().ask("GET", "/metrics").body.decode()
    named = [line for line in series(text) if line.startswith("membudget_engine_chunks{")]
    publish(f"an engine with {COLLECTIONS} collections: {len(series(text))} series, {len(named)} collections named")
    assert len(series(text)) <= MOST_SERIES
    assert engine_metrics.COLLECTIONS == len(named)


def _rename(collection: Path, name: str) -> None:
    for manifest in collection.rglob("manifest.json"):
        content = msgspec.json.decode(manifest.read_bytes())
        manifest.write_bytes(msgspec.json.encode({**content, "collection": name}))
