"""What a policy asks to be looked at again: the index on disk (R-P09).

Covers: the types of `spec.reload`. Does not cover when the engine is asked, once for each value: the sidecar decides
that. Neighbour: `policy` has the whole spec.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from membudget_contract.policy_part import PolicyPart

ReloadToken = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,62}$",
        max_length=63,
        extra={
            "allowed": "a letter or digit, then letters, digits, '.', '_', ':', '+' and '-', at most 63 in all, "
            "like 2026-11-20T10:00:00Z"
        },
    ),
]


class ReloadPolicy(PolicyPart, frozen=True, kw_only=True):
    """What is to be loaded anew."""

    index: Annotated[
        ReloadToken | None,
        Meta(
            description="A value other than the last one asks each engine once to look again at what is on disk, its "
            "index first of all: a time, a build number, in quotes where YAML would make a date or a number of it. "
            "The same value asks for nothing again, nor after a restart; taken away it asks for nothing. "
            "A reload that fails keeps what was in use and is not repeated: write another value. In mode Observe it is "
            "recorded and not done, nor later.",
            examples=['"2026-11-20T10:00:00Z"'],
        ),
    ] = None
