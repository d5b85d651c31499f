"""What a writable chunk store keeps of a piece of code: everything but its source.

Covers: the record, how it is packed, and what every such store offers. Two stores offer it: `memory_chunks` and
`database_chunks`. Does not cover the sealed store of a generation (`chunk_store`), which has sources and rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from membudget_contract.decoding import decode_msgpack
from membudget_engine.ingest.chunk import Chunk


class CodeChunk(msgspec.Struct, frozen=True):
    """One function, method or class. `activation` says how much it is in use: whoever stores it decides its meaning."""

    id: str
    path: str
    name: str
    signature: str
    docstring: str
    dependencies: tuple[str, ...]
    metadata: dict[str, str] = {}
    activation: float = 0.0
    """Kept as float32 at least."""


class CodeChunkStore(Protocol):
    """Chunks by id, within a number. Thread-safe."""

    def save(self, chunks: Iterable[CodeChunk]) -> None:
        """Keep these; one that is kept already gets the new text, and keeps its activation."""
        ...

    def get(self, chunk_id: str) -> CodeChunk | None:
        """The chunk, used now; None when there is none."""
        ...

    def activate(self, chunk_id: str, activation: float) -> bool:
        """Set its activation; whether it is there."""
        ...

    def delete(self, chunk_id: str) -> bool:
        """Forget it; whether it was there."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Give everything back. Later calls raise ChunkStoreClosed."""
        ...


Text = tuple[str, str, str, tuple[str, ...], dict[str, str]]
"""Name, signature, docstring, dependencies, metadata: what is packed."""

_encoder: Final = msgspec.msgpack.Encoder()


def packed_text(chunk: CodeChunk) -> bytes:
    """All but id, path and activation."""
    return _encoder.encode((chunk.name, chunk.signature, chunk.docstring, chunk.dependencies, chunk.metadata))


def unpacked_chunk(chunk_id: str, path: str, packed: bytes, activation: float) -> CodeChunk:
    """The chunk whose text this is. Raises msgspec.DecodeError when it is none."""
    return CodeChunk(chunk_id, path, *decode_msgpack(packed, Text), activation)


def code_chunk(chunk: Chunk) -> CodeChunk:
    """What is kept of an ingested chunk."""
    lines = f"{chunk.start_line}-{chunk.end_line}"
    return CodeChunk(
        id=chunk.id,
        path=chunk.path,
        name=chunk.name,
        signature=chunk.signature,
        docstring=chunk.docstring,
        dependencies=chunk.dependencies,
        metadata={"kind": chunk.kind, "lines": lines},
    )
