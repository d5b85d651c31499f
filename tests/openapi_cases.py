"""Requests made from an OpenAPI document, right and wrong, and what their answers are held against.

Covers: schemathesis with one count of cases for all documents. Does not cover whom they are sent to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

CASES = int(os.environ.get("MEMBUDGET_API_CASES", "0"))
"""Of one document in all; 0: a few of each operation."""

CHECKS: Any = checks
CONFIG: Any = schemathesis.Config
CONFORM = [
    CHECKS.status_code_conformance,
    CHECKS.content_type_conformance,
    CHECKS.response_schema_conformance,
    CHECKS.unsupported_method,
]

REFUSED = ["4xx", "503"]
"""What says that wrong data was not taken; Schemathesis's own list lacks 413, for a body that is too long as well."""


class Document:
    """A committed document and the requests that come of it."""

    def __init__(self, file: Path, few: int) -> None:
        """`few` are the cases of one operation in the usual run."""
        self._few = few
        self.text: dict[str, Any] = json.loads(file.read_bytes())
        config = CONFIG.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}})
        schema: Any = schemathesis.openapi.from_dict(self.text, config=config)  # generic over types it does not export
        found = (result.ok() for result in schema.get_all_operations())
        self.operations: dict[str, Any] = {operation.label: operation for operation in found}

    @property
    def taking(self) -> list[str]:
        """What can be asked wrongly."""
        return [label for label, each in self.operations.items() if list(each.iter_parameters()) or each.body]

    def ask(self, label: str, mode: schemathesis.GenerationMode, check: Callable[[Any], None]) -> None:
        """Hypothesis with the cases of one operation: half of its share right, half wrong."""
        share = CASES // (len(self.operations) + len(self.taking)) or self._few

        @settings(
            max_examples=share,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
        )
        @hypothesis.given(self.operations[label].as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            check(case)

        run()
