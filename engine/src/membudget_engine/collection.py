"""A collection as it is served: the newest good generation, its index and its chunks.

Covers: opening all collections of a data folder. Does not cover building (`index.build`) nor searching over them
(`search`). Damaged generations are skipped and told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from membudget_engine.embedder import Embedder
from membudget_engine.errors import CollectionMissing
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.index.manifest import Manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """One open generation."""

    name: str
    manifest: Manifest
    index: MappedIndex
    chunks: ChunkStore

    def close(self) -> None:
        """Drop index and store; queries in flight finish on what they hold."""
        self.index.close()
        self.chunks.close()


def open_collections(data_folder: Path, embedder: Embedder) -> dict[str, Collection]:
    """Every collection below the folder, by name.

    Raises:
        CollectionMissing: none has a good generation made with this embedder.
    """
    opened: dict[str, Collection] = {}
    folders = sorted(path for path in data_folder.iterdir() if path.is_dir()) if data_folder.is_dir() else []
    for folder in folders:
        search = find_newest_generation(folder)
        for skipped in search.skipped:
            log.warning("skipped %s: %s", skipped.directory, skipped.reason)
        if search.found is None:
            continue
        manifest = search.found.manifest
        if manifest.embedder != embedder.name:
            log.warning("skipped %s: made with %s, this engine has %s", folder, manifest.embedder, embedder.name)
            continue
        index = MappedIndex.open(search.found.directory, manifest)
        store = ChunkStore(search.found.directory / CHUNKS_FILE)
        opened[folder.name] = Collection(folder.name, manifest, index, store)
    if not opened:
        raise CollectionMissing(
            f"no collection with a good generation in {data_folder}; "
            f"make one: membudget-engine build --data {data_folder} --source stdlib"
        )
    return opened
