"""A writer over a data folder, in this process, without HTTP: what the tests of writes drive."""

import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.shown import shown_chunks
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.writer import Writer
from membudget_runtime.memory_runtime import MemoryRuntime

EMBEDDER = HashingEmbedder(64)


@dataclass(frozen=True)
class Written:
    """Everything of one engine that has to do with writes."""

    writer: Writer
    catalog: Catalog
    indexes: ServedIndexes
    runtime: MemoryRuntime

    def texts(self, name: str) -> dict[str, str]:
        """The source of every chunk that queries can find, by id: asked row by row, not counted."""
        with self.catalog.use(name) as opened:
            vectors = EMBEDDER.embed(["anything at all"])
            found = opened.find(vectors, opened.manifest.count + 10_000)
            return {chunk.id: chunk.source for chunk in shown_chunks(opened, [row for _, row in found])}

    def best(self, name: str, query: str, hits: int = 1) -> list[str]:
        """The ids that answer a query, best first."""
        with self.catalog.use(name) as opened:
            found = opened.find(EMBEDDER.embed([query]), hits)
            return [chunk.id for chunk in shown_chunks(opened, [row for _, row in found])]


@contextmanager
def written(data: Path, state: Path, total: str = "16Gi", *, background: bool = True) -> Generator[Written]:
    """Open for writing until the block ends; seals and compactions of its own in the background, or none."""
    data.mkdir(parents=True, exist_ok=True)
    with closing(MemoryRuntime(state, {"MEMBUDGET_TOTAL": total})) as runtime:
        catalog = Catalog(open_collections(data, EMBEDDER, to_write=True))
        with closing(catalog):
            indexes = ServedIndexes(catalog, runtime.ledger, 0, time.monotonic)
            runtime.register(indexes)
            with closing(Writer(data, EMBEDDER, indexes, runtime.ledger, left=lambda _: None)) as writer:
                if background:
                    writer.start()
                yield Written(writer, catalog, indexes, runtime)


def note(number: int, text: str) -> Chunk:
    """A chunk whose id says its number and whose source says anything."""
    return Chunk(
        id=f"note-{number}",
        path=f"notes/{number}.py",
        name=f"note_{number}",
        kind="function",
        signature=f"def note_{number}()",
        docstring="",
        dependencies=(),
        source=text,
        start_line=1,
        end_line=2,
    )


def notes(numbers: range, text: str) -> list[Chunk]:
    """A chunk for each number."""
    return [note(number, f"{text} {number}") for number in numbers]


def renamed(chunk: Chunk, chunk_id: str) -> Chunk:
    """The same chunk under another id."""
    return msgspec.structs.replace(chunk, id=chunk_id)
