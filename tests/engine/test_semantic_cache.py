"""Answers found again by words and by meaning: never a wrong one, and every byte of them reported."""

import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from engine.engine_process import status_bytes
from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.caches.semantic_cache import SIMILAR_FROM, SemanticCache
from membudget_engine.reduction.quantization import Int8
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 384
TAG = b"8 bytes."
FILL = Path(__file__).with_name("fill_answers.py")
EVERYTHING = FreeRequest(means=Means.EVICT, target_bytes=1 << 40)


@pytest.fixture
def cache(runtime: MemoryRuntime) -> SemanticCache:
    """Empty."""
    return SemanticCache(runtime, DIMENSION)


def _vector(seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors of different seeds stand nearly at right angles."""
    drawn = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def _at_similarity(vector: npt.NDArray[np.float32], similarity: float) -> npt.NDArray[np.float32]:
    """A unit vector with this inner product with the given one."""
    other = _vector(999_999)
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    return (similarity * vector + np.sqrt(1 - similarity**2) * other).astype(np.float32)


def test_the_same_words_are_found_whatever_their_spacing(cache: SemanticCache) -> None:
    """R-E06: an exact look-up, no vector needed."""
    cache.keep("core", TAG, 5, "open  a\tsocket", _vector(1), b"answer")

    assert cache.same_words("core", TAG, 5, " open a\nsocket ") == b"answer"
    assert cache.same_words("core", TAG, 5, "open a sockets") is None


def test_words_of_another_case_are_other_words(cache: SemanticCache) -> None:
    """R-E06: HTTPServer is two words to the embedder, httpserver one; their answers differ."""
    cache.keep("core", TAG, 5, "HTTPServer", _vector(1), b"answer")

    assert cache.same_words("core", TAG, 5, "httpserver") is None


@pytest.mark.parametrize(("similarity", "expected"), [(1.0, b"near"), (0.98, b"near"), (0.96, None), (0.0, None)])
def test_only_a_query_that_is_near_enough_gets_the_answer(
    cache: SemanticCache, similarity: float, expected: bytes | None
) -> None:
    """R-E06: answers near-identical queries."""
    assert 0.96 < SIMILAR_FROM < 0.98
    cache.keep("core", TAG, 5, "far", _vector(2), b"far")
    cache.keep("core", TAG, 5, "near", _vector(1), b"near")

    assert expected == cache.same_meaning("core", TAG, 5, _at_similarity(_vector(1), similarity))


def test_answers_belong_to_one_collection_and_one_number_of_hits(cache: SemanticCache) -> None:
    """R-E06: five hits answer no question for ten, and no collection answers for another."""
    cache.keep("core", TAG, 5, "query", _vector(1), b"answer")

    for collection, hits in (("core", 10), ("archive", 5)):
        assert cache.same_words(collection, TAG, hits, "query") is None
        assert cache.same_meaning(collection, TAG, hits, _vector(1)) is None


def test_a_vector_of_zeros_is_like_nothing_not_even_itself(cache: SemanticCache) -> None:
    """R-E06: a text without words says nothing, so it says nothing alike."""
    zeros = np.zeros(DIMENSION, dtype=np.float32)
    cache.keep("core", TAG, 5, "???", zeros, b"answer")

    assert cache.same_meaning("core", TAG, 5, zeros) is None
    assert cache.same_meaning("core", TAG, 5, _vector(1)) is None


def test_an_evicted_answer_takes_its_vector_along(cache: SemanticCache, runtime: MemoryRuntime) -> None:
    """R-E06: no vector without an answer, and every byte is given back."""
    for number in range(600):
        cache.keep("core", TAG, number % 3 + 1, str(number), _vector(number), b"answer")

    freed = runtime.free(EVERYTHING)

    assert (freed.entries, freed.owned_after_bytes) == (600, 0)
    assert [None] * 600 == [cache.same_meaning("core", TAG, n % 3 + 1, _vector(n)) for n in range(600)]


def test_a_spilled_answer_is_still_found_by_meaning(cache: SemanticCache, runtime: MemoryRuntime) -> None:
    """R-E13: loads back on access."""
    cache.keep("core", TAG, 5, "query", _vector(1), random.Random(1).randbytes(100_000))

    runtime.free(FreeRequest(means=Means.SPILL, target_bytes=1))

    assert cache.answers.spilled_bytes() > 100_000
    assert cache.same_meaning("core", TAG, 5, _vector(1)) == random.Random(1).randbytes(100_000)


def test_a_vector_that_compresses_to_its_own_length_is_found_as_any_other(runtime: MemoryRuntime) -> None:
    """R-E06: the length of what is kept tells one form from the other."""
    cache, drawn = SemanticCache(runtime, DIMENSION), np.random.default_rng(1)
    vectors = drawn.standard_normal((3_000, DIMENSION), dtype=np.float32)
    for vector in vectors:
        vector[: drawn.integers(0, 140)] = 0.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ties = [vector for vector in vectors if len(zlib.compress(Int8().encoded(vector), 1)) == DIMENSION + 4]
    assert len(ties) > 5
    for number, vector in enumerate(ties):
        cache.keep("core", TAG, 5, f"query {number}", vector, b"%d" % number)

    assert [b"%d" % n for n in range(len(ties))] == [cache.same_meaning("core", TAG, 5, each) for each in ties]


def test_sketches_of_what_is_not_served_any_more_are_left_behind(cache: SemanticCache) -> None:
    """R-E06, R-E10: each write makes another tag, and a shelf has pages of its own."""
    cache.keep("core", TAG, 5, "warm-up", _vector(1), b"answer")
    before = status_bytes(os.getpid(), "RssAnon")
    owned = cache.answers.owned_bytes()
    for number in range(2_000):
        cache.keep("core", number.to_bytes(8), 5, "query", _vector(number), b"answer")

    grown, told = status_bytes(os.getpid(), "RssAnon") - before, cache.answers.owned_bytes() - owned
    assert grown < 2 * told
    assert cache.same_meaning("core", (1_999).to_bytes(8), 5, _vector(1_999)) == b"answer"
    assert cache.same_words("core", TAG, 5, "warm-up") == b"answer"


def test_an_answer_without_room_leaves_no_vector_behind(tmp_path: Path) -> None:
    """R-E02: refused, not cached."""
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "1Mi"})) as runtime:
        cache = SemanticCache(runtime, DIMENSION)

        cache.keep("core", TAG, 5, "query", _vector(1), random.Random(1).randbytes(1024 * 1024))

    assert (cache.answers.counters.refused, cache.answers.owned_bytes()) == (1, 0)
    assert cache.same_meaning("core", TAG, 5, _vector(1)) is None


class _Asker(threading.Thread):
    """Asks random questions by their vectors until told to stop; answers name the question they belong to."""

    def __init__(self, cache: SemanticCache, vectors: list[npt.NDArray[np.float32]], seed: int) -> None:
        super().__init__()
        self.found = 0
        self.wrong: list[tuple[int, bytes]] = []
        self.error: Exception | None = None
        self.enough = threading.Event()
        self._cache = cache
        self._vectors = vectors
        self._chosen = random.Random(seed)

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self._ask(self._chosen.randrange(len(self._vectors)))
        except Exception as error:  # noqa: BLE001  looked at by the test's own thread
            self.error = error

    def _ask(self, number: int) -> None:
        answer = self._cache.same_meaning("core", TAG, 5, self._vectors[number])
        if answer == str(number).encode():
            self.found += 1
        elif answer is not None:
            self.wrong.append((number, answer))


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns 500 times as often, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_no_thread_ever_gets_the_answer_to_another_question(cache: SemanticCache, runtime: MemoryRuntime) -> None:
    """R-E06: rows move under eviction while others scan them without a lock."""
    vectors = [_vector(number) for number in range(1_500)]
    askers = [_Asker(cache, vectors, seed) for seed in range(3)]
    chosen = random.Random(0)

    for asker in askers:
        asker.start()
    for _ in range(12):
        for number in chosen.sample(range(len(vectors)), 800):
            cache.keep("core", TAG, 5, str(number), vectors[number], str(number).encode())
        runtime.free(FreeRequest(means=Means.EVICT, target_bytes=cache.answers.owned_bytes() * 3 // 4))
    for asker in askers:
        asker.enough.set()
        asker.join()

    assert [None] * 3 == [asker.error for asker in askers]
    assert [[]] * 3 == [asker.wrong for asker in askers]
    assert sum(asker.found for asker in askers) > 100


def _grown(process: subprocess.Popen[str], before: int, word: str) -> tuple[int, int]:
    """What the component reports, and by how much the process grew since `before`."""
    assert process.stdin is not None
    assert process.stdout is not None
    said, reported = process.stdout.readline().split()
    assert word == said
    return int(reported), status_bytes(process.pid, "RssAnon") - before


def test_reported_bytes_are_the_kernels_and_go_back_to_it(tmp_path: Path) -> None:
    """R-E02, R-E06: 3,000 answers of 4 kB and their vectors within a tenth; of nine tenths evicted 88 % return."""
    argv = [sys.executable, str(FILL), str(tmp_path), "3000", "4096"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        _, before = _grown(process, 0, "empty")
        process.stdin.write("\n")
        process.stdin.flush()
        full, full_grown = _grown(process, before, "full")
        process.stdin.write("\n")
        process.stdin.flush()
        evicted, evicted_grown = _grown(process, before, "evicted")
        process.stdin.write("\n")

    assert full_grown == pytest.approx(full, rel=0.1)
    assert (full_grown - evicted_grown) / (full - evicted) >= 0.88
