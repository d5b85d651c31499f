"""Bodies are bounded in bytes and in time, whoever sends them."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.requests import Request

from membudget_sidecar import answers
from membudget_sidecar.errors import Refused

Message = MutableMapping[str, Any]


def read(*messages: Message, most: int = 10) -> bytes:
    """The body of a request whose sender says that much and then nothing more."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return asyncio.run(answers.read_body(Request({"type": "http", "method": "POST"}, receive), most))


def part(body: bytes, *, more: bool = True) -> Message:
    """A piece as it comes from the network."""
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_is_put_together_from_its_parts() -> None:
    """R-S10: up to the bound, and not a byte less."""
    assert b"0123456789" == read(part(b"01234"), part(b"56789", more=False))


def test_a_body_that_is_too_large_is_read_no_further_than_that_shows() -> None:
    """Fault 107: a sender without an end is not waited for."""
    assert 11 == len(read(part(b"01234"), part(b"56789"), part(b"x")))


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 111: it would hold one of the few connections that probes need."""
    monkeypatch.setattr(answers, "BODY_SECONDS", 0.05)
    with pytest.raises(Refused) as refusal:
        read(part(b"0"))
    assert (408, "TooSlow") == (refusal.value.status, refusal.value.reason)


def test_a_sender_that_goes_away_is_no_defect() -> None:
    """Fault 113: 400 to nobody, and no traceback."""
    with pytest.raises(Refused) as refusal:
        read(part(b"0"), {"type": "http.disconnect"})
    assert 400 == refusal.value.status
