"""What a policy may say of the memory limit of its pods: shrink first, then resize in place.

Covers: the types of `spec.resize`, and that a total fits into the limit it asks for. Does not cover when a pod is
resized: the controller decides that from what the pod reports. Neighbour: `policy` has the whole spec.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

from msgspec import Meta

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy_part import PolicyPart
from membudget_contract.quantities import Amount

ENGINE_CONTAINER: Final = "engine"
"""The container that is resized where a policy names none."""

ContainerName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        max_length=63,
        extra={"allowed": "lower-case letters, digits and '-', at most 63 in all, like engine"},
    ),
]


class ResizeMode(enum.StrEnum):
    """Whether the controller may change the memory limit of pods."""

    OFF = "Off"
    SHRINK_FIRST = "ShrinkFirst"


class ResizePolicy(PolicyPart, frozen=True, kw_only=True):
    """The limit that the engine's container should have."""

    mode: Annotated[
        ResizeMode | None,
        Meta(
            description="Off: limits are left alone. ShrinkFirst: the container is resized in place, without a "
            "restart. A lower limit is set only after the engine has given the bytes back and its pod reports a "
            "measured use that fits; a higher limit is set first, and the budget follows it. Needs the controller's "
            "right to patch pods/resize, which is granted apart.",
            examples=["ShrinkFirst"],
        ),
    ] = None
    limit: Annotated[
        Amount | None,
        Meta(
            description="The memory limit that the container should have, in bytes. A total in percent is a percent "
            "of this.",
            examples=["120Mi"],
        ),
    ] = None
    container: Annotated[
        ContainerName | None,
        Meta(description="The container that holds the engine, by its name in the pod.", examples=["engine"]),
    ] = None


def check_resize(resize: ResizePolicy, total: Amount) -> None:
    """A limit is a number of bytes, there where it is asked for, and the budget fits into it.

    Raises:
        PolicyInvalid: names the field.
    """
    if resize.limit is None:
        if resize.mode is ResizeMode.SHRINK_FIRST:
            raise PolicyInvalid("spec.resize.limit", "is missing: ShrinkFirst needs the limit to go to")
        return
    limit = resize.limit.byte_count
    if limit is None:
        raise PolicyInvalid("spec.resize.limit", f"{resize.limit} must be bytes like 120Mi, not a percent")
    if resize.mode is ResizeMode.SHRINK_FIRST and total.of(limit) > limit:
        raise PolicyInvalid(
            "spec.resize.limit", f"{resize.limit} is less than the budget of {total}, which must fit into it"
        )
