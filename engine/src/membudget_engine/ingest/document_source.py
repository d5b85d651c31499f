"""Covers documents: .ndjson and .jsonl, one object a line, and .json, an array of objects, read a piece at a time.

It does not cover source trees (python_source) nor files of vectors alone (vector_source). An object becomes a chunk by
a map from the chunk's fields to its keys.
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import numpy as np

from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.python_module import printable
from membudget_engine.ingest.record import Extent, Record

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Of one object; what is longer is refused rather than read into memory."""

FIELDS: Final = ("id", "path", "name", "signature", "docstring", "source", "vector")
"""What may be mapped."""

_BLOCK_BYTES: Final = 64 * 1024
_Vector = Annotated[list[float], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Keys:
    """Which key of an object gives which field of a chunk; a field without one is called as its key."""

    of: Mapping[str, str] = field(default_factory=dict[str, str])

    def text(self, document: Mapping[str, Any], name: str, default: str) -> str:
        """The field as text: what is neither text nor missing is told as JSON."""
        value = document.get(self.of.get(name, name))
        if value is None:
            return default
        return printable(value if isinstance(value, str) else json.dumps(value))


class DocumentSource:
    """A file of objects; positions are bytes for lines, and numbers of objects for an array."""

    def __init__(self, file: Path, keys: Keys) -> None:
        """Raises SourceInvalid when the first object is none, OSError."""
        self._file = file
        self._keys = keys
        self._lines = file.suffix != ".json"
        status = file.stat()
        identity = f"{file.name} {status.st_size} {status.st_mtime_ns} {status.st_ino} {sorted(keys.of.items())}"
        end = status.st_size if self._lines else 0
        self.extent = Extent(identity, end)
        first = next(self.records(0), None)
        if first is not None and first.vector is not None:
            self.extent = Extent(identity, end, len(first.vector))

    def records(self, position: int) -> Iterator[Record]:
        """A chunk for each object."""
        documents = _lines(self._file, position) if self._lines else _elements(self._file, position)
        for number, (where, document) in enumerate(documents):
            yield self._record(document, where, position + number)

    def _record(self, document: Any, position: int, number: int) -> Record:
        try:
            held = msgspec.convert(document, dict[str, Any])
        except msgspec.ValidationError as error:
            raise SourceInvalid(f"{self._file}: before {position}: {error}") from None
        path = self._keys.text(held, "path", self._file.name)
        name = self._keys.text(held, "name", "")
        chunk = Chunk(
            id=self._keys.text(held, "id", f"{self._file.name}:{number}"),
            path=path,
            name=name,
            kind="text",
            signature=self._keys.text(held, "signature", ""),
            docstring=self._keys.text(held, "docstring", ""),
            dependencies=(),
            source=self._keys.text(held, "source", ""),
            start_line=0,
            end_line=0,
        )
        given = held.get(self._keys.of.get("vector", "vector"))
        if given is None:
            return Record(chunk, position)
        try:
            vector = np.asarray(msgspec.convert(given, _Vector), dtype=np.float32)
        except (msgspec.ValidationError, OverflowError) as error:
            raise SourceInvalid(f"{self._file}: before {position}: no vector: {error}") from None
        return Record(chunk, position, vector)


def _lines(file: Path, position: int) -> Iterator[tuple[int, Any]]:
    """Each line's value and the position behind it; empty lines are passed over."""
    with file.open("rb") as stream:
        stream.seek(position)
        while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
            if len(line) > MAX_DOCUMENT_BYTES:
                raise SourceInvalid(f"{file}: a line from {position} is longer than {MAX_DOCUMENT_BYTES} bytes")
            position += len(line)
            if line.strip():
                yield position, _value(file, line, position)


def _value(file: Path, text: bytes, position: int) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise SourceInvalid(f"{file}: before {position}: {error}") from None


def _elements(file: Path, position: int) -> Iterator[tuple[int, Any]]:
    """The array's values from this number on."""
    with file.open("rb") as stream:
        for number, value in enumerate(_Array(file, stream).values(), 1):
            if number > position:
                yield number, value


class _Array:
    """An array of which one value and a block are in memory."""

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder(parse_constant=self._refuse)
        self._text = ""
        self._at = 0

    def values(self) -> Iterator[Any]:
        """Raises SourceInvalid where it is no array, or torn."""
        if self._next() != "[":
            raise SourceInvalid(f"{self._file} is no array of objects")
        self._at += 1
        if self._next() == "]":
            return
        while True:
            self._next()
            yield self._value()
            delimiter = self._next()
            if delimiter == "]":
                return
            if delimiter != ",":
                raise SourceInvalid(f"{self._file}: a comma is expected, not {delimiter!r}")
            self._at += 1

    def _next(self) -> str:
        """The next character that is no space."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                raise SourceInvalid(f"{self._file} ends within its array: it is torn")

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                problem = str(error)
            else:
                if end < len(self._text):  # else a number may go on
                    self._at = end
                    return value
                problem = "the array does not end"
            if len(self._text) - self._at > MAX_DOCUMENT_BYTES or not self._more():
                raise SourceInvalid(f"{self._file}: {problem}")

    def _more(self) -> bool:
        # Twice as much each time: a value is not begun anew for every block of it.
        block = self._stream.read(max(_BLOCK_BYTES, len(self._text) - self._at))
        try:
            self._text = self._text[self._at :] + self._characters.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise SourceInvalid(f"{self._file}: {error}") from None
        self._at = 0
        return bool(block)

    def _refuse(self, constant: str) -> Any:
        raise SourceInvalid(f"{self._file}: {constant} is no JSON")
