"""Every alert has a page that says what it means and what to do, and what it tells people to type is right."""

from __future__ import annotations

import contextlib
import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from membudget_cli.__main__ import main as membudget
from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_observability.alerting import ALERTS

if TYPE_CHECKING:
    from observability.conftest import Observed

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
SECTIONS = ["Meaning", "Impact", "Likely causes", "Look", "Do"]
METRICS = {value.name for value in vars(metric_names).values() if isinstance(value, Metric)}
PAGES = {alert.name: FOLDER / f"{alert.name}.md" for alert in ALERTS}
NAMES = list(PAGES)


def blocks(page: Path, language: str) -> list[str]:
    """What stands in fences of that language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def help_of(command: str) -> str:
    """What `membudget COMMAND --help` says; fails where there is no such command."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        membudget([command, "--help"])
    assert ended.value.code == 0
    return said.getvalue()


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    """R-T04: a link that leads nowhere helps nobody at night."""
    assert sorted(path.name for path in PAGES.values()) == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_it_means_why_where_to_look_and_what_to_do(name: str) -> None:
    """R-T04: the same five headings on each, commands and queries among them."""
    text = PAGES[name].read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert (True, True) == (bool(blocks(PAGES[name], "sh")), bool(blocks(PAGES[name], "promql")))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_how_urgent_the_alert_is_and_when_it_comes_as_the_rule_does(name: str) -> None:
    """R-T04: severity and duration in its first line."""
    alert = next(one for one in ALERTS if one.name == name)
    words = {"critical": "Critical", "warning": "Warning", "info": "Information"}
    minutes = alert.lasting.removesuffix("m")
    lasting = "a minute" if minutes == "1" else f"{minutes} minutes"
    assert PAGES[name].read_text().splitlines()[2].startswith(f"{words[alert.severity]}, after {lasting}: ")


@pytest.mark.parametrize("name", NAMES)
def test_its_commands_exist_with_their_options(name: str) -> None:
    """R-T04: a `membudget` line is one that the command line takes."""
    for block in blocks(PAGES[name], "sh"):
        for line in block.splitlines():
            program, command, *words = line.split()
            assert program in {"membudget", "kubectl"}
            if program == "membudget":
                text = help_of(command)
                assert [word for word in words if word.startswith("-") and word not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_speaks_of_metrics_that_are_exported(name: str) -> None:
    """R-T04: in queries and in sentences."""
    written = PAGES[name].read_text()
    assert set(re.findall(r"membudget_[a-z_]+", written)) <= METRICS


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
@pytest.mark.parametrize("name", NAMES)
def test_its_queries_can_be_asked_of_a_real_prometheus(name: str, observed: Observed) -> None:
    """R-T04: each parses, and at least one has data of the pod it is asked for."""
    now = time.time()
    queries = blocks(PAGES[name], "promql")
    found = [observed.server.query_range(query.strip(), now - 120, now, 5.0) for query in queries]
    assert any(found)
