"""The compact index on real files: what it finds, what it refuses, what it costs, and pages that come and go."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import faiss
import msgspec
import numpy as np
import pytest

from engine.compact_folder import CompactFolder, entries, make_compact_folder
from membudget_engine.build_command import build_sources
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_generation
from membudget_engine.embedder import HashingEmbedder, Vectors
from membudget_engine.errors import BuildFailed, IndexClosed, IndexInvalid, ManifestInvalid, QueryInvalid
from membudget_engine.index.build import build_collection
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.compact_codes import read_codes
from membudget_engine.index.generations import find_newest_generation, generation_directory
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.manifest import (
    CODES_FILE,
    ORDER_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    Manifest,
    read_manifest,
    write_manifest,
)
from membudget_engine.index.recall import recall
from membudget_engine.index_component import IndexComponent
from membudget_engine.ingest.chunk import Chunk
from page_cache import pages_in_memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CompactFolder:
    """20,000 vectors of 128: 1 MB of codes, 5 MB of rows, 141 lists."""
    return make_compact_folder(tmp_path_factory.mktemp("compact") / "generation-00000001", 20_000, 128)


@pytest.fixture
def index(folder: CompactFolder) -> Iterator[CompactIndex]:
    """Opened, and closed in the end."""
    index = CompactIndex.open(folder.directory, folder.manifest)
    yield index
    index.close()


@pytest.fixture
def copy(folder: CompactFolder, tmp_path: Path) -> Path:
    """A folder to damage, of a collection that has a second generation just as good."""
    for number in (1, 2):
        directory = shutil.copytree(folder.directory, generation_directory(tmp_path, number))
        write_manifest(directory, msgspec.structs.replace(folder.manifest, generation=number))
    return generation_directory(tmp_path, 2)


def test_the_true_neighbours_are_found_as_the_builder_reported(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E04: recall is measured at build; queries that are no rows of the collection get nearly the same."""
    _, rows = index.search(folder.queries, 10)

    assert folder.manifest.recall is not None
    assert folder.manifest.recall >= 0.955
    assert recall(rows, folder.neighbours(10)) > 0.94


def test_scores_are_those_of_the_rows_rounded_to_float16(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E01: codes choose, they do not score; best first, no row twice."""
    scores, rows = index.search(folder.queries, 10)

    rounded = folder.vectors.astype(np.float16).astype(np.float32)
    expected = np.einsum("qd,qkd->qk", folder.queries, rounded[rows])
    np.testing.assert_allclose(expected, scores, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(one)) == 10 for one in rows.tolist())


def test_a_row_finds_itself_and_so_does_every_query_alone(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E01: positions in the file lead back to the collection's own rows; a batch changes no answer."""
    picked = np.arange(0, 20_000, 97)

    _, rows = index.search(np.ascontiguousarray(folder.vectors[picked]), 1)
    alone = np.concatenate([index.search(folder.vectors[row : row + 1], 1)[1] for row in picked.tolist()])

    assert (rows[:, 0] == picked).mean() > 0.99
    np.testing.assert_array_equal(rows, alone)


def test_all_probes_and_all_rows_are_an_exact_search(folder: CompactFolder) -> None:
    """R-E01: nothing is lost but what the figures of the manifest leave out, and the float16."""
    manifest = msgspec.structs.replace(folder.manifest, nprobe=folder.manifest.nlist, probe_margin=None, rerank=20_000)
    index = CompactIndex.open(folder.directory, manifest)

    _, rows = index.search(folder.queries[:50], 10)
    index.close()

    assert recall(rows, folder.neighbours(10)[:50]) > 0.995


def test_rows_of_a_list_lie_in_the_order_of_their_likeness_to_its_centroid(folder: CompactFolder) -> None:
    """R-E01: those are the candidates of most queries, so their pages stay cached."""
    codes = read_codes(folder.directory / CODES_FILE, folder.manifest)
    order = np.fromfile(folder.directory / ORDER_FILE, dtype=np.int32)
    rotated = folder.vectors[order] @ codes.rotation.T

    for centroid, (begin, end) in zip(codes.scan.centroids, pairwise(codes.first.tolist()), strict=True):
        assert (np.diff(rotated[begin:end] @ centroid) < 1e-5).all()


def test_centroids_are_multiplied_where_they_lie(folder: CompactFolder) -> None:
    """R-E01: of centroids between two borders numpy makes a copy, for every query anew."""
    scan = read_codes(folder.directory / CODES_FILE, folder.manifest).scan

    assert scan.centroids.ctypes.data % 64 == 0
    assert scan.centroids.base is not None
    assert folder.manifest.nlist == len(scan.centroids)


@pytest.mark.parametrize("count", [1, 5, 63, 64, 700])
def test_few_vectors_make_a_compact_index_too(tmp_path: Path, count: int) -> None:
    """R-E01: k is bounded by their number, and each is found."""
    small = make_compact_folder(tmp_path / "few", count, 20)
    index = CompactIndex.open(small.directory, small.manifest)

    _, rows = index.search(small.vectors, 1_000)
    index.close()

    assert rows.shape == (count, count)
    assert (rows[:, 0] == np.arange(count)).mean() > 0.9


@pytest.mark.parametrize(
    ("vectors", "k"),
    [
        (np.zeros(128, dtype=np.float32), 1),
        (np.zeros((1, 127), dtype=np.float32), 1),
        (np.zeros((1, 128), dtype=np.float64), 1),
        (np.zeros((1, 128), dtype=np.float32), 0),
    ],
)
def test_a_wrong_query_is_refused(index: CompactIndex, vectors: Vectors, k: int) -> None:
    """R-E01: FAISS would answer with a bare assertion."""
    with pytest.raises(QueryInvalid, match="128"):
        index.search(vectors, k)


def test_a_query_with_nan_or_none_at_all_is_survived(index: CompactIndex) -> None:
    """R-E01: no list is nearest then."""
    assert index.search(np.full((1, 128), np.nan, dtype=np.float32), 3)[1].shape == (1, 3)
    assert index.search(np.zeros((0, 128), dtype=np.float32), 3)[1].shape == (0, 3)


@pytest.mark.parametrize("name", [CODES_FILE, ROWS_FILE, ORDER_FILE])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "longer"])
def test_a_torn_file_is_refused_and_the_last_good_generation_is_found(copy: Path, name: str, damage: str) -> None:
    """R-E01: checksums of every file are in the manifest."""
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        changed = {"cut": content[:-1], "flipped": content, "longer": file.read_bytes() + b"\0"}[damage]
        file.write_bytes(changed)

    search = find_newest_generation(copy.parent)

    assert search.found is not None
    assert search.found.manifest.generation == 1
    assert [copy] == [skipped.directory for skipped in search.skipped]
    assert name in search.skipped[0].reason


@pytest.mark.parametrize(
    "change",
    [
        {"representation": "Exact"},
        {"index_type": "IVFFlat"},
        {"code_bits": 0},
        {"rerank": 0},
        {"representation": "Exact", "index_type": "IVFFlat", "code_bits": 0, "rerank": 0},
        {"nprobe": 0},
        {"nlist": 20_001, "nprobe": 20_001},
        {"files": {}},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(copy: Path, change: dict[str, object]) -> None:
    """R-E01: representation, type, bits and files belong together."""
    write_manifest(copy, msgspec.structs.replace(read_manifest(copy), **change))

    with pytest.raises(ManifestInvalid):
        read_manifest(copy)
    assert find_newest_generation(copy.parent).found is not None


@pytest.mark.parametrize(
    "change",
    [{"count": 19_999}, {"dimension": 120}, {"nlist": 140}, {"code_bits": 1}, {"count": 20_001}],
)
def test_an_index_that_differs_from_its_manifest_is_refused(folder: CompactFolder, change: dict[str, object]) -> None:
    """R-E01: type, dimension, count, lists and bits are compared."""
    manifest: Manifest = msgspec.structs.replace(folder.manifest, **change)

    with pytest.raises(IndexInvalid, match=CODES_FILE):
        CompactIndex.open(folder.directory, manifest)


def _foreign(file: Path) -> None:
    faiss.write_index(faiss.IndexFlatIP(128), str(file))


def _wrapped_flat(file: Path) -> None:
    rotation = faiss.RandomRotationMatrix(128, 128)
    rotation.init(1)
    faiss.write_index(faiss.IndexPreTransform(rotation, faiss.IndexFlatIP(128)), str(file))


def _shifted_ids(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # The ids of the last list are the last bytes of the file: one of them now points far beyond the rows.
    content[-8:] = (2**40).to_bytes(8, "little")
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5_000])


def _no_number(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # Before 20,000 codes with their ids come the sizes of 141 lists, before those 72 kB of centroids.
    middle = len(content) - 20_000 * (2 * 16 + 20 + 8) - 141 * 8 - 36_000
    content[middle : middle + 8] = b"\xff" * 8
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [_foreign, _wrapped_flat, _shifted_ids, _cut, _no_number])
def test_hostile_codes_with_a_right_checksum_are_refused(copy: Path, damage: Callable[[Path], None]) -> None:
    """R-E01: a manifest only says that the files are those somebody meant."""
    damage(copy / CODES_FILE)
    manifest = msgspec.structs.replace(read_manifest(copy), files=entries(copy))

    with pytest.raises(IndexInvalid, match=CODES_FILE):
        CompactIndex.open(copy, manifest)


@pytest.mark.parametrize("order", [[0, 0], [-1, 1], [1, 2], [0], [0, 1, 2]])
def test_an_order_that_is_not_every_row_once_is_refused(copy: Path, order: list[int]) -> None:
    """R-E01: it would answer with rows that the store does not have, or with one twice."""
    rows = np.fromfile(copy / ORDER_FILE, dtype=np.int32)
    np.concatenate((np.array(order, dtype=np.int32), rows[rows > 1])).tofile(copy / ORDER_FILE)

    with pytest.raises(IndexInvalid, match=ORDER_FILE):
        CompactIndex.open(copy, read_manifest(copy))


def test_page_out_takes_rows_of_cold_lists_and_answers_stay(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E01: rows go as the lists of the exact index do, out of the page cache too."""
    expected = index.search(folder.queries, 10)
    index.warm()
    full = index.resident_bytes()
    assert full == index.mapped_bytes()
    assert index.is_file_backed()

    gone = index.page_out(2_000_000)

    assert gone >= 2_000_000
    assert index.resident_bytes() == full - gone
    index.warm()
    index.page_out(full)
    assert index.resident_bytes() < 20_000
    assert np.count_nonzero(pages_in_memory(folder.directory / ROWS_FILE)) < 5
    for before, after in zip(expected, index.search(folder.queries, 10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_lists_that_queries_use_stay_when_colder_ones_go(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E01: the coldest part goes first."""
    index.search(folder.queries[:1], 10)
    index.warm()
    index.page_out(index.mapped_bytes() - 1_500_000)
    kept = index.resident_bytes()

    index.search(folder.queries[:1], 10)

    # Pages at the border of a list that has gone may have gone with it.
    assert index.resident_bytes() - kept <= 5 * 4096


def test_concurrent_queries_and_page_outs_give_right_answers(folder: CompactFolder, index: CompactIndex) -> None:
    """R-E01: every method may be called from any thread."""
    expected = index.search(folder.queries, 10)[1]
    wrong: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        for turn in range(10):
            if not np.array_equal(expected, index.search(folder.queries, 10)[1]):
                wrong.append(turn)  # noqa: PERF401 - an answer is compared in each turn

    def give_back() -> None:
        while not stop.is_set():
            index.page_out(1_000_000)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    giver = threading.Thread(target=give_back)
    for thread in (*askers, giver):
        thread.start()
    for thread in askers:
        thread.join()
    stop.set()
    giver.join()

    assert wrong == []


def test_a_closed_index_is_unmapped_and_refuses(folder: CompactFolder) -> None:
    """R-E01: a reload leaves no mapping and no descriptor behind."""
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    index = CompactIndex.open(folder.directory, folder.manifest)
    assert str(folder.directory / ROWS_FILE) in Path("/proc/self/maps").read_text()
    index.close()
    index.close()

    assert str(folder.directory / ROWS_FILE) not in Path("/proc/self/maps").read_text()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    for call in (lambda: index.search(folder.queries, 1), index.resident_bytes, index.warm, lambda: index.page_out(1)):
        with pytest.raises(IndexClosed):
            call()


@dataclass(frozen=True)
class _Rows:
    """An embedder that gives rows made beforehand, for chunks in their order."""

    vectors: Vectors
    name: str = "rows"
    worth_keeping: bool = False

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]

    def embed(self, texts: object) -> Vectors:
        """All of them at once."""
        assert texts
        return self.vectors


def test_a_collection_is_built_published_and_served_compact(
    tmp_path: Path, make_chunks: Callable[[int], list[Chunk]]
) -> None:
    """R-E01: chosen for each collection at build, named in the manifest with recall and the checksum of every file."""
    embedder = HashingEmbedder()
    generation = build_collection(
        collection="sample", chunks=make_chunks(2_000), embedder=embedder, target=tmp_path, threads=1,
        progress=lambda _: None, representation="Compact",
    )  # fmt: skip
    found = find_newest_generation(tmp_path).found

    assert found == generation
    assert generation.manifest.representation == "Compact"
    assert {CODES_FILE, ROWS_FILE, ORDER_FILE, VECTORS_FILE} < generation.manifest.files.keys()
    collection = open_generation("sample", generation)
    wanted = make_chunks(2_000)[777]
    _, rows = collection.segments[0].index.search(embedder.embed([wanted.searchable_text()]), 1)
    assert collection.chunks.get(rows[0].tolist()) == [wanted]
    collection.close()
    with pytest.raises(IndexInvalid, match="Compact"):
        open_generation("sample", generation, LoadedIndex)


def test_the_catalog_counts_codes_as_owned_and_rows_as_mapped(
    tmp_path: Path, make_chunks: Callable[[int], list[Chunk]]
) -> None:
    """R-E01: codes cannot be given back, rows can; neither counts once the collection is closed."""
    generation = build_collection(
        collection="sample", chunks=make_chunks(500), embedder=HashingEmbedder(), target=tmp_path, threads=1,
        progress=lambda _: None, representation="Compact",
    )  # fmt: skip
    collection = open_generation("sample", generation)
    catalog = Catalog({"sample": collection})
    component = IndexComponent(catalog.mapped, 0, lambda: 0.0)

    assert isinstance(collection.segments[0].index, CompactIndex)
    # 500 vectors of 384 in 7 lists: codes of two bits with five factors, ids, row numbers; centroids; the rotation as
    # it was read and as FAISS copies it; sizes and names.
    exact = 500 * (2 * 48 + 20 + 8 + 4) + 7 * 384 * 4 + 2 * 384 * 384 * 4
    assert exact < catalog.loaded_bytes() < exact + 1_000
    collection.segments[0].index.warm()
    assert component.mapped_bytes() == -(-500 * 768 // 4096) * 4096
    assert component.page_out(100_000) >= 100_000
    catalog.close()
    assert catalog.loaded_bytes() == 0
    assert catalog.mapped == []


def test_the_command_builds_the_named_collections_compact_and_others_exact(tmp_path: Path) -> None:
    """R-E01: chosen by collection; without a word it is as before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(80)))
    sources = [f"{name}={tmp_path / name}" for name in ("one", "two")]

    build_sources(tmp_path / "data", sources, ["two=Compact"])

    found = [find_newest_generation(tmp_path / "data" / name).found for name in ("one", "two")]
    assert [one.manifest.representation for one in found if one] == ["Exact", "Compact"]


@pytest.mark.parametrize("representation", ["one=Small", "one=compact", "one", "three=Compact", "=Compact"])
def test_a_representation_for_nothing_or_of_no_kind_is_refused_before_anything_is_built(
    tmp_path: Path, representation: str
) -> None:
    """R-E01: the first build may take minutes."""
    (tmp_path / "one").mkdir()

    with pytest.raises(BuildFailed, match=r"write one NAME|one of Exact, Float16, Int8, Compact"):
        build_sources(tmp_path / "data", [f"one={tmp_path / 'one'}"], [representation])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("value", [70_000.0, -70_000.0])
def test_a_value_that_no_float16_holds_fails_the_build_and_publishes_nothing(
    tmp_path: Path, make_chunks: Callable[[int], list[Chunk]], value: float
) -> None:
    """R-E01: it would become infinite without a word."""
    vectors = np.ones((300, 8), dtype=np.float32)
    vectors[150, 3] = value

    with pytest.raises(BuildFailed, match="float16"):
        build_collection(
            collection="sample", chunks=make_chunks(300), embedder=_Rows(vectors), target=tmp_path, threads=1,
            progress=lambda _: None, representation="Compact",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
