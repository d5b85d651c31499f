"""Reload of the index: newer good generations are taken, everything else keeps the present one and is told."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.manifest import INDEX_FILE, MANIFEST_FILE
from membudget_engine.index_reload import IndexReload
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.search import AnsweredBy, Search
from membudget_engine.served_indexes import ServedIndexes
from membudget_runtime.bounds import start_budgets
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.reloads import Reloading

ChunkMaker = Callable[[int], list[Chunk]]

EMBEDDER = HashingEmbedder(16)


@dataclass
class Engine:
    """What a reload works on."""

    data: Path
    catalog: Catalog
    indexes: ServedIndexes
    search: Search
    cache: SemanticCache
    reload: IndexReload

    def generations(self) -> dict[str, int]:
        """Served now."""
        return {name: collection.manifest.generation for name, collection in self.catalog.collections.items()}


def _build(data: Path, name: str, chunks: list[Chunk], embedder: HashingEmbedder = EMBEDDER) -> Path:
    return build_collection(
        collection=name, chunks=chunks, embedder=embedder, target=data / name, threads=1, progress=lambda _: None
    ).directory


@pytest.fixture
def engine(tmp_path: Path, make_chunks: ChunkMaker, runtime: MemoryRuntime) -> Iterator[Engine]:
    """Serves `core` with 3 chunks and `other` with 4."""
    data = tmp_path / "data"
    _build(data, "core", make_chunks(3))
    _build(data, "other", make_chunks(4))
    catalog = Catalog(open_collections(data, EMBEDDER))
    cache = SemanticCache(runtime, EMBEDDER.dimension)
    indexes = ServedIndexes(catalog, runtime.ledger, 0, lambda: 0.0)
    runtime.register(indexes)
    reload = IndexReload(data, EMBEDDER, catalog, indexes, left=cache.answers.drop)
    yield Engine(data, catalog, indexes, Search(catalog, EMBEDDER, cache), cache, reload)
    catalog.close()


def test_a_newer_generation_is_served_and_nothing_else_changes(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: the other collection keeps the very same index."""
    other = engine.catalog.collections["other"]
    assert engine.reload() == Reloading(changed=False)
    _build(engine.data, "core", make_chunks(7))
    assert engine.reload() == Reloading(changed=True)
    assert engine.generations() == {"core": 2, "other": 1}
    assert (engine.catalog.collections["core"].chunks.count(), engine.catalog.collections["other"] is other) == (
        7,
        True,
    )
    assert engine.reload() == Reloading(changed=False)


def test_a_collection_that_was_built_meanwhile_is_served(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: without a restart."""
    _build(engine.data, "third", make_chunks(5))
    assert engine.reload() == Reloading(changed=True)
    assert engine.generations() == {"core": 1, "other": 1, "third": 1}


def test_a_collection_that_was_built_anew_from_nothing_is_served(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: its number begins at one again; what was made later is newer."""
    _build(engine.data, "core", make_chunks(6))
    engine.reload()
    shutil.rmtree(engine.data / "core")
    _build(engine.data, "core", make_chunks(9))
    assert engine.reload() == Reloading(changed=True)
    assert engine.catalog.collections["core"].manifest.count == 9


@pytest.mark.parametrize("harm", ["index", "manifest", "store", "foreign"])
def test_a_newer_generation_that_cannot_be_served_keeps_the_present_one_and_is_told(
    engine: Engine, make_chunks: ChunkMaker, harm: str
) -> None:
    """R-P09, fault 51: and the other collections are reloaded all the same."""
    present = engine.catalog.collections["core"]
    newest = _build(engine.data, "core", make_chunks(7), HashingEmbedder(32) if harm == "foreign" else EMBEDDER)
    _build(engine.data, "other", make_chunks(8))
    if harm == "manifest":
        (newest / MANIFEST_FILE).unlink()
    elif harm != "foreign":
        damaged = newest / (INDEX_FILE if harm == "index" else "chunks.sqlite")
        damaged.write_bytes(damaged.read_bytes()[:-5])

    reloading = engine.reload()

    assert engine.generations() == {"core": 1, "other": 2}
    assert engine.catalog.collections["core"] is present
    assert reloading.changed
    assert reloading.problem is not None
    assert str(newest.name) in reloading.problem
    assert engine.search.answer("core", "parse a header", 2).answered_by is AnsweredBy.INDEX


def test_the_newest_good_one_is_taken_past_a_damaged_one(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: generation 2 although 3 is damaged, which is told."""
    _build(engine.data, "core", make_chunks(6))
    newest = _build(engine.data, "core", make_chunks(7))
    (newest / INDEX_FILE).unlink()
    reloading = engine.reload()
    assert (reloading.changed, engine.generations()["core"]) == (True, 2)
    assert "generation-00000003" in (reloading.problem or "")


def test_a_collection_whose_folder_is_gone_is_served_on_and_told(engine: Engine) -> None:
    """R-P09: what is mapped outlives its name; an unmounted volume takes nothing away."""
    shutil.rmtree(engine.data / "core")
    reloading = engine.reload()
    assert (reloading.changed, engine.generations()) == (False, {"core": 1, "other": 1})
    assert reloading.problem == "core: its folder is gone, the open generation is served on"
    assert engine.search.answer("core", "parse a header", 2).answered_by is AnsweredBy.INDEX


def test_folders_that_never_were_collections_are_no_problem(engine: Engine) -> None:
    """R-P09: lost+found, and a note."""
    (engine.data / "lost+found").mkdir()
    (engine.data / "README").write_text("a note")
    assert engine.reload() == Reloading(changed=False)


def test_an_answer_of_the_old_generation_never_answers_for_the_new_one(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: neither by its words nor by its meaning, and a late one of a query in flight is not found either."""
    query = "def parse_socket_0(value)"
    old = engine.search.answer("core", query, 3)
    assert engine.search.answer("core", query, 3).answered_by is AnsweredBy.SAME_WORDS
    late = engine.catalog.collections["core"]
    _build(engine.data, "core", make_chunks(30)[20:])
    engine.reload()
    engine.cache.keep("core", late.tag, 3, query, EMBEDDER.embed([query])[0], bytes(old.hits))
    new = engine.search.answer("core", query, 3)
    assert (new.answered_by, old.hits != new.hits) == (AnsweredBy.INDEX, True)
    assert {hit["chunk"]["name"] for hit in msgspec.json.decode(new.hits)} & {"parse_socket_0"} == set()
    assert engine.search.answer("other", query, 3).answered_by is AnsweredBy.INDEX


def test_answers_of_the_old_generation_give_their_bytes_back(engine: Engine, make_chunks: ChunkMaker) -> None:
    """R-P09: at the reload, not when something evicts them; other collections keep theirs."""
    for name in ("core", "other"):
        engine.search.answer(name, "parse a header", 3)
    _build(engine.data, "core", make_chunks(6))
    engine.reload()
    assert engine.search.answer("other", "parse a header", 3).answered_by is AnsweredBy.SAME_WORDS
    assert len(engine.cache.answers) == 1


def test_a_loaded_collection_is_loaded_again_after_a_reload(
    engine: Engine, make_chunks: ChunkMaker, runtime: MemoryRuntime
) -> None:
    """R-P04, R-P09: the form that the plan asks for holds for every generation."""
    runtime.apply(msgspec.structs.replace(start_budgets({"MEMBUDGET_TOTAL": "4Gi"}), index_mapped=False))
    _build(engine.data, "core", make_chunks(7))
    assert engine.reload() == Reloading(changed=True)
    core = engine.catalog.collections["core"]
    assert (isinstance(core.segments[0].index, LoadedIndex), core.manifest.count) == (True, 7)
    assert engine.indexes.owned_bytes() == (7 + 4) * 16 * 4
