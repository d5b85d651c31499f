"""The status of a policy as it stands on paper."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from membudget_contract.policy_status import (
    REASONS,
    Condition,
    ConditionStatus,
    ConditionType,
    PolicyStatus,
    Reason,
)

STATUS = PolicyStatus(
    observed_generation=3,
    matched_pods=2,
    programmed_pods=1,
    refused_pods=1,
    resized_pods=1,
    conditions=(
        Condition(
            type=ConditionType.PROGRAMMED,
            status=ConditionStatus.FALSE,
            observed_generation=3,
            last_transition_time=dt.datetime(2026, 11, 21, 10, 0, tzinfo=dt.UTC),
            reason=Reason.REFUSED,
            message="1 of 2 pods cannot hold it.",
        ),
    ),
)


def test_a_status_is_written_as_kubernetes_has_it() -> None:
    """R-P10: camelCase, a count by its name, time in UTC to the second."""
    assert msgspec.json.decode(msgspec.json.encode(STATUS)) == {
        "observedGeneration": 3,
        "matchedPods": 2,
        "programmedPods": 1,
        "refusedPods": 1,
        "resizedPods": 1,
        "conditions": [
            {
                "type": "Programmed",
                "status": "False",
                "observedGeneration": 3,
                "lastTransitionTime": "2026-11-21T10:00:00Z",
                "reason": "Refused",
                "message": "1 of 2 pods cannot hold it.",
            }
        ],
    }


def test_a_status_is_read_as_it_was_written() -> None:
    """R-P10: so that the controller writes only when it differs; a later version's fields are ignored."""
    written = msgspec.json.decode(msgspec.json.encode(STATUS)) | {"later": 1}
    assert msgspec.convert(written, PolicyStatus) == STATUS


def test_a_policy_that_nobody_looked_at_has_no_counts() -> None:
    """R-P10: unknown is not zero."""
    empty = msgspec.convert({}, PolicyStatus)
    assert (empty.observed_generation, empty.matched_pods, empty.conditions) == (None, None, ())


@pytest.mark.parametrize("condition", list(ConditionType))
def test_every_condition_has_its_reasons(condition: ConditionType) -> None:
    """R-P10: each once."""
    reasons = REASONS[condition]
    assert len(reasons) == len(set(reasons)) > 1


def test_every_reason_is_given_by_a_condition() -> None:
    """R-P10: a word that nobody uses would stand in the schema and in nobody's status."""
    assert {reason for reasons in REASONS.values() for reason in reasons} == set(Reason)
