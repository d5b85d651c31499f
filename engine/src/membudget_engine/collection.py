"""A collection as it is served: one generation, its index and its chunks.

Covers: opening all collections of a data folder, and one generation. Does not cover building (`index.build`),
searching over them (`search`) nor exchanging them while queries run (`catalog`). One that cannot be served is told
and left out: the others are.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from membudget_engine.embedder import GIVEN, Embedder, Vectors
from membudget_engine.errors import ChunkStoreInvalid, CollectionMissing, IndexInvalid
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.effort import Effort, query_bytes
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.loaded import Index, LoadedIndex
from membudget_engine.index.manifest import Manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.overlay import Overlay
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """One open generation."""

    name: str
    generation: Generation
    index: Index
    chunks: ChunkStore
    overlay: Overlay | None = None
    """What was written since, where this engine writes."""
    _manifest_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        manifest = msgspec.json.encode(self.manifest)
        object.__setattr__(self, "_manifest_digest", hashlib.blake2b(manifest, digest_size=8).digest())

    @property
    def tag(self) -> bytes:
        """8 bytes that differ when what is served differs: answers are kept under them."""
        if self.overlay is None or not self.overlay.sequence:
            return self._manifest_digest
        written = self._manifest_digest + self.overlay.sequence.to_bytes(8)
        return hashlib.blake2b(written, digest_size=8).digest()

    @property
    def manifest(self) -> Manifest:
        """What the generation holds."""
        return self.generation.manifest

    @property
    def count(self) -> int:
        """Chunks that queries can find."""
        overlay = self.overlay
        written = 0 if overlay is None else len(overlay.delta) - overlay.masked_rows
        return self.manifest.count + written

    def find(self, vector: Vectors, hits: int, effort: Effort = Effort.FULL) -> list[tuple[float, int]]:
        """Scores and rows of the chunks nearest to one vector, of shape (1, dimension), best first.

        Rows mean something to `chunks_at` as long as the tag stays. Raises as the index's search.
        """
        if self.overlay is None:
            return self._find_sealed(effort, vector, hits)
        return self.overlay.find(partial(self._find_sealed, effort), vector, hits)

    def query_bytes(self, hits: int) -> int:
        """Anonymous bytes of a query for so many hits."""
        return query_bytes(self.manifest, hits)

    def chunks_at(self, rows: Sequence[int]) -> list[Chunk | None]:
        """The chunks of rows that were found; None for one that was deleted meanwhile. Raises ChunkStoreInvalid."""
        overlay = self.overlay
        if overlay is None:
            return [*self.chunks.get(rows)]
        written = {row: chunk_id for row in rows if (chunk_id := overlay.written_id(row)) is not None}
        newest = overlay.log.chunks(written.values())
        sealed = [row for row in rows if row not in written]
        found: dict[int, Chunk | None] = {row: newest.get(chunk_id) for row, chunk_id in written.items()}
        found.update(zip(sealed, self.chunks.get(sealed), strict=True))
        return [found[row] for row in rows]

    def chunk(self, chunk_id: str) -> Chunk | None:
        """The chunk of this id, or None."""
        overlay = self.overlay
        if overlay is None:
            return self.chunks.get_by_id(chunk_id)
        row = self.chunks.row_of(chunk_id)
        if row is not None and not overlay.masked[row]:
            return self.chunks.get([row])[0]
        return overlay.log.chunks([chunk_id]).get(chunk_id) if chunk_id in overlay.delta else None

    def close(self) -> None:
        """Drop index and store; queries in flight finish on what they hold."""
        self.index.close()
        self.chunks.close()

    def _find_sealed(self, effort: Effort, vector: Vectors, hits: int) -> list[tuple[float, int]]:
        scores, rows = self.index.search(vector, hits, effort)
        return [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]


def open_collections(data_folder: Path, embedder: Embedder, *, to_write: bool = False) -> dict[str, Collection]:
    """Every collection below the folder, by name, mapped.

    Raises:
        CollectionMissing: none has a good generation made with this embedder; a writer may begin with none.
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
    if not opened and not to_write:
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
    if manifest.embedder == embedder.name or manifest.embedder.startswith(GIVEN):
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
