"""What lint says: one finding, and how bad it is."""

from __future__ import annotations

import enum

import msgspec


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "Error"
    """It would be refused, or could not do what it says."""
    WARNING = "Warning"
    """It holds, and is probably not what was meant."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One thing that is wrong or doubtful, and what to write instead."""

    severity: Severity
    check: str
    subject: str
    """The field as the author wrote it, or the pod."""
    detail: str


def error(check: str, subject: str, detail: str) -> Finding:
    """One that makes lint fail."""
    return Finding(severity=Severity.ERROR, check=check, subject=subject, detail=detail)


def warning(check: str, subject: str, detail: str) -> Finding:
    """One that makes lint fail with --strict only."""
    return Finding(severity=Severity.WARNING, check=check, subject=subject, detail=detail)
