"""Covers documents: .ndjson and .jsonl, one object a line, and .json, an array of objects, read a piece at a time.

It does not cover source trees (python_source) nor files of vectors alone (vector_source). An object becomes a chunk by
a map from the chunk's fields to its keys; only the values under those keys are ever made into objects.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import numpy as np

from membudget_contract.decoding import decode_json
from membudget_engine.embedder import Vectors
from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.python_module import printable
from membudget_engine.ingest.record import Extent, Record
from membudget_engine.ingest.vector_source import MAX_DIMENSION
from membudget_engine.requested_file import opened_by_request

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Of one object; what is longer is refused rather than read into memory."""

FIELDS: Final = ("id", "path", "name", "signature", "docstring", "source", "vector")
"""What may be mapped."""

LINES: Final = (".ndjson", ".jsonl")

_BLOCK_BYTES: Final = 64 * 1024
_NONE: Final = msgspec.Raw(b"null")
_SPACES: Final = re.compile(rb"[ \t\r\n]*")
_MARKS: Final = re.compile(rb'["{}\[\]]')
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_Vector = Annotated[list[float], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Keys:
    """Which key of an object gives which field of a chunk; a field without one is called as its key."""

    of: Mapping[str, str] = field(default_factory=dict[str, str])

    def key(self, name: str) -> str:
        """Of this field."""
        return self.of.get(name, name)


class DocumentSource:
    """A file of objects; positions are bytes for lines, and numbers of objects for an array."""

    def __init__(self, file: Path, keys: Keys) -> None:
        """Raises SourceInvalid when the first object is none, OSError."""
        self._file = file
        self._reader = DocumentReader(file.name, keys)
        status = file.stat()
        identity = f"{file.name} {status.st_size} {status.st_mtime_ns} {status.st_ino} {sorted(keys.of.items())}"
        end = status.st_size if self._reader.of_lines else 0
        self.extent = Extent(identity, end)
        first = next(self.records(0), None)
        if first is not None and first.vector is not None:
            self.extent = Extent(identity, end, len(first.vector))

    def records(self, position: int) -> Iterator[Record]:
        """A chunk for each object."""
        with opened_by_request(self._file) as stream:
            if self._reader.of_lines:
                stream.seek(position)
                yield from self._reader.records(stream, position)
            else:
                yield from (record for record in self._reader.records(stream) if record.position > position)


class DocumentReader:
    """Makes records of a stream of objects; its name says whether they are lines or an array."""

    def __init__(self, name: str, keys: Keys, most_bytes: int | None = None) -> None:
        """`most_bytes` of one object, MAX_DOCUMENT_BYTES where none are named."""
        self._name = name
        self._most_bytes = MAX_DOCUMENT_BYTES if most_bytes is None else most_bytes
        self.of_lines = name.endswith(LINES)
        held = sorted({keys.key(name) for name in FIELDS})
        places = {key: f"value_{number}" for number, key in enumerate(held)}
        self._place = {name: places[keys.key(name)] for name in FIELDS}
        self._held: type[Any] = msgspec.defstruct(
            "Document",
            [(place, msgspec.Raw, _NONE) for place in places.values()],
            rename={place: key for key, place in places.items()},
        )

    def records(self, stream: BinaryIO, position: int = 0) -> Iterator[Record]:
        """One for each object of a stream, which for lines stands at this position.

        Raises SourceInvalid where one is torn, too long or no object, and what reading raises.
        """
        objects = self._lines(stream, position) if self.of_lines else self._elements(stream)
        for behind, text in objects:
            yield self._record(text, behind)

    def _lines(self, stream: BinaryIO, position: int) -> Iterator[tuple[int, bytes]]:
        """Each line and the position behind it; empty lines are passed over."""
        while line := stream.readline(self._most_bytes + 1):
            if len(line) > self._most_bytes:
                raise SourceInvalid(f"{self._name}: a line from {position} is longer than {self._most_bytes} bytes")
            position += len(line)
            if line.strip():
                yield position, line

    def _elements(self, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Each element of the array and its number, from 1."""
        return enumerate(_Array(self._name, stream, self._most_bytes).objects(), 1)

    def _record(self, text: bytes, position: int) -> Record:
        try:
            held = decode_json(text, self._held)
            chunk = Chunk(
                id=self._text(held, "id", f"{self._name}:{position}"),
                path=self._text(held, "path", self._name),
                name=self._text(held, "name", ""),
                kind="text",
                signature=self._text(held, "signature", ""),
                docstring=self._text(held, "docstring", ""),
                dependencies=(),
                source=self._text(held, "source", ""),
                start_line=0,
                end_line=0,
            )
            return Record(chunk, position, self._vector(held))
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise SourceInvalid(f"{self._name}: before {position}: {error}") from None

    def _text(self, held: Any, name: str, default: str) -> str:
        """The field as text: what is neither text nor missing is told as its JSON."""
        value = bytes(getattr(held, self._place[name]))
        if value == b"null":
            return default
        return printable(decode_json(value, str) if value.startswith(b'"') else value.decode())

    def _vector(self, held: Any) -> Vectors | None:
        value = bytes(getattr(held, self._place["vector"]))
        if value == b"null":
            return None
        if value.count(b",") >= MAX_DIMENSION:  # before a list is made of it
            raise msgspec.ValidationError(f"a vector has at most {MAX_DIMENSION} places")
        with np.errstate(over="ignore"):  # what no float32 can hold is refused as infinity
            return np.asarray(decode_json(value, _Vector), dtype=np.float32)


class _Array:
    """An array of which one object and a block are in memory."""

    def __init__(self, name: str, stream: BinaryIO, most_bytes: int) -> None:
        self._name = name
        self._stream = stream
        self._most_bytes = most_bytes
        self._text = b""
        self._at = 0

    def objects(self) -> Iterator[bytes]:
        """Raises SourceInvalid where it is no array of objects, or torn."""
        if self._next() != b"[":
            raise SourceInvalid(f"{self._name} is no array of objects")
        self._at += 1
        if self._next() == b"]":
            return
        while True:
            if self._next() != b"{":
                raise SourceInvalid(f"{self._name} has {self._next()!r} where an object is expected")
            yield self._object()
            delimiter = self._next()
            if delimiter == b"]":
                return
            if delimiter != b",":
                raise SourceInvalid(f"{self._name}: a comma is expected, not {delimiter!r}")
            self._at += 1

    def _next(self) -> bytes:
        """The next byte that is no space."""
        while True:
            spaces = _SPACES.match(self._text, self._at)
            self._at = len(self._text) if spaces is None else spaces.end()
            if self._at < len(self._text):
                return self._text[self._at : self._at + 1]
            self._more()

    def _object(self) -> bytes:
        """From here to the bracket that closes it; what is between is looked at when it is decoded."""
        depth, at = 0, self._at
        while True:
            mark = _MARKS.search(self._text, at)
            if mark is None:
                at = self._after_more(len(self._text))
                continue
            at = mark.end()
            if mark[0] == b'"':
                while (end := _REST_OF_STRING.match(self._text, at)) is None:
                    at = self._after_more(at)
                at = end.end()
                continue
            depth += 1 if mark[0] in b"{[" else -1
            if not depth:
                found, self._at = self._text[self._at : at], at
                return found

    def _after_more(self, at: int) -> int:
        """The same place when more was read."""
        if len(self._text) - self._at > self._most_bytes:
            raise SourceInvalid(f"{self._name} has an object of more than {self._most_bytes} bytes")
        at -= self._at
        self._more()
        return at

    def _more(self) -> None:
        # Twice as much each time: a string is not begun anew for every block of it.
        block = self._stream.read(max(_BLOCK_BYTES, len(self._text) - self._at))
        if not block:
            raise SourceInvalid(f"{self._name} ends within its array: it is torn")
        self._text = self._text[self._at :] + block
        self._at = 0
