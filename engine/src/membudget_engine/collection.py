"""A collection as it is served: the newest good generation, its index and its chunks.

Covers: opening all collections of a data folder. Does not cover building (`index.build`) nor searching over them
(`search`). One that cannot be served is told and left out: the others are.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from membudget_engine.embedder import Embedder
from membudget_engine.errors import ChunkStoreInvalid, CollectionMissing, IndexInvalid
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
        try:
            collection = _open_newest(folder, embedder)
        except (IndexInvalid, ChunkStoreInvalid, OSError) as error:
            # OSError: a volume's lost+found may not be listed.
            log.warning("skipped %s: %s", folder, error)
            continue
        if collection is not None:
            opened[folder.name] = collection
    if not opened:
        raise CollectionMissing(
            f"no collection with a good generation in {data_folder}; "
            f"make one: membudget-engine build --data {data_folder} --source stdlib"
        )
    return opened


def _open_newest(folder: Path, embedder: Embedder) -> Collection | None:
    search = find_newest_generation(folder)
    for skipped in search.skipped:
        log.warning("skipped %s: %s", skipped.directory, skipped.reason)
    if search.found is None:
        return None
    directory, manifest = search.found.directory, search.found.manifest
    if manifest.embedder != embedder.name:
        log.warning("skipped %s: made with %s, this engine has %s", folder, manifest.embedder, embedder.name)
        return None
    with ExitStack() as on_failure:
        index = MappedIndex.open(directory, manifest)
        on_failure.callback(index.close)
        collection = Collection(folder.name, manifest, index, ChunkStore(directory / CHUNKS_FILE))
        on_failure.pop_all()
    return collection
