"""Pictures are drawn from the dashboards that are shipped, with the figures that they are given."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from membudget_observability.dashboard_files import FOLDER
from membudget_observability.dashboards.panel import Unit
from membudget_observability.pictures import RATE_INTERVAL, draw, load, told
from observability.dashboard_queries import files

CHOSEN = {"namespace": "search", "pod": "retriever-0", "policy": "search/retrieval"}


def rising(_: str) -> list[dict[str, Any]]:
    """One series, whatever is asked."""
    labels = {"pod": "retriever-0", "component": "semanticCache"}
    return [{"metric": labels, "values": [[1000 + second, str(second << 20)] for second in range(60)]}]


def size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels, from the head of a PNG file."""
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return struct.unpack(">II", head[16:24])


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_a_dashboard_is_drawn_with_every_query_asked_as_it_is_shipped(file: Path, tmp_path: Path) -> None:
    """R-T04: no variable is left in what is asked."""
    asked: list[str] = []

    def ask(expression: str) -> list[dict[str, Any]]:
        asked.append(expression)
        return rising(expression)

    draw(load(file), CHOSEN, ask, tmp_path / "picture.png")
    width, height = size(tmp_path / "picture.png")
    expected = [target["expr"] for panel in load(file)["panels"] for target in panel.get("targets", [])]
    assert len(expected) == len(asked)
    assert [query for query in asked if "$" in query] == []
    assert any(RATE_INTERVAL in query for query in asked)
    assert (True, True) == (width > 1200, height > 600)


def test_without_data_a_picture_says_so_and_differs(tmp_path: Path) -> None:
    """R-T04: an empty panel is no broken picture."""
    fleet = load(FOLDER / "fleet.json")
    draw(fleet, CHOSEN, rising, tmp_path / "full.png")
    draw(fleet, CHOSEN, lambda _: [], tmp_path / "empty.png")
    assert size(tmp_path / "full.png") == size(tmp_path / "empty.png")
    assert (tmp_path / "full.png").read_bytes() != (tmp_path / "empty.png").read_bytes()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (150 * 2.0**20, Unit.BYTES, "150 MiB"),
        (1.5 * 2.0**30, Unit.BYTES, "1.5 GiB"),
        (0.0, Unit.BYTES, "0 B"),
        (3072.0, Unit.BYTES_PER_SECOND, "3 KiB/s"),
        (0.936, Unit.RATIO, "93.6 %"),
        (0.0042, Unit.SECONDS, "4.2 ms"),
        (90.0, Unit.SECONDS, "90 s"),
        (12.5, Unit.PER_SECOND, "12.5/s"),
        (16384.0, Unit.COUNT, "16384"),
    ],
)
def test_figures_have_the_unit_that_people_read(value: float, unit: Unit, expected: str) -> None:
    """R-T04: binary prefixes, percent, milliseconds."""
    assert expected == told(value, unit)
