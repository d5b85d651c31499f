"""The base of every part of a policy. Neighbours: `policy` and `selector` build on it."""

from __future__ import annotations

import msgspec


class PolicyPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of every part of a policy: immutable, strict, camelCase on paper."""
