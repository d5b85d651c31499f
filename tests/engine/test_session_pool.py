"""Conversations: how many, how long, how large, and what becomes of them when the engine stops."""

import dataclasses
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine_process import EngineProcess, wait_until
from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.decoding import decode_json
from membudget_engine.caches.conversation import (
    MOST_TURNS,
    SESSION_BYTES,
    TURN_CHARACTERS,
    Session,
    Turn,
    with_turn,
)
from membudget_engine.caches.session_pool import IDLE_SECONDS, MOST_SESSIONS, SessionPool
from membudget_engine.errors import SessionMissing, SessionsFull
from membudget_runtime.memory_runtime import MemoryRuntime


class HandClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def read(pool: SessionPool, session_id: str) -> Session:
    """As a client reads it."""
    return decode_json(pool.get(session_id), Session)


@pytest.fixture
def clock() -> HandClock:
    """At no particular time."""
    return HandClock()


@pytest.fixture
def pool(runtime: MemoryRuntime, clock: HandClock) -> Iterator[SessionPool]:
    """Empty."""
    with closing(SessionPool(runtime, clock)) as pool:
        yield pool


def test_a_conversation_grows_turn_by_turn(pool: SessionPool) -> None:
    """R-E07: history in the order it was said, under an id that nobody guesses."""
    started = pool.start()
    turns = (Turn("user", "where is the lock?"), Turn("assistant", "in locks.py"))
    for turn in turns:
        pool.add(started.id, turn)

    assert read(pool, started.id) == Session(started.id, turns)
    assert len(bytes.fromhex(started.id)) == 16
    assert started.id != pool.start().id


def test_the_longest_unused_of_five_hundred_gives_way(pool: SessionPool) -> None:
    """R-E07: at most 500, LRU."""
    assert MOST_SESSIONS == 500
    sessions = [pool.start() for _ in range(MOST_SESSIONS)]
    pool.get(sessions[0].id)

    pool.start()

    assert len(pool.kept) == MOST_SESSIONS
    assert read(pool, sessions[0].id) == sessions[0]
    with pytest.raises(SessionMissing):
        pool.get(sessions[1].id)


def test_half_an_hour_without_use_ends_a_session(pool: SessionPool, clock: HandClock) -> None:
    """R-E07: 30 minutes; each use begins them anew."""
    assert IDLE_SECONDS == 30 * 60
    used, unused = pool.start(), pool.start()
    clock.now += IDLE_SECONDS - 1
    pool.add(used.id, Turn("user", "still here"))
    clock.now += 1

    with pytest.raises(SessionMissing, match="half an hour"):
        pool.get(unused.id)
    assert len(read(pool, used.id).turns) == 1


def test_idle_sessions_are_cleared_out_though_nobody_asks(runtime: MemoryRuntime, clock: HandClock) -> None:
    """R-E07: background cleanup gives their bytes back."""
    with closing(SessionPool(runtime, clock, cleanup_seconds=0.01)) as pool:
        for _ in range(10):
            pool.start()
        clock.now += IDLE_SECONDS

        wait_until(lambda: pool.kept.owned_bytes() == 0)

    assert len(pool.kept) == 0


def test_a_session_keeps_its_newest_turns_within_number_and_bytes(pool: SessionPool) -> None:
    """R-E07: bounded conversation history and bytes per session, and it tells how many gave way."""
    by_number, by_bytes = pool.start().id, pool.start().id
    for number in range(MOST_TURNS + 7):
        pool.add(by_number, Turn("user", str(number)))
        pool.add(by_bytes, Turn("assistant", f"{number}" + "x" * (TURN_CHARACTERS - 4)))

    short, long = read(pool, by_number), read(pool, by_bytes)
    assert [turn.text for turn in short.turns] == [str(number) for number in range(7, MOST_TURNS + 7)]
    assert (short.dropped, long.dropped + len(long.turns)) == (7, MOST_TURNS + 7)
    assert SESSION_BYTES - TURN_CHARACTERS < len(msgspec.json.encode(long)) <= SESSION_BYTES


def plainly_with_turn(session: Session, turn: Turn) -> Session:
    """One turn more and the oldest gone until it fits: the plainest model."""
    turns = [*session.turns, turn]
    while True:
        longest = Session(session.id, tuple(turns), session.dropped + min(len(session.turns) + 1, MOST_TURNS))
        if len(turns) <= MOST_TURNS and len(msgspec.json.encode(longest)) < SESSION_BYTES:
            return msgspec.structs.replace(longest, dropped=session.dropped + len(session.turns) + 1 - len(turns))
        del turns[0]


_HOSTILE = st.one_of(
    st.sampled_from(['"},{"', '"},{', '"},{"role":"user', '],"dropped":', '"turns":[']),
    st.text('"},{[]:\\\n\x00 aé中', min_size=1),
)


def _repeated(text: str, times: int) -> str:
    return (text * times)[:TURN_CHARACTERS]


_TEXTS = st.builds(
    _repeated, st.one_of(st.text(min_size=1), _HOSTILE), st.one_of(st.just(1), st.integers(1, TURN_CHARACTERS))
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), _TEXTS), max_size=80),
    st.sampled_from([0, 49, 9_950]),
)
def test_a_session_goes_on_encoded_as_it_would_decoded(turns: list[Turn], dropped: int) -> None:
    """R-E07: byte by byte, whatever is said, within its bounds; the last turn stays, and none is lost uncounted."""
    session = Session("0" * 32, dropped=dropped)
    encoded = msgspec.json.encode(session)
    for turn in turns:
        session, encoded = plainly_with_turn(session, turn), with_turn(encoded, turn)

        assert encoded == msgspec.json.encode(session)
        assert (session.turns[-1], len(encoded) <= SESSION_BYTES) == (turn, True)
    assert session.dropped + len(session.turns) == dropped + len(turns)


def test_a_long_conversation_goes_on_encoded_as_it_would_decoded() -> None:
    """R-E07: over both bounds, and over the number of dropped turns that takes a digit more."""
    session = Session("0" * 32)
    encoded = msgspec.json.encode(session)
    chance = random.Random(7)
    for number in range(1200):
        turn = Turn("user", '"},{"' * chance.randint(1, 500 if number % 100 < 70 else 2000))
        session, encoded = plainly_with_turn(session, turn), with_turn(encoded, turn)
        assert encoded == msgspec.json.encode(session)
    assert session.dropped > 999


@pytest.mark.parametrize("text", ['"},{', '"},{"', '"},{"r', '},{"role":"user","text":"', "\\"])
def test_what_looks_like_the_end_of_a_turn_is_said_as_any_other_thing(text: str) -> None:
    """R-E07: at the end of a text its closing quotation mark stands where one that opens a key would."""
    turns = [Turn("user", f"look at {text}"), *(Turn("user", str(number)) for number in range(60))]
    session = Session("0" * 32)
    encoded = msgspec.json.encode(session)
    for turn in turns:
        session, encoded = plainly_with_turn(session, turn), with_turn(encoded, turn)
        assert encoded == msgspec.json.encode(session)


def test_the_oldest_turn_gives_way_to_a_byte_too_many_and_to_none_less() -> None:
    """R-E07: a last turn of every length."""
    session = Session("0" * 32, tuple(Turn("user", "x" * TURN_CHARACTERS) for _ in range(7)))
    encoded, kept = msgspec.json.encode(session), set[int]()
    for length in range(7600, TURN_CHARACTERS):
        turn = Turn("user", "y" * length)
        expected = plainly_with_turn(session, turn)
        assert with_turn(encoded, turn) == msgspec.json.encode(expected)
        kept.add(len(expected.turns))
    assert kept == {7, 8}


def test_the_longest_turn_in_the_widest_letters_fits(pool: SessionPool) -> None:
    """R-E07: six bytes of JSON for each character are still one turn."""
    turn = Turn("user", "\x00" * TURN_CHARACTERS)

    session = pool.start().id
    assert decode_json(pool.add(session, turn), Session) == Session(session, (turn,)) == read(pool, session)


def test_an_ended_session_is_gone_at_once(pool: SessionPool) -> None:
    """R-E07: and ending it twice is no error of the pool."""
    session = pool.start()

    assert (pool.end(session.id), pool.end(session.id), pool.kept.owned_bytes()) == (True, False, 0)
    with pytest.raises(SessionMissing):
        pool.add(session.id, Turn("user", "hello"))


@pytest.mark.parametrize("session_id", ["", "x" * 5000, "\ud800", "../..", "\x00"])
def test_an_id_that_is_none_is_missing(pool: SessionPool, session_id: str) -> None:
    """R-E07: whatever a client sends."""
    with pytest.raises(SessionMissing):
        pool.get(session_id)


def test_a_session_that_finds_no_room_stays_as_it_was(tmp_path: Path) -> None:
    """R-E07: a turn that does not fit costs nobody the conversation."""
    with (
        closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime,
        closing(SessionPool(runtime)) as pool,
    ):
        session_id = pool.start().id
        session = pool.add(session_id, Turn("user", "short"))
        ceilings = {**runtime.ledger.bounds.ceilings, "sessions": pool.kept.owned_bytes() + 500}
        runtime.ledger.set_bounds(dataclasses.replace(runtime.ledger.bounds, ceilings=ceilings))

        with pytest.raises(SessionsFull):
            pool.add(session_id, Turn("user", "".join(map(chr, range(0x4E00, 0x4E00 + 8000)))))

        assert pool.get(session_id) == session


def test_turns_added_at_once_are_all_kept(pool: SessionPool) -> None:
    """R-E07: twenty threads in one conversation."""
    session_id = pool.start().id
    threads = [threading.Thread(target=pool.add, args=(session_id, Turn("user", str(number)))) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(int(turn.text) for turn in read(pool, session_id).turns) == [*range(20)]


def said_at_random(number: int) -> Turn:
    """Eight kilobytes that are worth compressing, and still take five."""
    return Turn("user", random.Random(number).randbytes(TURN_CHARACTERS // 2).hex())


def test_memory_that_is_short_compresses_all_and_then_ends_the_longest_unused(
    pool: SessionPool, runtime: MemoryRuntime
) -> None:
    """R-E07, R-E14: sessions are Medium unless a policy ranks them."""
    sessions = [pool.start().id for _ in range(100)]
    encoded = [pool.add(session, said_at_random(number)) for number, session in enumerate(sessions)]
    plain_bytes = pool.kept.owned_bytes()

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=plain_bytes // 4))
    assert (len(pool.kept), pool.kept.owned_bytes() < 0.8 * plain_bytes) == (100, True)

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=plain_bytes // 2))
    assert (0 < len(pool.kept) < 60, pool.kept.counters.compressions) == (True, 100)
    assert pool.get(sessions[-1]) == encoded[-1]


def test_who_was_not_used_since_the_last_clearing_out_is_compressed(runtime: MemoryRuntime, clock: HandClock) -> None:
    """R-E07, R-E02: and as it was when it is used again, for whom it was compressed or not."""
    with closing(SessionPool(runtime, clock, cleanup_seconds=0.01)) as pool:
        session = pool.start().id
        encoded = pool.add(session, said_at_random(1))
        plain_bytes = pool.kept.owned_bytes()
        wait_until(lambda: pool.kept.owned_bytes() < 0.8 * plain_bytes)
        assert pool.get(session) == encoded


def test_sessions_outlive_a_restart(small_data: Path, tmp_path: Path) -> None:
    """R-E07, R-E17: SIGTERM persists them with caches; the next life goes on with the conversation."""
    turn = {"role": "user", "text": "remember me"}
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        session = engine.ask("POST", "/v1/sessions").json()["id"]
        ended = engine.ask("POST", "/v1/sessions").json()["id"]
        assert engine.ask("POST", f"/v1/sessions/{session}/turns", msgspec.json.encode(turn)).status == 200
        assert engine.ask("DELETE", f"/v1/sessions/{ended}").status == 204
        assert engine.terminate() == 0
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        assert engine.ask("GET", f"/v1/sessions/{session}").json()["turns"] == [turn]
        assert engine.ask("GET", f"/v1/sessions/{ended}").status == 404
