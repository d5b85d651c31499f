"""A conversation, and how it goes on: at most 50 turns and 64 kB, the oldest give way.

Covers: its messages, and one turn more in the encoded form, without decoding it. Does not cover where it is kept
(`session_pool`) nor routes (`rooms_api`). What is kept is what is answered: going on costs the encoding of the new turn
and a copy, not that of fifty.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

MOST_TURNS: Final = 50
SESSION_BYTES: Final = 64 * 1024
"""Encoded; the oldest turns give way."""
TURN_CHARACTERS: Final = 8192

Role = Literal["user", "assistant"]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing said."""

    role: Role
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TURN_CHARACTERS)]


class Session(msgspec.Struct, frozen=True):
    """A conversation, oldest turn first; `dropped` turns before them gave way to newer ones."""

    id: str
    turns: tuple[Turn, ...] = ()
    dropped: int = 0


_OPENS: Final = b'"turns":['
_CLOSES: Final = b'],"dropped":'
_BETWEEN: Final = b'"},{"r'
"""Between two turns, of which each begins with its role, and nowhere else: within a string a quotation mark follows a
backslash, and what closes one is followed by a brace. For the same reason the first `_OPENS` and the last `_CLOSES`
are those of the session."""
_TO_NEXT: Final = len(b'"},')


def with_turn(encoded: bytes, turn: Turn) -> bytes:
    """An encoded `Session` with one turn more, and within its bounds."""
    first, end = encoded.index(_OPENS) + len(_OPENS), encoded.rindex(_CLOSES)
    head, said, dropped = encoded[:first], msgspec.json.encode(turn), int(encoded[end + len(_CLOSES) : -1])
    count = encoded.count(_BETWEEN, first, end) + 2 if first < end else 1
    excess = max(0, count - MOST_TURNS)
    longest = _closed(dropped + min(count, MOST_TURNS))  # however many turns give way now
    spare = SESSION_BYTES - len(head) - len(longest) - len(b",") - len(said)
    while first < end and (excess > 0 or end - first + len(b",") > spare):
        following = encoded.find(_BETWEEN, first, end)
        first = end if following < 0 else following + _TO_NEXT
        excess, dropped = excess - 1, dropped + 1
    return b"".join((head, encoded[first:end], b"," if first < end else b"", said, _closed(dropped)))


def _closed(dropped: int) -> bytes:
    return b"%b%d}" % (_CLOSES, dropped)
