"""Vectors hot as float16 and all of them on disk: the same whichever way, and no byte more than is reported."""

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine_process import status_bytes
from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.errors import VectorInvalid, VectorStoreFailed
from membudget_engine.stores.vector_store import HOT_VECTORS, VectorStore
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 64
FILL = Path(__file__).with_name("fill_vectors.py")


def vector(number: int) -> npt.NDArray[np.float32]:
    """Of this number."""
    return np.random.default_rng(number).standard_normal(DIMENSION, dtype=np.float32)


def kept(number: int) -> bytes:
    """What float16 keeps of it."""
    return vector(number).astype(np.float16).astype(np.float32).tobytes()


def found(store: VectorStore, number: int) -> bytes | None:
    """What the store has of it."""
    row = store.get(b"%d" % number)
    return None if row is None else row.tobytes()


@pytest.fixture
def store(runtime: MemoryRuntime, tmp_path: Path) -> Iterator[VectorStore]:
    """Of five thousand hot vectors."""
    with closing(VectorStore(runtime, tmp_path, DIMENSION)) as store:
        yield store


def test_at_most_five_thousand_vectors_are_hot_and_all_are_found(store: VectorStore) -> None:
    """R-E05: the rest is on disk, and the same to the bit."""
    for number in range(6_000):
        store.put(b"%d" % number, vector(number))

    assert (store.hot, len(store), HOT_VECTORS, store.evictions()) == (5_000, 6_000, 5_000, 1_000)
    assert [found(store, number) for number in (0, 999, 1_000, 5_999)] == [kept(n) for n in (0, 999, 1_000, 5_999)]
    assert (store.reads, store.hot, store.get(b"unknown")) == (3, 5_000, None)


def test_the_least_recently_used_goes_to_disk_first(runtime: MemoryRuntime, tmp_path: Path) -> None:
    """R-E05: LRU."""
    with closing(VectorStore(runtime, tmp_path, DIMENSION, hot_vectors=3)) as store:
        for number in range(3):
            store.put(b"%d" % number, vector(number))
        found(store, 0)
        store.put(b"3", vector(3))

        for number, read in ((0, 0), (2, 0), (3, 0), (1, 1), (0, 2)):
            assert found(store, number) == kept(number)
            assert store.reads == read


def test_a_vector_that_is_put_again_replaces_the_old_one_in_both_places(store: VectorStore) -> None:
    """R-E05, known bug 22: nothing is kept beside it."""
    store.put(b"1", vector(1))
    before = store.owned_bytes()
    store.put(b"1", vector(2))

    assert (found(store, 1), store.owned_bytes(), store.hot, len(store)) == (kept(2), before, 1, 1)


def test_removed_vectors_leave_memory_and_their_row_is_used_again(store: VectorStore, tmp_path: Path) -> None:
    """R-E05: the file does not grow with what comes and goes."""
    del tmp_path
    for turn in range(5):
        for number in range(100):
            store.put(b"%d" % number, vector(number + turn))
        for number in range(100):
            assert store.remove(b"%d" % number)
    assert not store.remove(b"1")
    assert (store.hot, len(store), store.owned_bytes()) == (0, 0, 0)
    assert os.fstat(store._file.fileno()).st_size == 100 * DIMENSION * 2  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(DIMENSION + 1, dtype=np.float32),
        np.zeros((1, DIMENSION), dtype=np.float32),
        np.full(DIMENSION, np.nan, dtype=np.float32),
        np.full(DIMENSION, np.inf, dtype=np.float32),
        np.full(DIMENSION, 70_000, dtype=np.float32),
    ],
)
def test_what_float16_cannot_hold_is_refused(store: VectorStore, wrong: npt.NDArray[np.float32]) -> None:
    """R-E05, fault 63: never silently infinite."""
    with pytest.raises(VectorInvalid):
        store.put(b"1", wrong)
    assert len(store) == 0


def test_memory_that_is_short_cools_and_loses_nothing(store: VectorStore, runtime: MemoryRuntime) -> None:
    """R-E05, R-E14: the oldest leave memory, all are still found."""
    for number in range(1_000):
        store.put(b"%d" % number, vector(number))
    owned = store.owned_bytes()

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=owned // 3))

    assert store.owned_bytes() <= owned - owned // 3
    assert 0 < store.hot < 1_000
    assert [found(store, number) for number in range(0, 1_000, 111)] == [kept(n) for n in range(0, 1_000, 111)]


def test_without_room_a_vector_is_on_disk_only(tmp_path: Path) -> None:
    """R-E05: a ceiling in the way of heat is in the way of nothing else."""
    with closing(MemoryRuntime(tmp_path / "state", {"MEMBUDGET_TOTAL": "1Ki"})) as runtime:
        store = VectorStore(runtime, tmp_path, DIMENSION)
        for number in range(50):
            store.put(b"%d" % number, vector(number))

        assert store.hot == 0
        assert [found(store, number) for number in range(50)] == [kept(number) for number in range(50)]
        store.close()


def test_a_full_disk_refuses_the_vector_and_keeps_the_others(store: VectorStore) -> None:
    """R-E05, fault 71: a typed error, and what was there is there."""
    for number in range(10):
        store.put(b"%d" % number, vector(number))
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * DIMENSION * 2, former[1]))
    try:
        with pytest.raises(VectorStoreFailed, match=os.strerror(errno.EFBIG)):
            store.put(b"10", vector(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)

    assert ([found(store, number) for number in range(11)]) == [kept(number) for number in range(10)] + [None]


def test_a_closed_store_says_so(store: VectorStore) -> None:
    """R-E05: never a silent loss."""
    store.close()
    with pytest.raises(VectorStoreFailed):
        store.put(b"1", vector(1))


def test_eight_threads_never_get_anothers_vector(runtime: MemoryRuntime, tmp_path: Path) -> None:
    """R-E05: while rows move between memory and disk."""
    wrong: list[int] = []
    with closing(VectorStore(runtime, tmp_path, DIMENSION, hot_vectors=50)) as store:
        for number in range(200):
            store.put(b"%d" % number, vector(number))
        expected = [kept(number) for number in range(200)]

        def work(first: int) -> None:
            wrong.extend(n for turn in range(400) if found(store, n := (first * 31 + turn * 7) % 200) != expected[n])

        threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


_Steps = st.lists(st.tuples(st.sampled_from(["put", "get", "remove"]), st.integers(0, 9)), max_size=80)


@settings(max_examples=40, deadline=None)
@given(_Steps)
def test_it_holds_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """R-E05: three hot ones of ten."""
    folder = tmp_path_factory.mktemp("store")
    with closing(MemoryRuntime(folder / "state", {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        store = VectorStore(runtime, folder, DIMENSION, hot_vectors=3)
        model: dict[int, bytes] = {}
        for turn, (step, number) in enumerate(steps):
            if step == "put":
                store.put(b"%d" % number, vector(turn))
                model[number] = kept(turn)
            elif step == "get":
                assert found(store, number) == model.get(number)
            else:
                assert store.remove(b"%d" % number) is (model.pop(number, None) is not None)
            assert store.hot <= 3
        assert [found(store, number) for number in range(10)] == [model.get(number) for number in range(10)]
        store.close()


def test_reported_bytes_are_the_kernels(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E05: 5,000 hot of 512 places and 5,000 cold, within a tenth; half evicted and all closed go back to it."""
    argv = [sys.executable, str(FILL), str(tmp_path), "10000"]
    said: dict[str, tuple[int, int]] = {}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(4):
            word, figure = process.stdout.readline().split()
            said[word] = (int(figure), status_bytes(process.pid, "RssAnon"))
            process.stdin.write("\n")
            process.stdin.flush()
    empty = said["empty"][1]
    full, cooled, closed = (said[word][1] - empty for word in ("full", "cooled", "closed"))
    publish(f"vector store: {full / 10_000:.0f} bytes a vector of 512 places, half of them hot as float16")

    assert said["full"][0] / full == pytest.approx(1.0, abs=0.1)
    assert said["cooled"][0] / cooled == pytest.approx(1.0, abs=0.15)
    assert closed < 0.25 * full
