"""Every field of an index file is where and what the manifest asks for, or FAISS does not see the file."""

from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import pytest

from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.build import build_collection
from membudget_engine.index.faiss_layout import check_layout
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE, Manifest, Representation
from membudget_engine.ingest.chunk import Chunk

DIMENSION = 16


def _built(target: Path, representation: Representation, count: int) -> Generation:
    chunks = [Chunk(str(n), "", f"name {n}", "text", "", "", (), f"text {n}", 0, 0) for n in range(count)]
    return build_collection(
        collection="core", chunks=chunks, embedder=HashingEmbedder(DIMENSION), target=target, threads=1,
        progress=lambda _: None, representation=representation,
    )  # fmt: skip


@pytest.mark.parametrize("count", [50, 10_000])
@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8"])
def test_what_is_built_passes_and_no_cut_of_it_nor_a_byte_more_does(
    tmp_path: Path, representation: Representation, count: int
) -> None:
    """Fault 59: at each byte of the fields before the vectors, and at the last; at some of them FAISS 1.15 ends."""
    built = _built(tmp_path / "core", representation, count)
    content = (built.directory / INDEX_FILE).read_bytes()
    check_layout(built.directory / INDEX_FILE, built.manifest)
    cut = tmp_path / "cut"
    for size in (*range(4, 120), *range(len(content) - 20, len(content)), len(content) + 1):
        cut.write_bytes((content + b"\0")[:size])
        with pytest.raises(IndexInvalid, match=r"too early|more than"):
            check_layout(cut, built.manifest)


def test_lists_of_which_most_are_empty_are_told_by_those_that_are_not(tmp_path: Path) -> None:
    """FAISS writes their sizes in another form then; both are read."""
    vectors = np.eye(DIMENSION, dtype=np.float32)
    quantizer = faiss.IndexFlatIP(DIMENSION)
    quantizer.add(vectors[:8])
    index = faiss.IndexIVFFlat(quantizer, DIMENSION, 8, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    index.add(np.repeat(vectors[:1], 9, axis=0))
    file = tmp_path / INDEX_FILE
    faiss.write_index(index, str(file))
    manifest = Manifest(
        collection="core", generation=1, count=9, dimension=DIMENSION, index_type="IVFFlat", nlist=8, nprobe=1,
        embedder="none", created=datetime.now(UTC), files={},
    )  # fmt: skip
    check_layout(file, manifest)
    content = file.read_bytes()
    assert b"sprs" in content
    file.write_bytes(content.replace(b"sprs", b"full"))
    with pytest.raises(IndexInvalid, match="lists of other sizes"):
        check_layout(file, manifest)
