"""Bugs of comparable code bases, put in on purpose: a check of ours must see each."""

import subprocess
import sys
from contextlib import closing

import faiss
import pytest
from prometheus_client import CollectorRegistry

from engine.engine_process import status_bytes
from membudget_contract import metric_names
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index.page_advice import PAGE_BYTES, FileMapping, PageRange
from membudget_engine.metrics import EngineCollector
from membudget_engine.search import Search
from membudget_engine.segment import Segment
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore
from membudget_engine.stores.chunk_texts import EncodedChunks
from membudget_runtime.arena import page_bytes
from membudget_runtime.memory_runtime import MemoryRuntime

_OPENER = """
import sys, tracemalloc
from pathlib import Path
import faiss
from membudget_engine.index.manifest import INDEX_FILE, read_manifest
from membudget_engine.index.mapped import MappedIndex

def wait(word):
    print(word, tracemalloc.get_traced_memory()[0], flush=True)
    sys.stdin.readline()

directory = Path(sys.argv[2])
manifest = read_manifest(directory)
tracemalloc.start()
wait("before")
if sys.argv[1] == "loaded":
    index = faiss.read_index(str(directory / INDEX_FILE))
else:
    index = MappedIndex.open(directory, manifest)
wait("open")
"""


def _growth(how: str, generation: Generation) -> tuple[int, int]:
    """Bytes by which opening an index grew a process, as tracemalloc says inside and the kernel outside."""
    argv = [sys.executable, "-c", _OPENER, how, str(generation.directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        figures: list[tuple[int, int]] = []
        for word in ("before", "open"):
            said, traced = process.stdout.readline().split()
            assert word == said
            figures.append((int(traced), status_bytes(process.pid, "RssAnon")))
            process.stdin.write("\n")
            process.stdin.flush()
    (traced_before, anonymous_before), (traced, anonymous) = figures
    return traced - traced_before, anonymous - anonymous_before


def test_tracemalloc_does_not_see_a_loaded_index_and_the_kernel_does(listed_generation: Generation) -> None:
    """R-E01, known bug 19: a memory test blind to native memory would call the loaded index as good as the mapped."""
    size = (listed_generation.directory / INDEX_FILE).stat().st_size

    traced_loaded, anonymous_loaded = _growth("loaded", listed_generation)
    traced_mapped, anonymous_mapped = _growth("mapped", listed_generation)

    assert traced_loaded < 0.01 * size
    assert traced_mapped < 0.01 * size
    assert anonymous_loaded > 0.9 * size
    assert anonymous_mapped < 0.1 * anonymous_loaded


def test_an_index_that_was_loaded_is_refused_when_opened(
    flat_generation: Generation, listed_generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E01, known bug 15: "mmap" configured but the index is loaded to memory."""
    monkeypatch.setattr(faiss, "IO_FLAG_MMAP_IFC", 0)

    for generation in (flat_generation, listed_generation):
        with pytest.raises(IndexInvalid, match="loaded into anonymous memory"):
            MappedIndex.open(generation.directory, generation.manifest)


def test_the_gauge_says_0_for_an_index_that_was_loaded(
    flat_generation: Generation, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E01, known bug 15: the gauge asks the kernel, whatever the code that opened believes."""
    mapped = MappedIndex.open(flat_generation.directory, flat_generation.manifest)
    vector_bytes = flat_generation.manifest.count * flat_generation.manifest.dimension * 4

    def believe_in_a_file(address: int) -> FileMapping:
        start = address // PAGE_BYTES * PAGE_BYTES
        return FileMapping(PageRange(start, start + page_bytes(address - start + vector_bytes)), 0)

    monkeypatch.setattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    monkeypatch.setattr("membudget_engine.index.mapped.file_mapping_at", believe_in_a_file)
    monkeypatch.setattr("membudget_engine.index.mapped.advise", _no_advice)
    unmapped = MappedIndex.open(flat_generation.directory, flat_generation.manifest)
    monkeypatch.undo()

    scraped = _scrape({"mapped": mapped, "loaded": unmapped}, flat_generation, runtime)

    assert scraped == {"mapped": 1, "loaded": 0}
    mapped.close()
    unmapped.close()


def _no_advice(_pages: PageRange, _advice: int) -> None:
    """In place of madvise, which the kernel would refuse for a part of the heap."""


def _scrape(indexes: dict[str, MappedIndex], generation: Generation, runtime: MemoryRuntime) -> dict[str, float | None]:
    """The gauge of each of these indexes."""
    embedder = HashingEmbedder()
    cache = SemanticCache(runtime, embedder.dimension)
    with closing(ChunkStore(generation.directory / CHUNKS_FILE)) as store:
        (folder,) = generation.segments
        dead = (DeadRows(generation.manifest.count),)
        collections = {
            name: Collection(name, generation, (Segment(folder, index, store, EncodedChunks(store)),), dead)
            for name, index in indexes.items()
        }
        registry = CollectorRegistry()
        registry.register(EngineCollector(Search(Catalog(collections), embedder, cache), [cache.answers], runtime))
        gauge = metric_names.ENGINE_INDEX_MAPPED.name
        return {name: registry.get_sample_value(gauge, {"collection": name}) for name in indexes}
