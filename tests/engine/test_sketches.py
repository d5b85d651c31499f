"""Sketches of query vectors against a dict: near ones are found, nearest first; and what the kernel holds for them."""

import os
import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.engine_process import status_bytes
from membudget_engine.caches.semantic_cache import SIMILAR_FROM
from membudget_engine.caches.sketches import MOST_NEAR, Sketches
from membudget_engine.embedder import HashingEmbedder

DIMENSION = 16
KEY_BYTES = 4

MB = 1024 * 1024
WORDS = 1_000
ROWS = 6_000
"""16 bytes and a key each: 120 kB."""


def _vector(seed: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal(dimension, dtype=np.float32)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


class SketchesAgainstDict(RuleBasedStateMachine):
    """Every state the sketches can be brought into looks like a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.sketches = Sketches(DIMENSION, KEY_BYTES)
        self.model: dict[bytes, npt.NDArray[np.float32]] = {}

    @rule(number=st.integers(0, 40), seed=st.integers(0, 1_000_000))
    def add_or_replace(self, number: int, seed: int) -> None:
        """One vector."""
        self._add(number, seed)

    @rule(first=st.integers(0, 600), count=st.integers(1, 300))
    def add_many(self, first: int, count: int) -> None:
        """So many that pages fill."""
        for number in range(first, first + count):
            self._add(number, number)

    @precondition(lambda self: bool(self.model))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """One vector that is there."""
        self._remove(data.draw(st.sampled_from(sorted(self.model))))

    @rule(step=st.integers(1, 5), count=st.integers(1, 300))
    def remove_many(self, step: int, count: int) -> None:
        """With holes between."""
        for key in sorted(self.model)[::step][:count]:
            self._remove(key)

    @rule()
    def remove_what_is_not_there(self) -> None:
        """Nothing happens."""
        self.sketches.remove(b"none")

    @invariant()
    def as_many_as_the_dict(self) -> None:
        """R-E06: length."""
        assert len(self.model) == len(self.sketches)

    @invariant()
    def each_vector_finds_itself(self) -> None:
        """R-E06: unless as many others as are looked at are as near."""
        for key in sorted(self.model)[:: max(1, len(self.model) // 20)]:
            near = self.sketches.near(self.model[key])
            assert key in near or len(near) == MOST_NEAR
            assert set(near) <= set(self.model)

    def _add(self, number: int, seed: int) -> None:
        key = number.to_bytes(KEY_BYTES)
        self.model[key] = _vector(seed)
        self.sketches.add(key, self.model[key])

    def _remove(self, key: bytes) -> None:
        del self.model[key]
        self.sketches.remove(key)


TestSketchesAgainstDict = SketchesAgainstDict.TestCase
TestSketchesAgainstDict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@given(
    dimension=st.integers(2, 500),
    seed=st.integers(0, 1_000_000),
    places=st.integers(1, 500),
    size=st.floats(0.1, 10.0),
)
@settings(deadline=None)
def test_a_vector_as_near_as_the_same_question_is_found_whatever_its_shape(
    dimension: int, seed: int, places: int, size: float
) -> None:
    """R-E06: sparse or full, of any number of places, of any length; once in a million it is not."""
    vector = _vector(seed, dimension)
    vector[places:] = 0.0
    vector /= np.linalg.norm(vector)
    other = _vector(seed + 1, dimension)
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    probe = (size * (0.98 * vector + np.sqrt(1 - 0.98**2) * other)).astype(np.float32)
    sketches = Sketches(dimension, KEY_BYTES)
    sketches.add(b"near", vector)
    sketches.add(b"away", -vector)

    assert sketches.near(probe) == [b"near"]


def test_of_many_questions_few_are_looked_at_and_no_similar_one_is_passed_over(publish: Callable[[str], None]) -> None:
    """R-E06: of 3,000 questions of a few words each, those with an inner product of 0.97 and few others."""
    drawn = random.Random(5)
    questions = [" ".join(f"word{drawn.randrange(WORDS)}" for _ in range(drawn.randint(2, 8))) for _ in range(3_000)]
    vectors = HashingEmbedder().embed(questions)
    sketches = Sketches(vectors.shape[1], KEY_BYTES)
    for number, vector in enumerate(vectors):
        sketches.add(number.to_bytes(KEY_BYTES), vector)

    besides = 0
    for number in range(0, len(vectors), 10):
        near = {int.from_bytes(key) for key in sketches.near(vectors[number])}
        similar = {*np.flatnonzero(vectors @ vectors[number] >= SIMILAR_FROM).tolist()}
        assert similar <= near or len(near) == MOST_NEAR
        besides += len(near - similar)

    asked = len(vectors) // 10
    publish(f"of 3,000 vectors of short questions {besides / asked:.2f} are looked at in vain for each look-up")
    assert besides < 4 * asked


def test_pages_behind_the_last_row_go_back_to_the_kernel() -> None:
    """R-E06: 40 shelves of thousands of sketches hold one each: pages of dropped ones are not kept."""
    shelves = [Sketches(384, KEY_BYTES) for _ in range(40)]
    vector = _vector(1, 384)
    for shelf in shelves:
        shelf.add(b"warm", vector)
    before = status_bytes(os.getpid(), "RssAnon")
    for shelf in shelves:
        for number in range(ROWS):
            shelf.add(number.to_bytes(KEY_BYTES), vector)
    full = status_bytes(os.getpid(), "RssAnon") - before
    for shelf in shelves:
        for number in range(ROWS):
            shelf.remove(number.to_bytes(KEY_BYTES))

    left = status_bytes(os.getpid(), "RssAnon") - before

    assert full > 4 * MB
    assert left < MB
    assert [1] * 40 == [len(shelf) for shelf in shelves]


@pytest.mark.parametrize("held", [0, 1, 3])
def test_of_a_few_sketches_all_that_are_near_come_nearest_first(held: int) -> None:
    """R-E06: the nearest is the vector itself."""
    sketches, vector, noise = Sketches(384, KEY_BYTES), _vector(1, 384), _vector(2, 384)
    for number in range(held):
        sketches.add(number.to_bytes(KEY_BYTES), (vector + 0.1 * number * noise).astype(np.float32))

    assert sketches.near(vector) == [number.to_bytes(KEY_BYTES) for number in range(held)]
