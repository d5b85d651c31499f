"""Metrics as Prometheus reads them: our text, parsed by the parser of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from membudget_sidecar.serving.exposition import Collector, exposition


class Scraped:
    """Scrapes that collector each time it is asked."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def text(self) -> str:
        """As it goes over the wire."""
        return exposition(self._collector).decode()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield from text_string_to_metric_families(self.text())

    def get_sample_value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """One figure; None when there is no such series."""
        samples = (sample for family in self.collect() for sample in family.samples)
        return next((each.value for each in samples if (each.name, each.labels) == (name, labels or {})), None)
