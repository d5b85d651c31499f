"""What a dashboard is made of: variables, rows, panels, queries.

Covers: the terms, and the ranges at which usage is coloured. Does not cover Grafana's own format (`classic_json`).
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

WIDTH: Final = 24
"""Columns of Grafana's grid."""


class Unit(enum.StrEnum):
    """Grafana's names for the units that metrics have here."""

    BYTES = "bytes"
    BYTES_PER_SECOND = "binBps"
    SECONDS = "s"
    RATIO = "percentunit"
    COUNT = "short"
    PER_SECOND = "cps"


class Show(enum.Enum):
    """How a panel shows its series."""

    LINES = enum.auto()
    STACK = enum.auto()
    """Parts of a whole, one on the other."""
    STEPS = enum.auto()
    """States and plans: nothing lies between two values."""
    FIGURE = enum.auto()
    """The last value alone."""


class Query(NamedTuple):
    """PromQL, and the name of its series; `{{label}}` stands for a label."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel; `description` says which question it answers. `warn_at`: figures from there on are coloured."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    show: Show = Show.LINES
    width: int = 8
    warn_at: tuple[float, ...] = ()

    @property
    def height(self) -> int:
        """In rows of Grafana's grid."""
        return 4 if self.show is Show.FIGURE else 8


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(NamedTuple):
    """What a person chooses at the top: the values of a label; `several` may be chosen at once, all of them first."""

    name: str
    of_metric: str
    several: bool = False


class Dashboard(NamedTuple):
    """One of them; `name` is its file's."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def figure(title: str, description: str, unit: Unit, expression: str, *warn_at: float, width: int = 4) -> Panel:
    """One number."""
    return Panel(title, description, unit, (Query(expression, title),), Show.FIGURE, width, warn_at)
