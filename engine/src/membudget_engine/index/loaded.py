"""Covers one index file served from anonymous memory: what a policy asks for that says the index is not to be mapped.

It does not cover the mapped form, which is the default (mapped), nor whether the bytes fit (served_indexes).
"""

from pathlib import Path

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.effort import Effort
from membudget_engine.index.faiss_reader import ServedIndex, loaded_bytes, part_addresses, read_loaded
from membudget_engine.index.manifest import INDEX_FILE, Manifest
from membudget_engine.index.mapped import MappedIndex, RowIds
from membudget_engine.index.page_advice import file_mapping_at


class LoadedIndex:
    """An index whose vectors are this process's own. Every method may be called from any thread."""

    def __init__(self, file: Path, manifest: Manifest, index: ServedIndex) -> None:
        """Use open()."""
        self._file = file
        self._count = manifest.count
        self._index: ServedIndex | None = index
        self.owned_bytes = loaded_bytes(manifest)
        """Anonymous memory, until it is closed."""

    @classmethod
    def open(cls, directory: Path, manifest: Manifest) -> "LoadedIndex":
        """Loads the index of a generation whose files were verified.

        Raises IndexInvalid when it is not what its manifest says, OSError when it cannot be read.
        """
        file = directory / INDEX_FILE
        index = read_loaded(file, manifest)
        if file_mapping_at(int(part_addresses(index)[0].max())) is not None:
            raise IndexInvalid(f"{file} was mapped, not loaded into anonymous memory")
        return cls(file, manifest, index)

    def search(self, vectors: Vectors, k: int, effort: Effort = Effort.FULL) -> tuple[Vectors, RowIds]:
        """As MappedIndex.search; its memory is there whatever the effort. Raises QueryInvalid, IndexClosed."""
        del effort
        index = self._open()
        if vectors.ndim != 2 or vectors.shape[1] != index.d or vectors.dtype != np.float32 or k < 1:  # noqa: PLR2004
            raise QueryInvalid(
                f"{vectors.dtype} vectors of shape {vectors.shape} and k {k}; this index takes float32 of shape "
                f"(n, {index.d}) and k from 1"
            )
        return index.search(vectors, min(k, self._count))

    def is_file_backed(self) -> bool:
        """Whether the kernel has a file behind the vectors, asked anew. Raises OSError, IndexClosed."""
        return file_mapping_at(int(part_addresses(self._open())[0].max())) is not None

    def close(self) -> None:
        """Drops the index; its memory is free when the last call in flight ends. May be called twice."""
        self._index = None

    def _open(self) -> ServedIndex:
        index = self._index
        if index is None:
            raise IndexClosed(f"{self._file} was closed: ask the collection for its present index")
        return index


PagedIndex = MappedIndex | CompactIndex
Index = PagedIndex | LoadedIndex
