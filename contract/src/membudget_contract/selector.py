"""Which pods a policy selects: the selector as written, and whether a set of labels satisfies it.

Covers: the types, what they must not say, and `selects`, with the meaning selectors have in Kubernetes but for one
point: an empty selector selects nothing, where elsewhere it selects everything. Pure. Does not cover the opt-in
label or which of two policies wins: both are the controller's. Neighbour: `policy` holds one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from msgspec import Meta

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy_part import PolicyPart

MANAGED_LABEL: Final = "membudget.dev/managed"
"""Opts a pod in, with the value `true`: a selector alone brings no pod under a policy."""


class SelectorOperator(enum.StrEnum):
    """How a requirement holds a pod's label against its values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"

    @property
    def takes_values(self) -> bool:
        """In and NotIn compare with values; the others ask only whether the label is there."""
        return self in {SelectorOperator.IN, SelectorOperator.NOT_IN}


LabelKey = Annotated[
    str,
    Meta(
        pattern=(
            r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
        ),
        max_length=317,
        extra={"allowed": "the key of a label, like app or example.com/tier: letters, digits, '-', '_' and '.'"},
    ),
]
LabelValue = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$",
        max_length=63,
        extra={"allowed": "the value of a label: at most 63 letters, digits, '-', '_' and '.', or empty"},
    ),
]
MatchLabels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=32)]


class LabelRequirement(PolicyPart, frozen=True, kw_only=True):
    """One requirement on a pod's labels, with the meaning it has everywhere in Kubernetes."""

    key: Annotated[LabelKey, Meta(description="The label that is looked at.", examples=["tier"])]
    operator: Annotated[
        SelectorOperator,
        Meta(
            description="In: the label has one of the values. NotIn: it has none of them, or is missing. "
            "Exists: the label is there, whatever its value. DoesNotExist: it is missing.",
            examples=["In"],
        ),
    ]
    values: Annotated[
        tuple[LabelValue, ...],
        Meta(
            max_length=64,
            description="What the label's value is compared with. In and NotIn need one value or more, "
            "Exists and DoesNotExist take none.",
            examples=[["search", "archive"]],
        ),
    ] = ()


class LabelSelector(PolicyPart, frozen=True, kw_only=True):
    """Which pods of the policy's namespace; not consulted for a policy read from a file."""

    match_labels: Annotated[
        MatchLabels,
        Meta(description="Labels that a pod must have, each with this value.", examples=[{"app": "retriever"}]),
    ] = {}
    match_expressions: Annotated[
        tuple[LabelRequirement, ...],
        Meta(
            max_length=32,
            description="Further requirements on a pod's labels; all of them must hold, and matchLabels too.",
            examples=[[{"key": "tier", "operator": "NotIn", "values": ["archive"]}]],
        ),
    ] = ()


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a pod with these labels is selected; by an empty selector none is."""
    if not selector.match_labels and not selector.match_expressions:
        return False
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _satisfied(requirement, labels) for requirement in selector.match_expressions
    )


def _satisfied(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case SelectorOperator.IN:
            return value in requirement.values
        case SelectorOperator.NOT_IN:
            return value not in requirement.values
        case SelectorOperator.EXISTS:
            return value is not None
        case SelectorOperator.DOES_NOT_EXIST:
            return value is None


def check_selector(selector: LabelSelector) -> None:
    """Operators and values fit together.

    Raises:
        PolicyInvalid: names the requirement.
    """
    for at, requirement in enumerate(selector.match_expressions):
        operator, field = requirement.operator, f"spec.selector.matchExpressions[{at}].values"
        if operator.takes_values and not requirement.values:
            raise PolicyInvalid(field, f"operator {operator} needs one value or more")
        if requirement.values and not operator.takes_values:
            raise PolicyInvalid(field, f"operator {operator} takes no values")


def label_texts(selector: LabelSelector) -> Iterator[tuple[str, str]]:
    """Every key and value with the field in which it stands."""
    for key, value in selector.match_labels.items():
        yield from ((f"spec.selector.matchLabels.{key.rstrip()}", text) for text in (key, value))
    for at, requirement in enumerate(selector.match_expressions):
        path = f"spec.selector.matchExpressions[{at}]"
        yield f"{path}.key", requirement.key
        yield from ((f"{path}.values[{position}]", value) for position, value in enumerate(requirement.values))
