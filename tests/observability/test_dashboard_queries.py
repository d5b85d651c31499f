"""Every query of every dashboard returns data from a real Prometheus that scraped real processes."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memory_cgroup import memory_cgroup
from observability.dashboard_queries import PanelQuery, files, load, queries
from observability.requirement import find_program

if TYPE_CHECKING:
    from observability.conftest import Observed

pytestmark = [pytest.mark.cluster, pytest.mark.cgroup, pytest.mark.prometheus]

SECONDS = 120.0
ONLY_V2 = "membudget_cgroup_stall_ratio"
"""cgroup v1 has no pressure of a single cgroup: there the figure is absent, and the panel empty."""
AFTER_TEN_MINUTES = "membudget_controller_recommended_"
"""Nothing is recommended for pods that were seen for less: here the panel is empty, below it is not."""


@pytest.mark.parametrize("query", sorted(set(queries())), ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_a_query_parses_and_returns_data(query: PanelQuery, observed: Observed) -> None:
    """R-T04: as Grafana sends it, over the last two minutes."""
    now = time.time()
    series = observed.server.query_range(query.sent(), now - SECONDS, now, 5.0)
    with memory_cgroup(None) as cgroup:
        absent = cgroup.version == "v1" and ONLY_V2 in query.expression
    assert (absent or AFTER_TEN_MINUTES in query.expression) == (series == [])


@pytest.mark.parametrize("figure", ["total", "limit"])
def test_what_is_recommended_is_shown_with_the_whole_name_of_the_policy(figure: str, tmp_path: Path) -> None:
    """R-P14, R-T04: as Prometheus keeps the series of a controller that runs in another namespace."""
    (query,) = {query.sent() for query in queries() if f"{AFTER_TEN_MINUTES}{figure}" in query.expression}
    labels = 'namespace="membudget-system", pod="controller-0", exported_namespace="search", policy="retrieval"'
    info = 'membudget_policy_info{namespace="search", pod="retriever-0", policy="search/retrieval"}'
    other = labels.replace("retrieval", "other")
    series = {f"{AFTER_TEN_MINUTES}{figure}_bytes{{{labels}}}": "90", info: "1"}
    series[f"{AFTER_TEN_MINUTES}{figure}_bytes{{{other}}}"] = "70"
    test = {
        "input_series": [{"series": name, "values": value} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "0m",
                "exp_samples": [{"labels": '{policy="search/retrieval"}', "value": 90}],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps({"tests": [test]}))
    tested = subprocess.run(
        [find_program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_a_variable_offers_values(file: Path, observed: Observed) -> None:
    """R-T04: the labels that a person chooses by are there."""
    for variable in load(file)["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            found = observed.server.query(f"count by ({label}) ({metric.replace('$namespace', '.*')})")
            assert all(labels.get(label) for labels, _ in found)
            assert found
