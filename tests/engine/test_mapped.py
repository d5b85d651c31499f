"""The mapped index on real FAISS files: same answers as loaded, no anonymous memory, pages that come and go."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import faiss
import msgspec
import numpy as np
import pytest

from membudget_engine.embedder import HashingEmbedder, Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE, VECTORS_FILE, Manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index.page_advice import PAGE_BYTES
from page_cache import pages_in_memory


def _opened(generation: Generation) -> MappedIndex:
    return MappedIndex.open(generation.directory, generation.manifest)


@pytest.fixture(params=["flat_generation", "listed_generation"])
def generation(request: pytest.FixtureRequest) -> Generation:
    """One of each type."""
    return request.getfixturevalue(str(request.param))


@pytest.fixture
def index(generation: Generation) -> Iterator[MappedIndex]:
    """Opened, and closed in the end."""
    index = _opened(generation)
    yield index
    index.close()


@pytest.fixture(scope="session")
def queries() -> Vectors:
    """20 questions."""
    return HashingEmbedder().embed([f"compress archive rotate {number}" for number in range(20)])


def test_answers_are_those_of_the_loaded_index(generation: Generation, index: MappedIndex, queries: Vectors) -> None:
    """R-E01: mapping and explicit probing change no result."""
    loaded = faiss.read_index(str(generation.directory / INDEX_FILE))

    expected_scores, expected_ids = loaded.search(queries, 10)
    scores, ids = index.search(queries, 10)

    np.testing.assert_array_equal(expected_ids, ids)
    np.testing.assert_array_equal(expected_scores, scores)


def test_most_of_the_true_neighbours_are_found(listed_generation: Generation) -> None:
    """R-E01: nprobe = max(1, min(10, nlist/10))."""
    vectors = np.fromfile(listed_generation.directory / VECTORS_FILE, dtype=np.float32).reshape(-1, 384)
    sample = vectors[::525]
    true_neighbours = np.argsort(-(sample @ vectors.T), axis=1)[:, :10]
    index = _opened(listed_generation)

    _, ids = index.search(np.ascontiguousarray(sample), 10)
    index.close()

    found = sum(len(set(true) & set(got)) for true, got in zip(true_neighbours.tolist(), ids.tolist(), strict=True))
    assert found / true_neighbours.size > 0.7


def test_k_is_bounded_by_the_number_of_vectors(flat_generation: Generation, queries: Vectors) -> None:
    """R-E01: a huge k must not allocate a huge answer."""
    index = _opened(flat_generation)

    scores, ids = index.search(queries[:1], 1_000_000_000)
    index.close()

    assert (scores.shape, ids.shape) == ((1, 2_000), (1, 2_000))


@pytest.mark.parametrize(
    ("vectors", "k"),
    [
        (np.zeros(384, dtype=np.float32), 1),
        (np.zeros((1, 383), dtype=np.float32), 1),
        (np.zeros((1, 384), dtype=np.float64), 1),
        (np.zeros((1, 384), dtype=np.float32), 0),
    ],
)
def test_a_wrong_query_is_refused(flat_generation: Generation, vectors: Vectors, k: int) -> None:
    """R-E01: FAISS would answer with a bare assertion."""
    index = _opened(flat_generation)

    with pytest.raises(QueryInvalid, match="384"):
        index.search(vectors, k)
    index.close()


def test_a_query_with_nan_or_none_at_all_is_survived(index: MappedIndex) -> None:
    """R-E01: the quantizer then names no list, as -1."""
    assert index.search(np.full((1, 384), np.nan, dtype=np.float32), 3)[1].shape == (1, 3)
    assert index.search(np.zeros((0, 384), dtype=np.float32), 3)[1].shape == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 10_499},
        {"dimension": 383},
        {"nlist": 101},
        {"nprobe": 9},
        {"index_type": "Flat", "nlist": 0, "nprobe": 0},
    ],
)
def test_an_index_that_differs_from_its_manifest_is_refused(
    listed_generation: Generation, change: dict[str, object]
) -> None:
    """R-E01: checks type, dimension and count."""
    manifest: Manifest = msgspec.structs.replace(listed_generation.manifest, **change)

    with pytest.raises(IndexInvalid, match=INDEX_FILE):
        MappedIndex.open(listed_generation.directory, manifest)


@pytest.mark.parametrize("damage", [b"IxF2", b"IHNf", b""])
def test_other_index_types_are_refused_before_faiss_reads_them(
    tmp_path: Path, flat_generation: Generation, damage: bytes
) -> None:
    """R-E01: an allow-list of index types."""
    content = (flat_generation.directory / INDEX_FILE).read_bytes()
    (tmp_path / INDEX_FILE).write_bytes(damage + content[4:] if damage else b"")

    with pytest.raises(IndexInvalid, match="begins with"):
        MappedIndex.open(tmp_path, flat_generation.manifest)


@pytest.mark.parametrize("size", [10, 30, 40, 5_000])
def test_a_cut_index_is_refused(tmp_path: Path, generation: Generation, size: int) -> None:
    """R-E01: a cut file must not be mapped, its missing pages would be SIGBUS; of 30 bytes FAISS itself is SIGSEGV."""
    (tmp_path / INDEX_FILE).write_bytes((generation.directory / INDEX_FILE).read_bytes()[:size])

    with pytest.raises(IndexInvalid, match="too early"):
        MappedIndex.open(tmp_path, generation.manifest)


def test_calls_that_would_kill_the_process_cannot_be_reached(index: MappedIndex) -> None:
    """R-E01: on a mapped index add and reset abort, remove_ids is a segmentation fault."""
    public = {name for name in dir(index) if not name.startswith("_")}

    assert {"close", "is_file_backed", "mapped_bytes", "open", "page_out", "resident_bytes", "search", "warm"} == public


def test_warm_makes_everything_resident_and_page_out_takes_what_was_asked(index: MappedIndex) -> None:
    """R-E01: a gauge that proves the mapping from the kernel's figures."""
    index.warm()
    full = index.resident_bytes()
    assert index.mapped_bytes() == full

    gone = index.page_out(1_000_000)

    assert gone >= 1_000_000
    assert full - gone == index.resident_bytes() > 0
    assert index.page_out(0) == 0


def test_pages_given_back_leave_the_page_cache_too_and_no_others_do(listed_generation: Generation) -> None:
    """R-E01: bytes that only left the page table still count into the cgroup; those beside them are still in use."""
    index = _opened(listed_generation)
    index.warm()
    before = pages_in_memory(listed_generation.directory / INDEX_FILE)
    index.page_out(3_000_000)
    left = before & ~pages_in_memory(listed_generation.directory / INDEX_FILE)
    index.close()

    # Whole lists go: the last may hold some more than was asked for.
    assert 3_000_000 <= left.sum() * PAGE_BYTES < 3_500_000


def test_page_out_of_everything_leaves_only_centroids_and_answers_stay(index: MappedIndex, queries: Vectors) -> None:
    """R-E01: given back pages are read again when they are needed."""
    expected = index.search(queries, 10)
    index.warm()

    index.page_out(index.mapped_bytes())

    assert index.resident_bytes() < 300_000
    for before, after in zip(expected, index.search(queries, 10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_lists_that_queries_use_stay_when_colder_ones_go(listed_generation: Generation, queries: Vectors) -> None:
    """R-E01: page-out takes the coldest part."""
    index = _opened(listed_generation)
    index.search(queries[:1], 10)
    index.warm()
    index.page_out(index.resident_bytes() - 3_000_000)
    kept = index.resident_bytes()

    index.search(queries[:1], 10)
    grown_by_used_lists = index.resident_bytes() - kept
    index.search(-queries[:1], 10)
    grown_by_others = index.resident_bytes() - kept - grown_by_used_lists
    index.close()

    # Of the ten used lists no page has gone, though some were unmapped with their folio; of the other ten nearly all.
    assert grown_by_used_lists < 400_000
    assert grown_by_others > 500_000


def test_concurrent_queries_and_page_outs_give_right_answers(index: MappedIndex, queries: Vectors) -> None:
    """R-E01: every method may be called from any thread."""
    expected = index.search(queries, 10)[1]
    wrong: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        for turn in range(30):
            if not np.array_equal(expected, index.search(queries, 10)[1]):
                wrong.append(turn)  # noqa: PERF401 - an answer is compared in each turn

    def give_back() -> None:
        while not stop.is_set():
            index.page_out(2_000_000)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    giver = threading.Thread(target=give_back)
    for thread in (*askers, giver):
        thread.start()
    for thread in askers:
        thread.join()
    stop.set()
    giver.join()

    assert wrong == []


def test_a_closed_index_is_unmapped_and_refuses(generation: Generation, queries: Vectors) -> None:
    """R-E01: a reload leaves no mapping behind."""
    index = _opened(generation)
    assert str(generation.directory) in Path("/proc/self/maps").read_text()
    index.close()
    index.close()

    assert str(generation.directory) not in Path("/proc/self/maps").read_text()
    for call in (lambda: index.search(queries, 1), index.resident_bytes, index.warm, lambda: index.page_out(1)):
        with pytest.raises(IndexClosed, match=INDEX_FILE):
            call()


_ANONYMOUS = """
import sys, pathlib, re, faiss, numpy
from membudget_engine.index.manifest import read_manifest
from membudget_engine.index.mapped import MappedIndex

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+([0-9]+)", pathlib.Path("/proc/self/status").read_text())[1])

directory = pathlib.Path(sys.argv[1])
manifest = read_manifest(directory)
queries = numpy.random.default_rng(0).standard_normal((50, manifest.dimension), dtype=numpy.float32)
faiss.omp_set_num_threads(1)
small = faiss.IndexFlatIP(manifest.dimension)
small.add(queries)
small.search(queries, 10)
before = anonymous()
index = MappedIndex.open(directory, manifest)
index.search(queries, 10)
index.warm()
mapped = anonymous() - before
resident = index.resident_bytes()
index.close()
before = anonymous()
loaded = faiss.read_index(str(directory / "index.faiss"))
print(mapped, anonymous() - before, resident)
"""


def test_a_mapped_index_takes_under_two_megabytes_of_anonymous_memory(generation: Generation) -> None:
    """R-E01: 70-90 % less anonymous memory than the loaded index, by the kernel's figure: tracemalloc sees neither."""
    run = subprocess.run(
        [sys.executable, "-c", _ANONYMOUS, str(generation.directory)], capture_output=True, check=True, text=True
    )
    mapped, loaded, resident = (int(figure) for figure in run.stdout.split())

    size = generation.manifest.files[INDEX_FILE].bytes
    assert mapped < 2_000_000
    assert loaded > 0.9 * size
    assert resident >= size


_STRANGER = """
import ctypes, os, sys, pathlib
from membudget_engine.index.manifest import read_manifest
from membudget_engine.index.mapped import MappedIndex

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
# A process that changed its uid may not read its own pagemap until it says that it has nothing to hide.
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
directory = pathlib.Path(sys.argv[1])
index = MappedIndex.open(directory, read_manifest(directory))
index.warm()
before = index.resident_bytes()
gone = index.page_out(1_000_000)
print(os.getuid(), before, gone, index.resident_bytes())
"""


@pytest.fixture
def public_copy(generation: Generation) -> Iterator[Path]:
    """The generation in a folder that everybody may read and only root may write."""
    if os.getuid() != 0:
        missing = "needs root: a file must belong to another user than its reader"
        if os.environ.get("REQUIRE_CGROUP"):
            pytest.fail(missing)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = shutil.copytree(generation.directory, Path(folder, "generation"))
        # Dirty pages do not leave the page cache; the builder has synced its files as well.
        subprocess.run(["sync", str(copy / INDEX_FILE)], check=True)
        yield copy


def test_pages_of_a_file_that_the_process_does_not_own_are_given_back_too(public_copy: Path) -> None:
    """R-E01: there MADV_PAGEOUT returns 0 and does nothing, so the page table is asked, not the return code."""
    run = subprocess.run(
        [sys.executable, "-c", _STRANGER, str(public_copy)], capture_output=True, check=False, text=True
    )
    assert run.stderr == ""
    uid, before, gone, after = (int(figure) for figure in run.stdout.split())

    assert uid == 65534
    assert 1_000_000 <= gone < 2_000_000
    assert before - gone == after
    left = pages_in_memory(public_copy / INDEX_FILE).sum() * PAGE_BYTES
    assert left <= before - 1_000_000


def test_opening_leaves_the_limits_of_faiss_as_they_were(flat_generation: Generation) -> None:
    """R-E01: they belong to the process; a small index must not bound whoever reads a larger one next."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()

    _opened(flat_generation).close()

    assert before == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())
