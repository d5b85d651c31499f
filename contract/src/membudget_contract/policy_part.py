"""What every part of a policy has in common: the base of its types, and the bounds of percents and seconds.

Covers no field. Neighbours: `policy`, its parts and `selector` build on it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Percent = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[int, Meta(ge=0, le=86_400)]


class PolicyPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of every part of a policy: immutable, strict, camelCase on paper."""
