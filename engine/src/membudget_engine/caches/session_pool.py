"""Conversations of agents: at most 500, each bounded in turns and bytes, gone after half an hour without use.

Covers: starting, reading, going on with and ending a session; what a session may hold; clearing out those that nobody
uses; sessions across a restart. Does not cover who may read one: its id is a secret of 128 bits. Under pressure of
memory or number the longest unused go first; a policy ranks them under the collection name `sessions`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal

import msgspec

from membudget_contract.decoding import decode_json
from membudget_contract.policy import Priority
from membudget_contract.quantities import MIB
from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_engine.errors import SessionMissing, SessionsFull
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.periodic import Periodic

SESSIONS: Final = "sessions"
"""The component, and the collection under which a policy ranks it."""

MOST_SESSIONS: Final = 500
IDLE_SECONDS: Final = 1800.0
CLEANUP_SECONDS: Final = 60.0
MAX_BYTES: Final = 16 * MIB
"""Where no plan names a ceiling: 500 sessions of 32 kB."""

MOST_TURNS: Final = 50
SESSION_BYTES: Final = 64 * 1024
"""Encoded; the oldest turns give way."""
TURN_CHARACTERS: Final = 8192

_ID_BYTES: Final = 16

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

    def with_turn(self, turn: Turn) -> Session:
        """With one turn more, and within its bounds."""
        turns = (*self.turns, turn)[-MOST_TURNS:]
        sizes = [len(msgspec.json.encode(each)) + 1 for each in turns]
        spare = SESSION_BYTES - len(msgspec.json.encode(Session(self.id, dropped=self.dropped + len(turns))))
        first = 0
        while sum(sizes[first:]) > spare:
            first += 1
        kept = turns[first:]
        return Session(self.id, kept, self.dropped + len(self.turns) + 1 - len(kept))


class SessionPool:
    """Sessions by id. Thread-safe. Runs a thread of its own until `close`."""

    def __init__(
        self,
        runtime: MemoryRuntime,
        clock: Callable[[], float] = time.monotonic,
        cleanup_seconds: float = CLEANUP_SECONDS,
    ) -> None:
        self._turn = threading.Lock()
        self.kept = CountedCache(
            SESSIONS,
            runtime,
            counts=Counts(MOST_SESSIONS),
            max_bytes=MAX_BYTES,
            ttl_seconds=IDLE_SECONDS,
            use_renews=True,
            clock=clock,
        )
        self._cleanup = Periodic("idle-sessions", cleanup_seconds, self.kept.expire)

    def start(self) -> Session:
        """A new, empty session.

        Raises:
            SessionsFull: there is no room, and nothing that may go for it.
        """
        session = Session(secrets.token_hex(_ID_BYTES))
        self._keep(session)
        return session

    def get(self, session_id: str) -> Session:
        """The session, used now.

        Raises:
            SessionMissing: there is none, or none any more.
        """
        stored = self.kept.get(SESSIONS, session_id.encode(errors="surrogatepass"))
        if stored is None:
            raise SessionMissing("no such session: it was ended, was not used for half an hour, or gave way to others")
        return decode_json(stored, Session)

    def add(self, session_id: str, turn: Turn) -> Session:
        """The session with one turn more.

        Raises:
            SessionMissing, SessionsFull: as for `get` and `start`; without room it stays as it was.
        """
        with self._turn:
            before = self.get(session_id)
            session = before.with_turn(turn)
            try:
                self._keep(session)
            except SessionsFull:
                # What it held has just come free.
                self._keep(before)
                raise
        return session

    def end(self, session_id: str) -> bool:
        """Forget it; whether there was one."""
        return self.kept.remove(SESSIONS, session_id.encode(errors="surrogatepass"))

    def close(self) -> None:
        """End the clearing out; sessions stay as they are."""
        self._cleanup.close()

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """For the next life, last used first."""
        return self.kept.saved(priority)

    def restore(self, kept: KeptEntry) -> bool:
        """Take back a session of an earlier life."""
        return self.kept.restore(kept)

    def _keep(self, session: Session) -> None:
        if not self.kept.put(SESSIONS, session.id.encode(), msgspec.json.encode(session)):
            raise SessionsFull("there is no room for a session; end some, or try again later")
