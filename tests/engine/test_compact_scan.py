"""Which lists of a compact index are scanned, beside FAISS's own choice, and how far a margin reaches."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import faiss
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.compact_folder import make_compact_folder
from membudget_engine.embedder import Vectors
from membudget_engine.index.compact_codes import map_codes, read_codes
from membudget_engine.index.compact_probing import enough, probe_steps
from membudget_engine.index.compact_scan import NEAREST, QUERY_BITS, CodeScan, Probing, margin_of
from membudget_engine.index.manifest import CODES_FILE

LIKENESS = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1, 1, width=32), unique=True)


@given(st.integers(1, 1_000))
def test_probes_are_tried_in_steps_small_enough_to_stop_near_the_recall_wanted(nlist: int) -> None:
    """R-E01: a query pays for what the last step was too wide."""
    steps = probe_steps(nlist)
    assert (-(-nlist // 32), nlist) == (steps[0], steps[-1])
    few = [step for step in steps if step <= -(-nlist // 8)]
    assert all(wider <= narrower * 7 / 6 + 1 for narrower, wider in pairwise(few))


@given(LIKENESS, st.floats(-2, 2), st.integers(1, 60), st.floats(0.1, 10))
def test_lists_within_the_margin_are_scanned_best_first_the_nearest_always_and_no_more_than_the_most(
    likeness: Vectors, margin: float, most: int, length: float
) -> None:
    """R-E01: a query between clusters has many lists about as near as the nearest, one inside of a cluster few."""
    best = sorted(range(len(likeness)), key=likeness.__getitem__, reverse=True)
    near = likeness[best[:NEAREST]].astype(np.float64)
    least = near.mean() - margin * length
    expected = [best[0], *(one for one in best[1:] if likeness[one] >= least)][:most]

    assert expected == Probing(most, margin).lists(likeness, length).tolist()
    assert best[:most] == Probing(most, None).lists(likeness, length).tolist()


def test_no_list_is_near_to_a_query_that_is_no_number() -> None:
    """R-E01: unknown chooses nothing."""
    nothing = np.full(20, np.nan, dtype=np.float32)
    assert Probing(5, 0.1).lists(nothing, float("nan")).tolist() == []


@given(st.integers(1, 40), st.integers(1, 50), st.data())
def test_a_margin_gives_queries_so_many_lists_in_all(queries: int, nlist: int, data: st.DataObject) -> None:
    """R-E01: that is how a builder widens the look step by step."""
    generator = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    lengths = generator.uniform(0.5, 2, queries).astype(np.float32)
    likeness = generator.standard_normal((queries, nlist)).astype(np.float32)
    wanted = data.draw(st.integers(1, nlist * queries))
    probing = Probing(nlist, margin_of(likeness, lengths, wanted) + 1e-6)

    scanned = [
        len(probing.lists(one, length)) for one, length in zip(likeness, lengths.astype(float).tolist(), strict=True)
    ]

    # The nearest list is scanned even where it lies beyond the margin.
    assert wanted <= sum(scanned) <= wanted + queries + 1


def test_rows_of_zeros_have_a_margin_too() -> None:
    """R-E01: a text without a word has such a vector."""
    assert margin_of(np.zeros((3, 20), dtype=np.float32), np.zeros(3, dtype=np.float32), 5) == 0.0


@given(st.integers(1, 400), st.integers(2, 1_000))
def test_the_narrowest_look_that_finds_enough_is_met_to_an_eighth_of_a_step(queries: int, nlist: int) -> None:
    """R-E01: what is scanned beyond it is scanned by every query."""
    steps = [step * queries for step in probe_steps(nlist)]
    for needed in (steps[0], (steps[0] + steps[-1]) // 2, steps[-1], steps[-1] + 1):
        probing, reached = enough(
            lambda scanned, needed=needed: (Probing(scanned, None), 0.96 * (scanned >= needed)), steps
        )
        wider = min((step for step in steps if step >= needed), default=steps[-1])
        narrower = max((step for step in steps if step < needed), default=wider)
        assert min(needed, steps[-1]) <= probing.most <= min(needed, wider) + max(1, -(-(wider - narrower) // 8))
        assert (reached > 0.95) == (needed <= steps[-1])


@pytest.mark.parametrize("bits", [1, 2])
def test_without_a_margin_the_answer_is_that_of_faiss_for_so_many_lists(tmp_path: Path, bits: int) -> None:
    """R-E01: so indexes that were built before there was a margin answer as they did."""
    folder = make_compact_folder(tmp_path / "index", 3_000, 64)
    manifest = msgspec.structs.replace(folder.manifest, nprobe=5, probe_margin=None)
    codes = read_codes(folder.directory / CODES_FILE, manifest)
    owner, lists = map_codes(folder.directory / CODES_FILE)
    rotated = np.ascontiguousarray(folder.queries[:40] @ codes.rotation.T)
    of_faiss = faiss.IVFRaBitQSearchParameters(nprobe=5, qb=QUERY_BITS[bits], centered=True)
    own = CodeScan(lists, codes.scan.centroids, Probing(5, None), bits)

    scores, ids = lists.search(rotated, 30, params=of_faiss)

    for query, its_scores, its_ids in zip(rotated, scores, ids, strict=True):
        found_scores, found_ids = own.first(query, 30)
        assert its_ids.tolist() == found_ids.tolist()
        np.testing.assert_allclose(its_scores, found_scores, rtol=1e-5)
    del owner
