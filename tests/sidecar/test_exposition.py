"""The text that is scraped says what was collected, whatever names and figures came (R-S10, fault 115)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_sidecar.serving.exposition import CounterMetricFamily, Family, GaugeMetricFamily, exposition
from sidecar.scraped import Scraped

# Prometheus' own parser splits lines as Python does; a carriage return in a label stands as it is in the format.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.just("\n"), max_size=40)
FIGURES = st.floats(allow_nan=False) | st.integers(0, 1 << 53)


class Collected:
    """Gauges by their label's value."""

    def __init__(self, values: dict[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterator[Family]:
        """One family."""
        family = GaugeMetricFamily(
            "membudget_component_owned_bytes", 'A help with "quotes", \\ and\nlines.', ["component"]
        )
        for name, value in self._values.items():
            family.add_metric((name,), value)
        yield family


@given(st.dictionaries(NAMES, FIGURES, max_size=20))
def test_what_prometheus_reads_is_what_was_collected(values: dict[str, float]) -> None:
    """R-S10: names with quotes, backslashes and line breaks, figures without loss."""
    (family,) = Scraped(Collected(values)).collect()
    assert values == {sample.labels["component"]: sample.value for sample in family.samples}
    assert ("gauge", 'A help with "quotes", \\ and\nlines.') == (family.type, family.documentation)


@pytest.mark.parametrize("name", ['a"} 1\nevil 2', "a\\", "\\n", "x" * 10_000, "ü{}=,"])
def test_no_name_makes_a_series_of_its_own(name: str) -> None:
    """R-S10, fault 115: one line for one series."""
    (family,) = Scraped(Collected({name: 1.0})).collect()
    assert [({"component": name}, 1.0)] == [(sample.labels, sample.value) for sample in family.samples]
    assert 1 == sum(not line.startswith("#") for line in Scraped(Collected({name: 1.0})).text().split("\n")[:-1])


def test_a_name_that_is_no_text_is_replaced() -> None:
    """Fault 115: a lone surrogate does not cost the scrape."""
    assert b'{component="?"} 1.0\n' in exposition(Collected({"\ud800": 1.0}))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_figures_that_are_none_are_spelled_as_prometheus_does(value: float) -> None:
    """R-S10: +Inf, -Inf and NaN are read by it."""
    (family,) = Scraped(Collected({"a": value})).collect()
    assert [repr(value)] == [repr(sample.value) for sample in family.samples]


def test_a_counter_says_so() -> None:
    """R-S10."""
    family = CounterMetricFamily("membudget_actions_total", "Actions.")
    family.add_metric((), 3)
    expected = ["# HELP membudget_actions_total Actions.\n", "# TYPE membudget_actions_total counter\n"]
    assert [*expected, "membudget_actions_total 3.0\n"] == list(family.lines())
