"""Rows of query vectors against a dict, and what the kernel holds for them."""

import os

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.engine_process import status_bytes
from membudget_engine.caches.vector_rows import VectorRows

DIMENSION = 16
KEY_BYTES = 4

MB = 1024 * 1024
ROWS = 256
"""Of 384 dimensions: 384 kB."""


def _vector(seed: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal(dimension, dtype=np.float32)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


class RowsAgainstDict(RuleBasedStateMachine):
    """Every state the rows can be brought into looks like a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = VectorRows(DIMENSION, KEY_BYTES)
        self.model: dict[bytes, npt.NDArray[np.float32]] = {}

    @rule(number=st.integers(0, 40), seed=st.integers(0, 1_000_000))
    def add_or_replace(self, number: int, seed: int) -> None:
        """One row."""
        self._add(number, seed)

    @rule(first=st.integers(0, 600), count=st.integers(1, 300))
    def add_many(self, first: int, count: int) -> None:
        """So many that blocks fill."""
        for number in range(first, first + count):
            self._add(number, number)

    @precondition(lambda self: bool(self.model))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """One row that is there."""
        self._remove(data.draw(st.sampled_from(sorted(self.model))))

    @rule(step=st.integers(1, 5), count=st.integers(1, 300))
    def remove_many(self, step: int, count: int) -> None:
        """So many that blocks empty, with holes between."""
        for key in sorted(self.model)[::step][:count]:
            self._remove(key)

    @rule()
    def remove_what_is_not_there(self) -> None:
        """Nothing happens."""
        self.rows.remove(b"none")

    @invariant()
    def as_many_rows_as_the_dict(self) -> None:
        """R-E06: length."""
        assert len(self.model) == len(self.rows)

    @invariant()
    def every_row_is_under_its_key(self) -> None:
        """R-E06: content."""
        probe = _vector(-1 % 2**32)
        for key, vector in self.model.items():
            assert np.isclose(vector @ probe, self.rows.similarity(key, probe), atol=1e-6)
        assert self.rows.similarity(b"none", probe) == -1.0

    @invariant()
    def the_best_row_is_the_best_of_the_dict(self) -> None:
        """R-E06: the scan over all blocks."""
        probe = _vector(7)
        best = self.rows.best(probe)
        if not self.model:
            assert best is None
        else:
            assert best is not None
            expected = max(float(vector @ probe) for vector in self.model.values())
            assert np.isclose(expected, float(self.model[best] @ probe), atol=1e-6)

    def _add(self, number: int, seed: int) -> None:
        key = number.to_bytes(KEY_BYTES)
        self.model[key] = _vector(seed)
        self.rows.add(key, self.model[key])

    def _remove(self, key: bytes) -> None:
        del self.model[key]
        self.rows.remove(key)


TestRowsAgainstDict = RowsAgainstDict.TestCase
TestRowsAgainstDict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_pages_behind_the_last_row_go_back_to_the_kernel() -> None:
    """R-E06: 40 shelves that were nearly a block each hold one row each: pages of dropped rows are not kept."""
    shelves = [VectorRows(384, KEY_BYTES) for _ in range(40)]
    vector = _vector(1, 384)
    before = status_bytes(os.getpid(), "RssAnon")
    for shelf in shelves:
        for number in range(ROWS - 1):
            shelf.add(number.to_bytes(KEY_BYTES), vector)
    full = status_bytes(os.getpid(), "RssAnon") - before
    for shelf in shelves:
        for number in range(ROWS - 2):
            shelf.remove(number.to_bytes(KEY_BYTES))

    left = status_bytes(os.getpid(), "RssAnon") - before

    assert full > 14 * MB
    assert left < 3 * MB
    assert [1] * 40 == [len(shelf) for shelf in shelves]
