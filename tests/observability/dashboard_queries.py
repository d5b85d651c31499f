"""The queries of a dashboard as it is shipped, and as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from membudget_observability.dashboard_files import FOLDER

RATE_INTERVAL: Final = "1m"
"""What Grafana puts for $__rate_interval at an interval of 15 s."""
ANYTHING: Final = ".*"


class PanelQuery(NamedTuple):
    """One of a panel's."""

    dashboard: str
    panel: str
    expression: str

    def sent(self) -> str:
        """With every variable filled in: all namespaces, pods and policies."""
        text = self.expression.replace("$__rate_interval", RATE_INTERVAL)
        return re.sub(r"\$(namespace|pod|policy)\b", ANYTHING, text)


def files() -> list[Path]:
    """The shipped dashboards."""
    return sorted(FOLDER.glob("*.json"))


def load(file: Path) -> dict[str, Any]:
    """One of them."""
    return json.loads(file.read_text())


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Without rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[PanelQuery]:
    """All of all dashboards."""
    for file in files():
        for panel in panels(load(file)):
            for target in panel["targets"]:
                yield PanelQuery(file.stem, panel["title"], target["expr"])
