"""Answers of the sidecar's HTTP faces, whatever carries them.

Covers: JSON, plain text and problem+json answers as values. Does not cover which request gets which (`routing`,
`api`, `network_api`) nor the bytes on a connection (`http_exchange`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from membudget_contract.control_api import Problem
from membudget_contract.plan import Message


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole; length, date and the end of the connection are added on the way out."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def json_answer(status: int, message: Message) -> Answer:
    """A message of the contract."""
    return Answer(status, msgspec.json.encode(message), "application/json")


def text_answer(status: int, text: str) -> Answer:
    """One line for people and probes."""
    return Answer(status, text.encode(), "text/plain; charset=utf-8")


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that is no success (RFC 9457)."""
    message = Problem(title="Request refused", status=status, reason=reason, detail=detail)
    return Answer(status, msgspec.json.encode(message), "application/problem+json", headers or {})
