"""Two stores of code chunks, the same promises: what is saved is there, activation stays, the oldest give way."""

import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conftest import ChunkMaker
from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.errors import ChunkStoreClosed, ChunkStoreInvalid
from membudget_engine.stores.code_chunk import CodeChunk, CodeChunkStore, code_chunk
from membudget_engine.stores.database_chunks import USES, DatabaseChunkStore
from membudget_engine.stores.memory_chunks import MemoryChunkStore
from membudget_runtime.memory_runtime import MemoryRuntime

Make = Callable[[int | None], CodeChunkStore]
KINDS = ["memory", "database"]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """A store of each kind, of at most so many chunks."""
    with ExitStack() as at_end:
        yield lambda max_chunks: _store(request.param, tmp_path, max_chunks, at_end)


def _store(kind: str, folder: Path, max_chunks: int | None, at_end: ExitStack) -> CodeChunkStore:
    if kind == "database":
        return at_end.enter_context(closing(DatabaseChunkStore(folder / "chunks.sqlite", max_chunks)))
    runtime = at_end.enter_context(closing(MemoryRuntime(folder / "state", {"MEMBUDGET_TOTAL": "4Gi"})))
    return at_end.enter_context(closing(MemoryChunkStore(runtime, max_chunks=max_chunks)))


def chunk(number: int, text: str = "", activation: float = 0.0) -> CodeChunk:
    """One of a hundred files."""
    path, name, metadata = f"package/module_{number % 100}.py", f"f{number}", {"kind": "function"}
    return CodeChunk(f"id-{number}", path, name, f"def {name}()", text, ("len",), metadata, activation)


def held(store: CodeChunkStore, count: int) -> list[int]:
    """Which of the first chunks are there."""
    return [number for number in range(count) if store.get(f"id-{number}") is not None]


def test_a_chunk_comes_back_as_it_was_saved(make: Make, make_chunks: ChunkMaker) -> None:
    """R-E15: id, path, name, signature, docstring, dependencies, metadata, activation."""
    store = make(None)
    chunks = [code_chunk(each) for each in make_chunks(2_000)]

    store.save(chunks)

    assert [store.get(each.id) for each in chunks] == chunks
    assert (len(store), store.get("unknown")) == (2_000, None)


def test_saving_a_chunk_again_keeps_its_activation(make: Make) -> None:
    """R-E15, known bug 12: the text is the new one, the activation the one that grew."""
    store = make(None)
    store.save([chunk(1, "old", activation=0.25)])
    assert store.activate("id-1", 0.75)

    store.save([chunk(1, "new", activation=0.0)])

    assert store.get("id-1") == chunk(1, "new", activation=0.75)
    assert (len(store), store.activate("unknown", 1.0)) == (1, False)


def test_the_least_recently_used_give_way_above_the_maximum(make: Make) -> None:
    """R-E15: maximum count with LRU eviction; a look-up is a use, and saving again is one."""
    store = make(5)
    store.save(chunk(number) for number in range(5))
    store.get("id-0")
    store.save([chunk(1, "again")])

    store.save([chunk(5), chunk(6)])

    assert held(store, 7) == [0, 1, 4, 5, 6]
    assert len(store) == 5


def test_a_deleted_chunk_is_gone_and_comes_back_new(make: Make) -> None:
    """R-E15: with the activation it is saved with."""
    store = make(None)
    store.save([chunk(1, activation=0.5)])

    assert (store.delete("id-1"), store.delete("id-1"), store.get("id-1"), len(store)) == (True, False, None, 0)
    store.save([chunk(1, activation=0.125)])
    assert store.get("id-1") == chunk(1, activation=0.125)


def test_a_closed_store_says_so(make: Make) -> None:
    """R-E15: never an empty answer; closing twice does nothing."""
    store = make(None)
    store.save([chunk(1)])
    store.close()
    store.close()

    for call in (lambda: store.get("id-1"), lambda: store.save([chunk(2)]), lambda: store.delete("id-1"),
                 lambda: store.activate("id-1", 1.0)):  # fmt: skip
        with pytest.raises(ChunkStoreClosed):
            call()


def test_eight_threads_read_and_write_one_store(make: Make) -> None:
    """R-E15: bounded pool, one writer; nobody gets another's chunk."""
    store = make(None)
    store.save(chunk(number) for number in range(400))
    wrong: list[object] = []

    def work(first: int) -> None:
        try:
            for turn in range(100):
                number = (first * 50 + turn) % 400
                if turn % 10 == 0:
                    store.save([chunk(number, f"by {first}")])
                found = store.get(f"id-{number}")
                if found is None or found.name != f"f{number}":
                    wrong.append(found)
        except Exception as error:  # noqa: BLE001  looked at by the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (wrong, len(store)) == ([], 400)


_Steps = st.lists(
    st.tuples(st.sampled_from(["save", "get", "activate", "delete"]), st.integers(0, 7), st.text(max_size=300)),
    max_size=40,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(_Steps)
def test_it_holds_what_a_dictionary_with_the_same_maximum_would(kind: str, steps: list[tuple[str, int, str]]) -> None:
    """R-E15: against the plainest model, at most four chunks."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as at_end:
        store = _store(kind, Path(folder), 4, at_end)
        model: dict[int, CodeChunk] = {}
        for turn, (step, number, text) in enumerate(steps):
            known = model.get(number)
            if step == "save":
                saved = chunk(number, text, activation=float(turn))
                store.save([saved])
                if known is not None:
                    saved = msgspec.structs.replace(saved, activation=known.activation)
                elif len(model) == 4:
                    del model[next(iter(model))]
                model.pop(number, None)
                model[number] = saved
            elif step == "get":
                assert store.get(f"id-{number}") == known
                if known is not None:
                    model[number] = model.pop(number)
            elif step == "activate":
                assert store.activate(f"id-{number}", turn / 4) is (known is not None)
                if known is not None:
                    model[number] = msgspec.structs.replace(known, activation=turn / 4)
            else:
                assert store.delete(f"id-{number}") is (model.pop(number, None) is not None)
        assert len(store) == len(model)
        assert {number: store.get(f"id-{number}") for number in model} == model


def test_chunks_in_memory_give_way_when_it_is_short(tmp_path: Path) -> None:
    """R-E14, R-E15: the ledger finds them; the oldest go, and every byte with them."""
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        store = MemoryChunkStore(runtime, max_chunks=100_000)
        store.save(chunk(number, f"{number} " * 100) for number in range(5_000))
        owned = store.owned_bytes()

        runtime.free(FreeRequest(means=Means.EVICT, target_bytes=owned // 2))

        assert owned // 3 < store.owned_bytes() <= owned // 2
        assert store.get("id-4999") == chunk(4999, "4999 " * 100)
        assert store.evictions() == 5_000 - len(store)
        runtime.free(FreeRequest(means=Means.EVICT, target_bytes=1 << 40))
        assert (len(store), store.owned_bytes(), store.collections()) == (0, 0, [])


def test_chunks_that_come_and_go_leave_their_bytes_behind_in_no_block(tmp_path: Path) -> None:
    """R-E15: what is dropped is moved together, and paths nobody uses are forgotten."""
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        store = MemoryChunkStore(runtime, max_chunks=2_000)
        store.save(chunk(number, f"{number} " * 60) for number in range(2_000))
        once = store.owned_bytes()

        store.save(
            msgspec.structs.replace(chunk(number, f"{number} " * 60), path=f"of its own/{number}.py")
            for number in range(2_000, 12_000)
        )

        assert len(store) == 2_000
        assert store.owned_bytes() < 2 * once


def test_what_stays_among_deleted_chunks_is_moved_together_unharmed(tmp_path: Path) -> None:
    """R-E15: three of four deleted at random give two of three bytes back."""
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        store = MemoryChunkStore(runtime)
        store.save(chunk(number, f"{number} " * 100) for number in range(6_000))
        full = store.owned_bytes()
        order = random.Random(1).sample(range(6_000), 6_000)

        for number in order[:4_500]:
            store.delete(f"id-{number}")

        assert [store.get(f"id-{number}") for number in order[4_500:]] == [
            chunk(number, f"{number} " * 100) for number in order[4_500:]
        ]
        assert store.owned_bytes() < full * 0.4


def test_the_file_outlives_the_store_and_so_does_the_order_of_use(tmp_path: Path) -> None:
    """R-E15: opened again, with activation, and the least recently used still goes first."""
    file = tmp_path / "chunks.sqlite"
    with closing(DatabaseChunkStore(file, 3)) as store:
        store.save(chunk(number) for number in range(3))
        store.activate("id-2", 0.5)
        store.get("id-0")
    with closing(DatabaseChunkStore(file, 3)) as store:
        store.save([chunk(3)])
        assert held(store, 4) == [0, 2, 3]
        assert store.get("id-2") == chunk(2, activation=0.5)


def test_uses_are_written_down_together(tmp_path: Path) -> None:
    """R-E15: a look-up writes nothing; a thousand are one transaction, and memory for them is bounded."""
    file = tmp_path / "chunks.sqlite"
    with closing(DatabaseChunkStore(file, 5_000)) as store:
        store.save(chunk(number) for number in range(USES))
        other = sqlite3.connect(file)
        before = other.execute("PRAGMA data_version").fetchone()
        for number in range(USES - 1):
            store.get(f"id-{number}")
        assert other.execute("PRAGMA data_version").fetchone() == before
        store.get(f"id-{USES - 1}")
        assert other.execute("PRAGMA data_version").fetchone() != before
        other.close()


def test_what_save_returned_from_survives_sigkill(tmp_path: Path) -> None:
    """R-E15: in the write-ahead log, which the next store takes over."""
    file = tmp_path / "chunks.sqlite"
    program = (
        "import os, sys; from pathlib import Path\n"
        "from membudget_engine.stores.code_chunk import CodeChunk\n"
        "from membudget_engine.stores.database_chunks import DatabaseChunkStore\n"
        "store = DatabaseChunkStore(Path(sys.argv[1]))\n"
        "store.save([CodeChunk('id-1', 'a.py', 'a', '', '', (), {}, 0.5)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(file)], check=False).returncode == -9
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    with closing(DatabaseChunkStore(file)) as store:
        assert store.get("id-1") == CodeChunk("id-1", "a.py", "a", "", "", (), {}, 0.5)


@pytest.mark.parametrize("harm", ["foreign", "other", "newer"])
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, harm: str) -> None:
    """R-E15: never written over."""
    file = tmp_path / "chunks.sqlite"
    if harm == "foreign":
        file.write_bytes(b"no database at all, but longer than its header would be" * 10)
    elif harm == "other":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE mine (x)")
    else:
        DatabaseChunkStore(file).close()
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA user_version = 2")
    before = file.read_bytes()

    with pytest.raises(ChunkStoreInvalid, match=r"chunks\.sqlite"):
        DatabaseChunkStore(file)
    assert file.read_bytes() == before


def test_a_failed_save_keeps_nothing_of_it(tmp_path: Path) -> None:
    """R-E15: all of a batch or none."""

    def chunks() -> Iterator[CodeChunk]:
        yield chunk(1)
        raise OSError("the source vanished")

    with closing(DatabaseChunkStore(tmp_path / "chunks.sqlite")) as store:
        with pytest.raises(OSError, match="vanished"):
            store.save(chunks())
        assert len(store) == 0
        store.save([chunk(2)])
        assert held(store, 3) == [2]
