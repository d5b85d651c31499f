"""Covers records of a stream that is read once, as a request's body, by the same readers as those of a file.

It does not cover where the bytes come from (body_stream) nor what is done with the records (ingestion).
"""

from collections.abc import Iterator
from typing import BinaryIO, Final

from membudget_engine.ingest.document_source import LINES, DocumentReader, Keys
from membudget_engine.ingest.record import Record
from membudget_engine.ingest.vector_source import FLOAT_BYTES, read_on

MAX_STREAMED_BYTES: Final = 1024 * 1024
"""Of one object, as of one write."""

VECTOR_FILES: Final = (".npy", ".fvecs")
FILES: Final = (".json", *LINES, *VECTOR_FILES)
"""Names of what is taken end with one of these."""

CUT_ANYWHERE: Final = (*LINES, ".fvecs")
"""What may begin with any record of it: nothing before says how to read it."""


def stream_records(name: str, stream: BinaryIO, keys: Keys, position: int = 0) -> Iterator[Record]:
    """The records of a stream that stands behind this position. Raises SourceInvalid, and what reading raises."""
    if name.endswith(VECTOR_FILES):
        return read_on(name, stream, position)
    return DocumentReader(name, keys, MAX_STREAMED_BYTES).records(stream, position)


def bytes_before(name: str, record: Record) -> int | None:
    """Where in the stream a reading may go on behind this record; None where it must begin anew."""
    if name.endswith(LINES):
        return record.position
    if name.endswith(".fvecs") and record.vector is not None:
        return record.position * (1 + len(record.vector)) * FLOAT_BYTES
    return None
