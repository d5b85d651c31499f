"""docs/observability.md names what is there: every alert, every dashboard, every picture."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import yaml

from membudget_observability.alerting import ALERTS
from membudget_observability.dashboard_files import DASHBOARDS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "observability.md").read_text()
NUMBERS = {12: "twelve", 13: "thirteen", 14: "fourteen"}


def test_the_table_of_alerts_is_that_of_the_rules() -> None:
    """R-T04: name, severity, duration, summary, and a link to the page."""
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \| (\d+) min \| (.+) \|$", TEXT, re.MULTILINE)
    expected = [(one.name, one.name, one.severity, one.lasting.removesuffix("m"), one.summary) for one in ALERTS]
    assert expected == rows
    assert f"{NUMBERS[len(ALERTS)]} alerts" in TEXT


def test_every_dashboard_has_its_section_and_its_picture() -> None:
    """R-T04: a picture of a size that can be read."""
    assert [(made.name.capitalize(), made.name) for made in DASHBOARDS] == re.findall(
        r"^### (\w+)\n\n.*?\(images/(\w+)\.png\)", TEXT, re.MULTILINE | re.DOTALL
    )
    for made in DASHBOARDS:
        head = (DOCS / "images" / f"{made.name}.png").read_bytes()[:24]
        width, height = struct.unpack(">II", head[16:24])
        assert head.startswith(b"\x89PNG")
        assert (True, True) == (width >= 1200, height >= 600)


def test_the_values_and_the_configuration_that_it_shows_are_taken() -> None:
    """R-T04: the chart has these values, and Prometheus' file is YAML with the shipped rules."""
    values, configuration = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
    chart = yaml.safe_load((DOCS.parent / "charts" / "membudget" / "values.yaml").read_text())
    for part, asked in values["observability"].items():
        assert set(asked) <= set(chart["observability"][part])
    assert (DOCS.parent / "charts" / "membudget" / "files" / "rules" / configuration["rule_files"][0]).exists()
