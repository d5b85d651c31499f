"""Which pods a policy selects: the meaning of selectors in Kubernetes, but that an empty one selects nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.selector import LabelRequirement, LabelSelector, SelectorOperator, selects

RETRIEVER = {"app": "retriever", "tier": "search"}


def requiring(key: str, operator: SelectorOperator, *values: str) -> LabelSelector:
    """A selector of one requirement."""
    return LabelSelector(match_expressions=(LabelRequirement(key=key, operator=operator, values=values),))


def test_an_empty_selector_selects_no_pod() -> None:
    """R-P01: elsewhere in Kubernetes it selects all; here a forgotten selector must not."""
    assert selects(LabelSelector(), RETRIEVER) is False
    assert selects(LabelSelector(), {}) is False


@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        ({"app": "retriever"}, True),
        ({"app": "retriever", "tier": "search"}, True),
        ({"app": "other"}, False),
        ({"app": "retriever", "tier": ""}, False),
        ({"zone": "a"}, False),
    ],
)
def test_every_label_of_match_labels_must_be_there(labels: dict[str, str], selected: bool) -> None:
    """R-P01: with its value; what else the pod carries does not matter."""
    assert selects(LabelSelector(match_labels=labels), RETRIEVER) is selected


@pytest.mark.parametrize(
    ("operator", "values", "with_value", "with_another", "without"),
    [
        (SelectorOperator.IN, ("search", "archive"), True, False, False),
        (SelectorOperator.NOT_IN, ("search", "archive"), False, True, True),
        (SelectorOperator.EXISTS, (), True, True, False),
        (SelectorOperator.DOES_NOT_EXIST, (), False, False, True),
    ],
)
def test_operators_mean_what_they_mean_in_kubernetes(
    operator: SelectorOperator, values: tuple[str, ...], with_value: bool, with_another: bool, without: bool
) -> None:
    """R-P01: NotIn also holds for a pod without the label."""
    selector = requiring("tier", operator, *values)
    pods = ({"tier": "search"}, {"tier": "other"}, {"app": "retriever"})
    assert tuple(selects(selector, pod) for pod in pods) == (with_value, with_another, without)


def test_labels_and_requirements_must_all_hold() -> None:
    """R-P01: both parts, and every requirement."""
    tier = LabelRequirement(key="tier", operator=SelectorOperator.EXISTS)
    zone = LabelRequirement(key="zone", operator=SelectorOperator.NOT_IN, values=("b",))
    selector = LabelSelector(match_labels={"app": "retriever"}, match_expressions=(tier, zone))
    assert selects(selector, RETRIEVER) is True
    assert selects(selector, RETRIEVER | {"zone": "b"}) is False
    assert selects(selector, RETRIEVER | {"app": "other"}) is False
    assert selects(selector, {"app": "retriever"}) is False


KEYS = st.sampled_from(["app", "tier", "zone"])
VALUES = st.sampled_from(["a", "b", ""])
LABELS = st.dictionaries(KEYS, VALUES)


@given(KEYS, st.lists(VALUES, min_size=1), LABELS)
def test_each_operator_has_its_opposite(key: str, values: list[str], labels: dict[str, str]) -> None:
    """R-P01: every pod is selected by exactly one of In and NotIn, and of Exists and DoesNotExist."""
    chosen = selects(requiring(key, SelectorOperator.IN, *values), labels)
    assert selects(requiring(key, SelectorOperator.NOT_IN, *values), labels) is not chosen
    there = selects(requiring(key, SelectorOperator.EXISTS), labels)
    assert selects(requiring(key, SelectorOperator.DOES_NOT_EXIST), labels) is not there


@given(LABELS.filter(bool), LABELS)
def test_match_labels_are_requirements_of_one_value(wanted: dict[str, str], labels: dict[str, str]) -> None:
    """R-P01: {app: a} says what app In [a] says."""
    requirements = tuple(
        LabelRequirement(key=key, operator=SelectorOperator.IN, values=(value,)) for key, value in wanted.items()
    )
    by_labels = selects(LabelSelector(match_labels=wanted), labels)
    assert by_labels is selects(LabelSelector(match_expressions=requirements), labels)
