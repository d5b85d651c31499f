"""Metrics as text, in the format that Prometheus scrapes (version 0.0.4).

Covers: families of gauges and counters, escaping, the text. Does not hold or read any figure (`collector`). Our own,
since prometheus_client brings ssl, urllib and two HTTP servers into the process (docs/decisions/0010); in the tests
its parser is the witness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_LABEL: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Family:
    """The series of one name; `kind` is Prometheus' word."""

    kind = "untyped"

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._help = help_
        self._labels = labels
        self._values: list[tuple[Sequence[str], float]] = []

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """One more series; `labels` are the values, in the order of their names."""
        self._values.append((labels, value))

    def lines(self) -> Iterator[str]:
        """Help, type and every series."""
        yield f"# HELP {self.name} {self._help.translate(_IN_HELP)}\n"
        yield f"# TYPE {self.name} {self.kind}\n"
        for values, value in self._values:
            named = zip(self._labels, values, strict=True)
            labels = ",".join(f'{name}="{text.translate(_IN_LABEL)}"' for name, text in named)
            yield f"{self.name}{{{labels}}} {float(value)!r}\n" if labels else f"{self.name} {float(value)!r}\n"


class GaugeMetricFamily(Family):
    """Figures that rise and fall."""

    kind = "gauge"


class CounterMetricFamily(Family):
    """Figures that only rise; their name ends in `_total`."""

    kind = "counter"


class Collector(Protocol):
    """What has metrics."""

    def collect(self) -> Iterable[Family]:
        """All families, as of now."""
        ...


def exposition(collector: Collector) -> bytes:
    """What a scrape is answered with; a name that no decoder takes (a lone surrogate) is replaced by question marks."""
    return "".join(line for family in collector.collect() for line in family.lines()).encode(errors="replace")
