"""Every query of every dashboard returns data from a real Prometheus that scraped real processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memory_cgroup import memory_cgroup
from observability.dashboard_queries import PanelQuery, files, load, queries

if TYPE_CHECKING:
    from observability.conftest import Observed

pytestmark = [pytest.mark.cluster, pytest.mark.cgroup, pytest.mark.prometheus]

SECONDS = 120.0
ONLY_V2 = "membudget_cgroup_stall_ratio"
"""cgroup v1 has no pressure of a single cgroup: there the figure is absent, and the panel empty."""


@pytest.mark.parametrize("query", sorted(set(queries())), ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_a_query_parses_and_returns_data(query: PanelQuery, observed: Observed) -> None:
    """R-T04: as Grafana sends it, over the last two minutes."""
    now = time.time()
    series = observed.server.query_range(query.sent(), now - SECONDS, now, 5.0)
    with memory_cgroup(None) as cgroup:
        absent = cgroup.version == "v1" and ONLY_V2 in query.expression
    assert absent == (series == [])


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_a_variable_offers_values(file: Path, observed: Observed) -> None:
    """R-T04: the labels that a person chooses by are there."""
    for variable in load(file)["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            found = observed.server.query(f"count by ({label}) ({metric.replace('$namespace', '.*')})")
            assert all(labels.get(label) for labels, _ in found)
            assert found
