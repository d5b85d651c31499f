"""Exact, Float16 and Int8: what FAISS would have built, in fewer bytes, mapped, with the recall that is reported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest

from membudget_engine.embedder import Vectors
from membudget_engine.index.build import Plan, publish_next
from membudget_engine.index.generations import Generation
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.manifest import INDEX_FILE, VECTORS_FILE, Representation
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index.recall import recall, recall_sample
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.sealing import write_batch

DIMENSION = 32
PLACE_BYTES = {"Exact": 4, "Float16": 2, "Int8": 1}


@dataclass(frozen=True)
class Built:
    """A generation and the vectors in it."""

    generation: Generation
    vectors: Vectors


def _built(target: Path, representation: Representation, count: int) -> Built:
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((200, DIMENSION), dtype=np.float32)
    vectors = centres[generator.integers(0, 200, count)]
    vectors += np.float32(0.6) * generator.standard_normal((count, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chunks = [Chunk(str(row), "", "", "vector", "", "", (), "", 0, 0) for row in range(count)]
    plan = Plan("core", f"given-{DIMENSION}", DIMENSION, 1, representation)
    target.mkdir()
    return Built(publish_next(target, plan, lambda building: write_batch(building, chunks, vectors)), vectors)


@pytest.mark.parametrize("count", [500, 10_500])
@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8"])
def test_the_written_file_is_what_faiss_would_have_written(
    tmp_path: Path, representation: Representation, count: int
) -> None:
    """R-E01: the same answers as an index that FAISS trained on the same rows and filled itself."""
    built = _built(tmp_path / "core", representation, count)
    file = built.generation.directory / INDEX_FILE
    own = faiss.read_index(str(file))
    # The written index, emptied and filled by FAISS: centroids and ranges are the trained ones.
    peer = faiss.read_index(str(file))
    peer.reset()
    peer.add(built.vectors)
    queries = built.vectors[:200]

    expected, found = peer.search(queries, 10), own.search(queries, 10)

    np.testing.assert_array_equal(expected[1], found[1])
    np.testing.assert_allclose(expected[0], found[0], rtol=1e-5)
    assert peer.ntotal == own.ntotal == count


@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8"])
def test_the_reported_recall_is_that_of_the_file_as_it_is_served(
    tmp_path: Path, representation: Representation, publish: Callable[[str], None]
) -> None:
    """R-E01, R-E04: measured by a pass over the vectors, here against searching the mapped file."""
    built = _built(tmp_path / "core", representation, 10_500)
    manifest = built.generation.manifest
    index = MappedIndex.open(built.generation.directory, manifest)
    sample = recall_sample(built.generation.directory / VECTORS_FILE, 10_500, DIMENSION)
    _, rows = index.search(sample.queries, 11)
    others = [found[found != own][:10] for found, own in zip(rows, sample.rows, strict=True)]

    served = recall(np.stack(others), sample.neighbours)

    publish(f"{representation}: recall@10 {manifest.recall:.4f}, {manifest.index_bytes / 10_500:.0f} bytes a vector")
    assert manifest.recall == pytest.approx(served, abs=0.002)
    assert served > 0.8
    index.close()


@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8"])
def test_its_bytes_are_those_of_its_places_and_the_kernel_has_a_file_behind_them(
    tmp_path: Path, representation: Representation
) -> None:
    """R-E01: half and a quarter of float32, mapped; loaded where the plan says so, in the bytes that are reserved."""
    built = _built(tmp_path / "core", representation, 10_500)
    manifest, directory = built.generation.manifest, built.generation.directory
    codes = 10_500 * DIMENSION * PLACE_BYTES[representation]

    mapped, loaded = MappedIndex.open(directory, manifest), LoadedIndex.open(directory, manifest)

    assert codes < manifest.index_bytes < codes + 10_500 * 8 + manifest.nlist * DIMENSION * 4 + 4_000
    assert (mapped.is_file_backed(), loaded.is_file_backed()) == (True, False)
    assert loaded.owned_bytes == codes + 10_500 * 8 + manifest.nlist * DIMENSION * 4
    np.testing.assert_array_equal(mapped.search(built.vectors[:50], 5)[1], loaded.search(built.vectors[:50], 5)[1])
    mapped.warm()
    assert mapped.resident_bytes() > 0
    mapped.page_out(mapped.mapped_bytes())
    mapped.close()
    loaded.close()
