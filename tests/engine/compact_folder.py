"""A folder with a compact index of seeded vectors, as the builder leaves it, and its true neighbours."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.index.compact_build import write_compact_index
from membudget_engine.index.manifest import (
    CODES_FILE,
    ORDER_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    FileEntry,
    Manifest,
    entry_of,
    write_manifest,
)

COMPACT_FILES = (CODES_FILE, ROWS_FILE, ORDER_FILE)


@dataclass(frozen=True)
class CompactFolder:
    """`vectors` are what it was made from, `queries` come from the same clusters."""

    directory: Path
    manifest: Manifest
    vectors: Vectors
    queries: Vectors

    def neighbours(self, count: int) -> npt.NDArray[np.int64]:
        """The rows nearest to each query, best first, without any index."""
        return np.argsort(-(self.queries @ self.vectors.T), axis=1, kind="stable")[:, :count]


def clustered_vectors(count: int, dimension: int, seed: int) -> Vectors:
    """Unit vectors of 200 clusters, the same for every seed; the first places say the most."""
    spread = np.arange(1, dimension + 1) ** -0.65
    centres = np.random.default_rng(0).standard_normal((200, dimension)) * spread
    generator = np.random.default_rng((seed, 1))
    own = centres[generator.integers(200, size=count)]
    rows = own + generator.standard_normal((count, dimension)) * spread
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def make_compact_folder(directory: Path, count: int, dimension: int) -> CompactFolder:
    """Writes vectors, index and manifest."""
    directory.mkdir(parents=True)
    vectors = clustered_vectors(count, dimension, seed=1)
    vectors.tofile(directory / VECTORS_FILE)
    layout = write_compact_index(directory, count=count, dimension=dimension, threads=1)
    manifest = Manifest(
        collection="sample",
        generation=1,
        count=count,
        dimension=dimension,
        index_type=layout.index_type,
        nlist=layout.nlist,
        nprobe=layout.nprobe,
        probe_margin=layout.probe_margin,
        representation="Compact",
        code_bits=layout.code_bits,
        rerank=layout.rerank,
        recall=layout.recall,
        embedder="clustered",
        created=datetime(2026, 11, 21, tzinfo=UTC),
        files=entries(directory),
    )
    write_manifest(directory, manifest)
    # As the builder does; dirty pages would not leave the page cache.
    for name in COMPACT_FILES:
        subprocess.run(["sync", str(directory / name)], check=True)
    return CompactFolder(directory, manifest, vectors, clustered_vectors(300, dimension, seed=2))


def entries(directory: Path) -> dict[str, FileEntry]:
    """What a manifest says of the files of an index, as they are now."""
    return {name: entry_of(directory / name) for name in COMPACT_FILES}
