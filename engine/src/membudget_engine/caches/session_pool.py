"""Conversations of agents: at most 500, gone after half an hour without use.

Covers: starting, reading, going on with and ending a session; clearing out those that nobody uses; sessions across a
restart. Does not cover what a session may hold (`conversation`), nor who may read one: its id is a secret of 128 bits.

A conversation is kept as it is answered while it is used: compressing it would cost each turn a hundred times what the
turn costs. Who was not used from one clearing out to the next is compressed, and the longest unused when memory is
short; then, or when there are too many, the longest unused go. A policy ranks them under the collection name
`sessions`. Everything here is done in memory, in microseconds: the event loop does it itself
(docs/decisions/0026-known-answers-on-the-loop.md).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from membudget_contract.policy import Priority
from membudget_contract.quantities import MIB
from membudget_engine.caches.conversation import Session, Turn, with_turn
from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_engine.caches.packed_together import Packs
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

_ID_BYTES: Final = 16
_FULL: Final = "there is no room for a session; end some, or try again later"


class SessionPool:
    """Sessions by id. Thread-safe. Runs a thread of its own until `close`."""

    def __init__(
        self,
        runtime: MemoryRuntime,
        clock: Callable[[], float] = time.monotonic,
        cleanup_seconds: float = CLEANUP_SECONDS,
    ) -> None:
        self._lock = runtime.ledger.lock
        self.kept = CountedCache(
            SESSIONS,
            runtime,
            counts=Counts(MOST_SESSIONS),
            max_bytes=MAX_BYTES,
            ttl_seconds=IDLE_SECONDS,
            use_renews=True,
            packs=Packs.UNUSED,
            clock=clock,
        )
        self._cleanup = Periodic("idle-sessions", cleanup_seconds, self._clear_out)

    def start(self) -> Session:
        """A new, empty session.

        Raises:
            SessionsFull: there is no room, and nothing that may go for it.
        """
        session = Session(secrets.token_hex(_ID_BYTES))
        if not self.kept.put(SESSIONS, session.id.encode(), msgspec.json.encode(session)):
            raise SessionsFull(_FULL)
        return session

    def get(self, session_id: str) -> bytes:
        """The session, an encoded `Session`; used now.

        Raises:
            SessionMissing: there is none, or none any more.
        """
        encoded = self.kept.get(SESSIONS, _key(session_id))
        if encoded is None:
            raise SessionMissing("no such session: it was ended, was not used for half an hour, or gave way to others")
        return encoded

    def add(self, session_id: str, turn: Turn) -> bytes:
        """The session with one turn more, encoded.

        Raises:
            SessionMissing, SessionsFull: as for `get` and `start`; without room it stays as it was.
        """
        with self._lock:  # so that no other turn comes between, and nothing evicts it
            session = with_turn(self.get(session_id), turn)
            if not self.kept.replace(SESSIONS, _key(session_id), session):
                raise SessionsFull(_FULL)
        return session

    def end(self, session_id: str) -> bool:
        """Forget it; whether there was one."""
        return self.kept.remove(SESSIONS, _key(session_id))

    def close(self) -> None:
        """End the clearing out; sessions stay as they are."""
        self._cleanup.close()

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """For the next life, last used first."""
        return self.kept.saved(priority)

    def restore(self, kept: KeptEntry) -> bool:
        """Take back a session of an earlier life."""
        return self.kept.restore(kept)

    def _clear_out(self) -> None:
        self.kept.expire()
        self.kept.pack_unused()


def _key(session_id: str) -> bytes:
    return session_id.encode(errors="surrogatepass")
