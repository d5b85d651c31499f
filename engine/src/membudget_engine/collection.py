"""A collection as it is served: one generation, its segments, and what was written since.

Covers: opening all collections of a data folder, and one generation. Does not cover building (`index.build`), one
segment (`segment`), searching over collections (`search`) nor exchanging them while queries run (`catalog`). One that
cannot be served is told and left out: the others are.
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
from membudget_engine.errors import ChunkStoreInvalid, CollectionMissing, FileDamaged, IndexInvalid, QueryInvalid
from membudget_engine.index.dead_rows import DeadRows, read_dead_rows
from membudget_engine.index.effort import Effort, query_bytes
from membudget_engine.index.generations import Generation, SegmentFolder, find_newest_generation
from membudget_engine.index.loaded import Index, LoadedIndex
from membudget_engine.index.manifest import REDUCTION_FILE, Manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.overlay import Overlay
from membudget_engine.reduction.pca import Reduction, read_reduction
from membudget_engine.segment import Segment
from membudget_engine.segment_search import Found, Question, find_nearest
from membudget_engine.stores.chunk_texts import Text
from membudget_engine.stores.segment_chunks import SegmentChunks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """One open generation."""

    name: str
    generation: Generation
    segments: tuple[Segment, ...]
    """Oldest first; this collection holds each of them."""
    sealed_dead: tuple[DeadRows, ...]
    """Of each segment, as the generation's files have them."""
    reduction: Reduction | None = None
    """What vectors of queries and writes are reduced by; None where they are kept as they come."""
    overlay: Overlay | None = None
    """What was written since, where this engine writes."""
    chunks: SegmentChunks = field(init=False)
    _manifest_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        manifest = msgspec.json.encode(self.manifest)
        object.__setattr__(self, "_manifest_digest", hashlib.blake2b(manifest, digest_size=8).digest())
        stores, texts = [one.chunks for one in self.segments], [one.texts for one in self.segments]
        object.__setattr__(self, "chunks", SegmentChunks(stores, texts))

    @property
    def tag(self) -> bytes:
        """8 bytes that differ when what is served differs: answers are kept under them."""
        if self.overlay is None or not self.overlay.sequence:
            return self._manifest_digest
        written = self._manifest_digest + self.overlay.sequence.to_bytes(8)
        return hashlib.blake2b(written, digest_size=8).digest()

    def is_sealed(self, row: int) -> bool:
        """Whether a row is the generation's; those written since are numbered anew in the engine's next life."""
        return 0 <= row < self.manifest.count

    @property
    def manifest(self) -> Manifest:
        """What the generation holds."""
        return self.generation.manifest

    @property
    def indexes(self) -> list[Index]:
        """Of all segments."""
        return [segment.index for segment in self.segments]

    @property
    def dead(self) -> tuple[DeadRows, ...]:
        """Of each segment, by now."""
        return self.sealed_dead if self.overlay is None else self.overlay.dead

    @property
    def count(self) -> int:
        """Chunks that queries can find."""
        written = 0 if self.overlay is None else len(self.overlay.delta)
        return self.manifest.count - sum(rows.dead for rows in self.dead) + written

    def find(self, vector: Vectors, hits: int, effort: Effort = Effort.FULL) -> list[Found]:
        """Scores and rows of the chunks nearest to one vector, of shape (1, dimension), best first.

        Rows mean something to `texts_at` as long as the tag stays. Raises as the index's search.
        """
        if self.reduction is None:
            return self._nearest(vector, hits, effort)
        if vector.shape[1] != self.reduction.full_dimension:
            raise QueryInvalid(
                f"a query of {self.reduction.full_dimension} places is asked for, not of {vector.shape[1]}"
            )
        asked, raised = self.reduction.query(vector)
        return [(score + raised, row) for score, row in self._nearest(asked, hits, effort)]

    def kept_rows(self, vectors: Vectors) -> Vectors:
        """Vectors of the full dimension as this collection keeps them."""
        return vectors if self.reduction is None else self.reduction.rows(vectors)

    def _nearest(self, vector: Vectors, hits: int, effort: Effort) -> list[Found]:
        if self.overlay is None:
            return self._find_sealed(effort, vector, hits)
        return self.overlay.find(partial(self._find_sealed, effort), vector, hits)

    def query_bytes(self, hits: int) -> int:
        """Anonymous bytes of a query for so many hits: rows of all segments are compared together."""
        return query_bytes(self.manifest, hits)

    def texts_at(self, rows: Sequence[int]) -> list[Text | None]:
        """The chunks of rows that were found, as JSON; None for one that was deleted meanwhile.

        Raises ChunkMissing, ChunkStoreInvalid, OSError.
        """
        overlay = self.overlay
        if overlay is None:
            return [*self.chunks.texts(rows)]
        written = {row: chunk_id for row in rows if (chunk_id := overlay.written_id(row)) is not None}
        newest = overlay.log.chunks(written.values())
        sealed = [row for row in rows if row not in written]
        found: dict[int, Text | None] = {
            row: msgspec.json.encode(newest[chunk_id]) if chunk_id in newest else None
            for row, chunk_id in written.items()
        }
        found.update(zip(sealed, self.chunks.texts(sealed), strict=True))
        return [found[row] for row in rows]

    def held_texts_at(self, rows: Sequence[int]) -> list[Text] | None:
        """The same where memory has them all; None where a disk would be waited for. Raises as `texts_at`."""
        return self.chunks.held_texts(rows) if all(map(self.is_sealed, rows)) else None

    def chunk(self, chunk_id: str) -> Chunk | None:
        """The chunk of this id, or None."""
        row = self.chunks.row_of(chunk_id)
        if row is not None:
            number, own = self.chunks.place(row)
            if own not in self.dead[number]:
                return self.chunks.get([row])[0]
        overlay = self.overlay
        if overlay is None or chunk_id not in overlay.delta:
            return None
        return overlay.log.chunks([chunk_id]).get(chunk_id)

    def close(self) -> None:
        """Let go of the segments; queries in flight finish on what they hold."""
        for segment in self.segments:
            segment.close()

    def _find_sealed(self, effort: Effort, vector: Vectors, hits: int) -> list[Found]:
        return find_nearest(self.manifest, self.segments, self.dead, Question(vector, hits, effort))


def open_collections(data_folder: Path, embedder: Embedder, *, to_write: bool = False) -> dict[str, Collection]:
    """Every collection below the folder, by name, mapped.

    Raises:
        CollectionMissing: none has a good generation made with this embedder; a writer may begin with none.
    """
    opened: dict[str, Collection] = {}
    for folder in collection_folders(data_folder):
        try:
            collection = _open_newest(folder, embedder)
        except (IndexInvalid, ChunkStoreInvalid, FileDamaged, OSError) as error:
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
    name: str,
    generation: Generation,
    kind: type[MappedIndex | LoadedIndex] | None = None,
    former: Collection | None = None,
) -> Collection:
    """One generation whose files were verified; segments that `former` has open are shared with it.

    Only those of this kind, where one is named; else those that are not open yet are mapped.

    Raises:
        IndexInvalid, ChunkStoreInvalid, FileDamaged, OSError: it cannot be served.
    """
    dead = read_dead_rows(generation.directory, generation.manifest)
    # The same in all of them: it stays the collection's.
    reduction = None
    if generation.manifest.reduction is not None:
        reduction = read_reduction(generation.segments[0].directory / REDUCTION_FILE)
    known = {} if former is None else {one.folder.directory: one for one in former.segments}
    with ExitStack() as on_failure:
        segments: list[Segment] = []
        for folder in generation.segments:
            segment = known.get(folder.directory)
            if segment is None or not _is_of(segment, folder, kind) or not segment.shared():
                segment = Segment.open(folder, kind or MappedIndex)
            on_failure.callback(segment.close)
            segments.append(segment)
        on_failure.pop_all()
    return Collection(name, generation, tuple(segments), dead, reduction)


def _is_of(segment: Segment, folder: SegmentFolder, kind: type[MappedIndex | LoadedIndex] | None) -> bool:
    return segment.folder == folder and (
        kind is None or isinstance(segment.index, LoadedIndex) == (kind is LoadedIndex)
    )


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
