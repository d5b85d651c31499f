"""Covers the chunk: one piece of code that can be found, and the text by which it is found.

It does not cover where chunks come from (python_source) nor how they are stored (stores/chunk_store).
"""

import hashlib
from typing import Annotated, Literal

import msgspec

ChunkKind = Literal["function", "method", "class", "text", "vector"]
"""The first three of source trees, "text" of documents, "vector" of a row of vectors that nothing is said of."""

Line = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Its number; a store keeps 64 bits, and no file has so many."""

ID_LENGTH = 16
"""Hex digits of a chunk id: 64 bits, a collision among a million chunks has a chance of 3 in 100 million."""

_SEARCHED_SOURCE_CHARACTERS = 1500
"""Of a longer source only the beginning is embedded: among too many words the name would stop to count."""


class Chunk(msgspec.Struct, frozen=True):
    """One function, method or class of a source tree. Lines count from 1 and include the last one."""

    id: str
    """Stable over builds as long as path, name and line stay: see chunk_id."""
    path: str
    """Relative to the root of the source tree, with forward slashes."""
    name: str
    """Qualified within its module, such as `Pool.connection`."""
    kind: ChunkKind
    signature: str
    docstring: str
    dependencies: tuple[str, ...]
    """Names that it imports or calls, sorted."""
    source: str
    start_line: Line
    end_line: Line

    def searchable_text(self) -> str:
        """The text to embed: where it is, what it is called, what it says of itself, and how its source begins."""
        parts = (self.path, self.name, self.signature, self.docstring, self.source[:_SEARCHED_SOURCE_CHARACTERS])
        return "\n".join(parts)


def chunk_id(path: str, name: str, line: int) -> str:
    """The first 16 hex digits of the sha256 of `path:name:line`."""
    return hashlib.sha256(f"{path}:{name}:{line}".encode()).hexdigest()[:ID_LENGTH]
