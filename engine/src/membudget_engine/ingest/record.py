"""Covers what a source gives, one by one: a chunk, its vector where the source has them, and where to go on behind it.

It does not cover reading any format (python_source, document_source, vector_source) nor storing (index/staged_build).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from membudget_engine.embedder import Vectors
from membudget_engine.ingest.chunk import Chunk

Step = Callable[[Chunk], Chunk | None]
"""Maps a chunk to another one, or filters it out with None."""


_DIGEST_BYTES: Final = 16


class Record(NamedTuple):
    """A chunk; without a vector it is embedded."""

    chunk: Chunk
    position: int
    """Of what follows it, in the source's own measure: a reading begun there goes on with the next record."""
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What a source is, to tell whether a reading that was interrupted may go on."""

    identity: str
    end: int
    """The position behind the last record; 0 where it is not known before."""
    dimension: int | None = None
    """Of the vectors it brings along; None when it brings none."""


class Source(Protocol):
    """A file or folder that is read from any position on."""

    @property
    def extent(self) -> Extent:
        """As it was when it was opened."""
        ...

    def records(self, position: int) -> Iterator[Record]:
        """From there on, a few in memory at a time. Raises SourceInvalid, OSError."""
        ...


def chained_digest(digest: bytes, chunk: Chunk, vector: bytes) -> bytes:
    """Of everything up to this chunk and its vector, from that of everything before it; b"" before the first."""
    told = msgspec.msgpack.encode(chunk)
    return hashlib.blake2b(digest + told + vector, digest_size=_DIGEST_BYTES).digest()


def through(steps: Iterable[Step], records: Iterator[Record]) -> Iterator[tuple[Record | None, int]]:
    """Each record after all steps, None for one that was filtered out, with its position."""
    all_steps = tuple(steps)
    for record in records:
        yield _stepped(record, all_steps), record.position


def _stepped(record: Record, steps: tuple[Step, ...]) -> Record | None:
    chunk: Chunk | None = record.chunk
    for step in steps:
        if chunk is None:
            return None
        chunk = step(chunk)
    return None if chunk is None else record._replace(chunk=chunk)
