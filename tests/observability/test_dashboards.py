"""Dashboards are rendered from code, and hold what people expect of a dashboard wherever it is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_observability import dashboard_files
from membudget_observability.dashboards.panel import WIDTH, Unit
from membudget_observability.metrics_page import HISTOGRAMS
from membudget_observability.recording import RECORDINGS
from observability.dashboard_queries import PanelQuery, files, load, panels, queries

METRICS = {value.name for value in vars(metric_names).values() if isinstance(value, Metric)}
SERIES = METRICS | {f"{metric.name}_bucket" for metric in HISTOGRAMS} | {rule.name for rule in RECORDINGS}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
EVERY_PANEL = [
    pytest.param(panel, id=f"{file.stem}: {panel['title']}") for file in files() for panel in panels(load(file))
]


def test_the_files_that_the_chart_ships_are_what_the_code_renders() -> None:
    """R-T04: `make observability` after a change; nothing else lies there."""
    assert dashboard_files.files() == {file: file.read_text() for file in files()}


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_a_dashboard_can_be_found_linked_and_installed_anywhere(file: Path) -> None:
    """R-T04: a stable uid, a tag, links to the others, a data source to choose; read-only, since code is the source."""
    dashboard = load(file)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert (f"membudget-{file.stem}", ["membudget"], False) == (
        dashboard["uid"], dashboard["tags"], dashboard["editable"],
    )  # fmt: skip
    assert ["membudget"] == dashboard["links"][0]["tags"]
    assert ("datasource", "prometheus") == (variables["datasource"]["type"], variables["datasource"]["query"])
    assert [SOURCE] * (len(variables) - 1) == [
        one["datasource"] for name, one in variables.items() if name != "datasource"
    ]
    assert bool(dashboard["description"])


@pytest.mark.parametrize("panel", EVERY_PANEL)
def test_a_panel_has_a_title_a_unit_a_description_and_the_chosen_source(panel: dict[str, Any]) -> None:
    """R-T04: what a linter for dashboards asks."""
    assert panel["title"]
    assert re.fullmatch(r"[A-Z0-9].{8,}[.?]", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"] in set(Unit)
    assert SOURCE == panel["datasource"]
    assert [SOURCE] * len(panel["targets"]) == [target["datasource"] for target in panel["targets"]]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_panels_fill_the_grid_without_overlap(file: Path) -> None:
    """R-T04: nothing is hidden behind another panel."""
    taken: set[tuple[int, int]] = set()
    for panel in load(file)["panels"]:
        place = panel["gridPos"]
        cells = {
            (row, column)
            for row in range(place["y"], place["y"] + place["h"])
            for column in range(place["x"], place["x"] + place["w"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= WIDTH
        taken |= cells


@pytest.mark.parametrize("query", sorted(set(queries())), ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_a_query_names_exported_metrics_and_no_job(query: PanelQuery) -> None:
    """R-T04: who installs it names the jobs; a metric that is renamed breaks this."""
    asked = set(re.findall(r"(?:[a-z_]+:)?membudget_[a-z_]+(?::[a-z0-9_]+)?", query.expression))
    assert asked <= SERIES
    assert asked or "ALERTS" in query.expression
    assert not re.search(r"\b(job|instance)\s*=", query.expression)
    assert not re.search(r"\[\d", query.expression)
