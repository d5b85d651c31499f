"""A collection as it is served: one generation, its index and its chunks.

Covers: opening all collections of a data folder, and one generation. Does not cover building (`index.build`),
searching over them (`search`) nor exchanging them while queries run (`catalog`). One that cannot be served is told
and left out: the others are.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from membudget_engine.embedder import Embedder
from membudget_engine.errors import ChunkStoreInvalid, CollectionMissing, IndexInvalid
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.loaded import Index, LoadedIndex
from membudget_engine.index.manifest import Manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """One open generation."""

    name: str
    generation: Generation
    index: Index
    chunks: ChunkStore
    tag: bytes = field(init=False)
    """8 bytes that differ when what is served differs: answers are kept under them."""

    def __post_init__(self) -> None:
        manifest = msgspec.json.encode(self.manifest)
        object.__setattr__(self, "tag", hashlib.blake2b(manifest, digest_size=8).digest())

    @property
    def manifest(self) -> Manifest:
        """What the generation holds."""
        return self.generation.manifest

    def close(self) -> None:
        """Drop index and store; queries in flight finish on what they hold."""
        self.index.close()
        self.chunks.close()


def open_collections(data_folder: Path, embedder: Embedder) -> dict[str, Collection]:
    """Every collection below the folder, by name, mapped.

    Raises:
        CollectionMissing: none has a good generation made with this embedder.
    """
    opened: dict[str, Collection] = {}
    for folder in collection_folders(data_folder):
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


def collection_folders(data_folder: Path) -> list[Path]:
    """Where collections may be, by name. Raises OSError."""
    return sorted(path for path in data_folder.iterdir() if path.is_dir()) if data_folder.is_dir() else []


def open_generation(
    name: str, generation: Generation, kind: type[MappedIndex | LoadedIndex] = MappedIndex
) -> Collection:
    """One generation whose files were verified.

    Raises:
        IndexInvalid, ChunkStoreInvalid, OSError: it cannot be served.
    """
    compact = generation.manifest.representation == "Compact"
    if compact and kind is LoadedIndex:
        raise IndexInvalid(f"{name} is Compact: its rows are served mapped, its codes are in memory already")
    with ExitStack() as on_failure:
        index = (CompactIndex if compact else kind).open(generation.directory, generation.manifest)
        on_failure.callback(index.close)
        collection = Collection(name, generation, index, ChunkStore(generation.directory / CHUNKS_FILE))
        on_failure.pop_all()
    return collection


def embedder_problem(manifest: Manifest, embedder: Embedder) -> str | None:
    """Why queries of this embedder cannot be asked of this generation; None when they can."""
    if manifest.embedder == embedder.name:
        return None
    return f"made with {manifest.embedder}, this engine has {embedder.name}"


def _open_newest(folder: Path, embedder: Embedder) -> Collection | None:
    search = find_newest_generation(folder)
    for skipped in search.skipped:
        log.warning("skipped %s: %s", skipped.directory, skipped.reason)
    if search.found is None:
        return None
    problem = embedder_problem(search.found.manifest, embedder)
    if problem is not None:
        log.warning("skipped %s: %s", folder, problem)
        return None
    return open_generation(folder.name, search.found)
