"""Collections exchanged while queries run: the old one is closed by its last query, never before."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, open_collections, open_generation
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import ChunkStoreClosed, CollectionMissing, IndexClosed
from membudget_engine.index.build import build_collection
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.ingest.chunk import Chunk

ChunkMaker = Callable[[int], list[Chunk]]

EMBEDDER = HashingEmbedder(16)


@pytest.fixture
def first(tmp_path: Path, make_chunks: ChunkMaker) -> Collection:
    """The collection `core` with 5 chunks."""
    build_collection(
        collection="core",
        chunks=make_chunks(5),
        embedder=EMBEDDER,
        target=tmp_path / "core",
        threads=1,
        progress=lambda _: None,
    )
    return open_collections(tmp_path, EMBEDDER)["core"]


def _is_open(collection: Collection) -> bool:
    try:
        collection.segments[0].index.search(EMBEDDER.embed(["parse"]), 1)
        return len(collection.chunks.get([0])) == 1
    except (IndexClosed, ChunkStoreClosed):
        return False


def test_a_query_keeps_its_generation_open_until_it_ends(first: Collection) -> None:
    """R-P09: the next query gets the new one at once."""
    catalog = Catalog({"core": first})
    second = open_generation("core", first.generation)
    with catalog.use("core") as used:
        before = catalog.exchange(second)
        assert before is not None
        catalog.retire(before)
        with catalog.use("core") as used_next:
            assert (used is first, used_next is second) == (True, True)
        assert (_is_open(first), _is_open(second), before.closed.is_set()) == (True, True, False)
    assert (_is_open(first), _is_open(second), before.closed.is_set()) == (False, True, True)
    catalog.close()
    assert not _is_open(second)


def test_without_a_query_the_old_generation_is_closed_at_once(first: Collection) -> None:
    """R-P09: and its index is no longer one of those whose pages count."""
    catalog = Catalog({"core": first})
    second = open_generation("core", first.generation)
    before = catalog.exchange(second)
    assert before is not None
    assert len(catalog.mapped) == 2
    catalog.retire(before)
    assert (_is_open(first), catalog.mapped) == (False, second.indexes)
    catalog.close()


def test_a_loaded_index_counts_until_it_is_closed(first: Collection) -> None:
    """R-P04: its memory is there as long as a query is at it."""
    catalog = Catalog({"core": first})
    loaded = open_generation("core", first.generation, LoadedIndex)
    mapped = catalog.exchange(loaded)
    assert mapped is not None
    catalog.retire(mapped)
    assert (catalog.loaded_bytes(), catalog.mapped) == (5 * 16 * 4, [])
    with catalog.use("core"):
        left = catalog.exchange(open_generation("core", first.generation))
        assert left is not None
        catalog.retire(left)
        assert catalog.loaded_bytes() == 5 * 16 * 4
    assert catalog.loaded_bytes() == 0
    catalog.close()


def test_a_query_that_fails_leaves_its_generation_all_the_same(first: Collection) -> None:
    """R-P09: or the old one would stay open for ever."""
    catalog = Catalog({"core": first})
    with pytest.raises(ArithmeticError), catalog.use("core"):
        raise ArithmeticError
    before = catalog.exchange(open_generation("core", first.generation))
    assert before is not None
    catalog.retire(before)
    assert before.closed.is_set()
    catalog.close()


def test_an_unknown_collection_is_named_with_those_there_are(first: Collection) -> None:
    """R-E18: collections."""
    catalog = Catalog({"core": first})
    with pytest.raises(CollectionMissing, match="no collection 'large'; there are core"), catalog.use("large"):
        pass
    catalog.close()


def test_under_many_threads_no_query_meets_a_closed_generation(first: Collection) -> None:
    """R-P09, fault 49: 300 exchanges below 4 threads of queries."""
    catalog = Catalog({"core": first})
    ended = threading.Event()
    queries: list[bool] = []

    def ask() -> None:
        while not ended.is_set():
            with catalog.use("core") as collection:
                queries.append(_is_open(collection))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    left = [catalog.exchange(open_generation("core", first.generation)) for _ in range(1)]
    for _ in range(299):
        for served in left:
            assert served is not None
            catalog.retire(served)
        left = [catalog.exchange(open_generation("core", first.generation))]
    ended.set()
    for thread in threads:
        thread.join()
    for served in left:
        assert served is not None
        catalog.retire(served)
    assert (all(queries), len(queries) > 300, len(catalog.mapped)) == (True, True, 1)
    catalog.close()
