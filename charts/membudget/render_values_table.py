"""Writes the table of values in the chart's README.md, from values.schema.json (meaning) and values.yaml (default).

Run it with `make chart-readme` after a change to either; tests/charts/test_values.py fails until then. The text around
the table is written by hand.
"""  # noqa: INP001

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

CHART: Final = Path(__file__).parent
README: Final = CHART / "README.md"
BEGIN: Final = "<!-- From values.schema.json and values.yaml by render_values_table.py (make chart-readme). -->\n"
END: Final = "<!-- End of the values. -->\n"


class Value(NamedTuple):
    """One thing that can be set: its path, what it means, what it is when nobody sets it."""

    path: str
    meaning: str
    default: Any


def described(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path and description of every leaf, in the schema's order: an object with a description is one."""
    for name, part in schema["properties"].items():
        if "description" in part:
            yield (*path, name), part["description"]
        else:
            yield from described(part, (*path, name))


def values() -> list[Value]:
    """All that stand in values.yaml or, like `global`, need not.

    Raises:
        KeyError: a value has a meaning and no default.
    """
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    found: list[Value] = []
    for path, meaning in described(schema):
        default = defaults
        for name in path:
            default = default[name]
        found.append(Value(".".join(path), meaning, default))
    return found


def table() -> str:
    """As Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [f"| `{value.path}` | `{json.dumps(value.default)}` | {value.meaning} |" for value in values()]
    return "\n".join(lines) + "\n"


def rendered() -> str:
    """The whole file."""
    before, rest = README.read_text().split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    README.write_text(rendered())
