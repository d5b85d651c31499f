"""Which dashboards there are, and the files that the chart puts into ConfigMaps.

Covers: names and places. Does not cover what is on them (`dashboards`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from membudget_observability.dashboards.classic_json import rendered
from membudget_observability.dashboards.engine import ENGINE
from membudget_observability.dashboards.fleet import FLEET
from membudget_observability.dashboards.pod import POD
from membudget_observability.dashboards.policy import POLICY

FOLDER: Final = Path(__file__).parents[2] / "charts" / "membudget" / "files" / "dashboards"
DASHBOARDS: Final = (FLEET, POLICY, POD, ENGINE)


def files() -> dict[Path, str]:
    """Each file with its text."""
    return {FOLDER / f"{made.name}.json": rendered(made) for made in DASHBOARDS}
